"""What the steps share: how they report progress, what they do on a conflict, and how they read a clean month."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random

from taxi_platform.ingestion.compared import cleaned_by, forget_cleaned, is_same_clean_file
from taxi_platform.ingestion.work_folder import work_folder
from taxi_platform.lake.base import Lake
from taxi_platform.lake.clean_month import CleanFooter, cleaned_by_another_run
from taxi_platform.lake.months import LakeMonth
from taxi_platform.trips.errors import Conflict, IntegrityError, LakeError, TaxiError, WarehouseError
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.trips.report import Report
from taxi_platform.warehouse.base import CleanFiles
from taxi_platform.warehouse.tables import KnownBytes

FINGERPRINTS = "fingerprints"
"""The folder in the home with the fingerprints of clean files, which are made again if they are lost."""
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
    footer = _footer(month)
    return footer, _report(month, footer)


def _footer(month: LakeMonth) -> CleanFooter:
    if (footer := month.footer()) is None:
        raise _not_clean(month)
    return footer


def _report(month: LakeMonth, footer: CleanFooter) -> Report:
    if (report := month.report(footer.file_version)) is None:
        raise _not_clean(month)
    return report


def _not_clean(month: LakeMonth) -> LakeError:
    return LakeError(f"The lake has no clean file of {month.dataset_month}.", "Materialize its clean_trips first.")


@contextmanager
def open_clean_month(
    lake: Lake, dataset_month: DatasetMonth, run: str = ""
) -> Iterator[tuple[LakeMonth, CleanFooter, Report]]:
    """`open_clean_file` with the report of its cleaning; raises `LakeError` if that is missing.

    What the cleaning of `run` knows of the month is not read again: four requests to a bucket.
    """
    if cleaned := cleaned_by(run, lake, dataset_month):
        month, footer, report = cleaned
        with lake.lock(dataset_month), _unless_cleaned_meanwhile(month, footer):
            yield month, footer, report
    else:
        with open_clean_file(lake, dataset_month) as (month, footer):
            yield month, footer, _report(month, footer)


@contextmanager
def open_clean_file(lake: Lake, dataset_month: DatasetMonth) -> Iterator[tuple[LakeMonth, CleanFooter]]:
    """Lock the month and read its clean file's footer, once; raises `LakeError` if there is none.

    Without locks another run may clean the month again meanwhile and delete the files of the version that was read.
    So the footer is read again at the end: if it names another version, any other error is a consequence of that, and
    `Conflict` is raised.
    """
    with lake.lock(dataset_month):
        month = LakeMonth(lake, dataset_month)
        footer = _footer(month)
        with _unless_cleaned_meanwhile(month, footer):
            yield month, footer


@contextmanager
def _unless_cleaned_meanwhile(month: LakeMonth, footer: CleanFooter) -> Iterator[None]:
    problem: TaxiError | None = None
    try:
        yield
    except (LakeError, WarehouseError, IntegrityError) as error:
        problem = error
    after = footer if is_same_clean_file(month.lake, month.dataset_month, footer) else month.footer()
    # The same version may be cleaned again by force, or because it was damaged.
    if after is None or after.file_version != footer.file_version or (problem and after != footer):
        forget_cleaned()
        raise cleaned_by_another_run(month.dataset_month)
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
        sums = month.checksums(version)  # `copies` has compared both files with them
        known = KnownBytes(sums.clean.sha256, home / FINGERPRINTS) if sums else None
        uris = lake.uri(clean_key), lake.uri(rejected_key)
        yield CleanFiles(month.dataset_month, version, trips, rejected, *uris, known)
