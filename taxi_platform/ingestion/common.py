"""What the steps share: how they report progress, what they do on a conflict, and how they read a clean month."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random

from taxi_platform.ingestion.work_folder import work_folder
from taxi_platform.lake.base import Lake
from taxi_platform.lake.clean_month import CleanFooter, cleaned_by_another_run
from taxi_platform.lake.months import LakeMonth
from taxi_platform.trips.errors import Conflict, IntegrityError, LakeError, TaxiError, WarehouseError
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.trips.report import Report
from taxi_platform.warehouse.base import CleanFiles

Result = TypeVar("Result")
Say = Callable[[str], None]
"""Takes one sentence, for people, about what a step does."""

retry_on_conflict: Callable[[Callable[..., Result]], Callable[..., Result]] = retry(
    retry=retry_if_exception_type(Conflict), stop=stop_after_attempt(5), wait=wait_random(0, 1), reraise=True
)
"""Start a step again if another run published first: usually it then finds nothing left to do."""


def no_message(sentence: str) -> None:
    """A `Say` that prints nothing."""


def published(lake: Lake, dataset_month: DatasetMonth) -> tuple[CleanFooter, Report]:
    """The footer and report of the clean month in the lake; raises `LakeError` if either is missing."""
    month = LakeMonth(lake, dataset_month)
    footer = month.footer()
    report = month.report(footer.file_version) if footer else None
    if footer is None or report is None:
        raise LakeError(f"The lake has no clean file of {dataset_month}.", "Materialize its clean_trips first.")
    return footer, report


@contextmanager
def open_clean_month(lake: Lake, dataset_month: DatasetMonth) -> Iterator[tuple[LakeMonth, CleanFooter, Report]]:
    """Lock the month and read what its clean file consists of, once; raises `LakeError` if it is incomplete.

    Without locks another run may clean the month again meanwhile and delete the files of the version that was read.
    So the footer is read again at the end: if it names another version, any other error is a consequence of that, and
    `Conflict` is raised.
    """
    with lake.lock(dataset_month):
        month = LakeMonth(lake, dataset_month)
        footer, report = published(lake, dataset_month)
        problem: TaxiError | None = None
        try:
            yield month, footer, report
        except (LakeError, WarehouseError, IntegrityError) as error:
            problem = error
        stored = lake.stat(month.clean_key)
        after = footer if stored and stored.version == footer.object_version else month.footer()
        # The same version may be cleaned again by force, or because it was damaged.
        if after is None or after.file_version != footer.file_version or (problem and after != footer):
            raise cleaned_by_another_run(dataset_month)
        if problem:
            raise problem


@contextmanager
def month_files(month: LakeMonth, version: str, home: Path) -> Iterator[CleanFiles]:
    """The month's clean file and rejected rows of this version, on this machine; raises `DamagedFile`."""
    lake, clean_key, rejected_key = month.lake, month.clean_key, month.rejected_key(version)
    with (
        work_folder(home, month.dataset_month) as folder,
        month.copies(version, folder) as (trips, rejected),
    ):
        yield CleanFiles(month.dataset_month, version, trips, rejected, lake.uri(clean_key), lake.uri(rejected_key))
