"""The three steps of a month: fetch, clean, load. Each finds out what is there, and does only what is missing.

What decides is the lake and the warehouse, never Dagster's history; so nothing here knows Dagster.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random

from taxi_platform.ingestion.comparing import must_compare
from taxi_platform.ingestion.work_folder import work_folder
from taxi_platform.lake.base import Lake
from taxi_platform.lake.months import CleanFooter, LakeMonth, RawVersion
from taxi_platform.sources.base import Progress, Source
from taxi_platform.trips.cleaning import Cleaner, CleaningInput, Engine
from taxi_platform.trips.contract import contract_of
from taxi_platform.trips.errors import (
    Conflict,
    IntegrityError,
    LakeError,
    NotPublished,
    SourceRefused,
    SourceUnavailable,
    TaxiError,
    WarehouseError,
)
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.trips.report import Report
from taxi_platform.warehouse.base import CleanFiles, LoadResult, Warehouse, check_arrived, rejected_table, trips_table
from taxi_platform.warehouse.fingerprint import parquet_fingerprint

Result = TypeVar("Result")
Say = Callable[[str], None]
"""Told one sentence for people about what happens."""

REALLY_PUBLISHED = "The lake has this month as published, and sample:// makes one up: set TAXI_SOURCE_URL, or force it."

retry_on_conflict: Callable[[Callable[..., Result]], Callable[..., Result]] = retry(
    retry=retry_if_exception_type(Conflict), stop=stop_after_attempt(5), wait=wait_random(0, 1), reraise=True
)
"""Where another run published first, look again: usually there is nothing left to do."""


@dataclass(frozen=True)
class Fetched:
    """The month's current raw file. `warning` says why an older one had to do."""

    raw: RawVersion
    uri: str
    previous: RawVersion | None
    unchanged: bool
    warning: str | None = None


@dataclass(frozen=True)
class Cleaned:
    """The month's clean file and what its cleaning found."""

    footer: CleanFooter
    report: Report
    uri: str
    rejected_uri: str
    source_url: str
    unchanged: bool


@dataclass(frozen=True)
class Loaded:
    """The month as its tables hold it."""

    result: LoadResult
    file_version: str
    uri: str
    unchanged: bool


@retry_on_conflict
def fetch(
    source: Source,
    lake: Lake,
    dataset_month: DatasetMonth,
    home: Path,
    force: bool = False,
    kept: bool = False,
    progress: Progress = lambda done, total: None,
    say: Say = lambda sentence: None,
) -> Fetched:
    """Make the lake's raw file the one the source has now.

    `kept` takes the lake's own and asks nobody. Raises `NotPublished`, or what the source raises; where the source is
    out of reach and a raw file is kept, that one does, with a warning.
    """
    with lake.lock(dataset_month):
        month = LakeMonth(lake, dataset_month)
        before = month.current_raw()
        held = before is not None and lake.stat(before.key) is not None
        if kept or (before and before.instead_of and not held):
            return _kept(lake, dataset_month, before, held)
        try:
            publication = source.stat(dataset_month)
            if publication is None:
                raise NotPublished(f"{dataset_month} is not published.", "Try again later, or take an earlier month.")
            over_published = before is not None and publication.is_synthetic and not before.publication.is_synthetic
            if over_published and not held and not force:
                raise SourceRefused(f"{dataset_month} cannot be fetched again.", REALLY_PUBLISHED)
            must_fetch = force or (before is not None and must_compare(before, publication, datetime.now(UTC)))
            if before and held and not must_fetch and before.is_of(publication):
                told = "set aside" if before.instead_of == publication.offer else f"fetched on {before.time[:10]}"
                if not over_published:
                    say(f"{dataset_month}: the source still has the file that was {told}.")
                warning = REALLY_PUBLISHED if over_published else None
                return Fetched(before, lake.uri(before.key), before, unchanged=True, warning=warning)
            with work_folder(home, dataset_month) as folder:
                fetched = source.fetch(dataset_month, folder, progress)
                raw = month.publish_raw(fetched)
        except (SourceUnavailable, NotPublished) as error:
            if not before or not held or force:
                raise
            return Fetched(before, lake.uri(before.key), before, unchanged=True, warning=str(error))
        unchanged = before is not None and before.sha256 == raw.sha256
        note = ", the same as before" * unchanged if fetched.sha256 == raw.sha256 else ", which were set aside"
        say(f"{dataset_month}: fetched {fetched.size:,} bytes, {fetched.rows:,} rows{note}.")
        return Fetched(raw, lake.uri(raw.key), before, unchanged)


def _kept(lake: Lake, dataset_month: DatasetMonth, raw: RawVersion | None, held: bool) -> Fetched:
    """The lake's own raw file, which nothing that a source has may stand in for."""
    if raw is None:
        raise LakeError(
            f"The lake has no raw file of {dataset_month}.", "Fetch it: materialize raw_file without `kept`."
        )
    if not held:
        raise LakeError(f"{lake.uri(raw.key)} is missing.", f"Take another: taxi versions {dataset_month} lists them.")
    return Fetched(raw, lake.uri(raw.key), raw, unchanged=True)


@retry_on_conflict
def clean(
    lake: Lake,
    dataset_month: DatasetMonth,
    home: Path,
    engine: Engine,
    reject: Sequence[str] = (),
    force: bool = False,
    say: Say = lambda sentence: None,
) -> Cleaned:
    """Make the lake's clean file the one that current raw file, contract and reject rules give."""
    contract = contract_of(dataset_month.dataset)
    rules = contract.check_rules(reject)
    with lake.lock(dataset_month):
        month = LakeMonth(lake, dataset_month)
        raw = month.current_raw()
        if raw is None:
            raise LakeError(f"The lake has no raw file of {dataset_month}.", "Materialize its raw_file first.")
        version = contract.file_version(raw.sha256, rules)
        footer = month.footer()
        unchanged = month.is_complete(footer, version) and not force
        if unchanged:
            say(f"{dataset_month}: the clean file is already version {version}.")
        else:
            with work_folder(home, dataset_month) as folder, lake.local_copy(raw.key, folder) as path:
                with path.open("rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != raw.sha256:
                        problem = f"{lake.uri(raw.key)} is not the file that was fetched on {raw.time[:10]}."
                        raise IntegrityError(problem, "Remove it, and materialize the month's raw_file again.")
                cleaner = Cleaner(
                    CleaningInput(dataset_month, path, raw.sha256, raw.rows, raw.plain), folder, rules, engine
                )
                month.publish_clean(cleaner.clean(force), footer)
        footer, report = month.footer(), month.report(version)
        if footer is None or report is None or footer.file_version != version:
            raise Conflict(f"{dataset_month} was cleaned by another run meanwhile.", "Run the month again.")
        say(f"{dataset_month}: {report.rows_clean:,} rows clean, {report.rows_rejected:,} rejected.")
        uris = lake.uri(month.clean_key), lake.uri(month.rejected_key(version))
        return Cleaned(footer, report, *uris, raw.url, unchanged)


@contextmanager
def _clean_month(lake: Lake, dataset_month: DatasetMonth) -> Iterator[tuple[LakeMonth, CleanFooter, Report]]:
    """The month as the lake holds it now; raises `LakeError` where it is not whole.

    Raises `Conflict` where another run cleaned it again meanwhile, which sweeps the files of the version before:
    whatever else went wrong then, that is why.
    """
    with lake.lock(dataset_month):
        month = LakeMonth(lake, dataset_month)
        footer, report = published(lake, dataset_month)
        problem: TaxiError | None = None
        try:
            yield month, footer, report
        except (LakeError, WarehouseError, IntegrityError) as error:
            problem = error
        after = month.footer()
        if after is None or after.file_version != footer.file_version:
            raise Conflict(f"{dataset_month} was cleaned again by another run meanwhile.", "Run the month again.")
        if problem:
            raise problem


@retry_on_conflict
def load(
    lake: Lake,
    warehouse: Warehouse,
    dataset_month: DatasetMonth,
    home: Path,
    force: bool = False,
    say: Say = lambda sentence: None,
) -> Loaded:
    """Make the warehouse's month the one that the lake's clean file holds."""
    trips = trips_table(dataset_month.dataset)
    with _clean_month(lake, dataset_month) as (month, footer, report):
        version = footer.file_version
        unchanged = not force and warehouse.is_loaded(dataset_month, version, footer.rows, report.rows_rejected)
        if unchanged:
            found = warehouse.fingerprint(trips, dataset_month)
            result = LoadResult(footer.rows, report.rows_rejected, found, warehouse.links(trips.name))
        else:
            result = _replace_month(lake, warehouse, month, version, home)
    if unchanged:
        say(f"{dataset_month}: {trips.name} already holds version {version}.")
    else:
        say(f"{dataset_month}: {result.rows:,} rows in {trips.name}, {result.rejected_rows:,} in the rejected table.")
    return Loaded(result, version, warehouse.uri(trips.name), unchanged)


def _replace_month(lake: Lake, warehouse: Warehouse, month: LakeMonth, version: str, home: Path) -> LoadResult:
    clean_key, rejected_key = month.clean_key, month.rejected_key(version)
    with (
        work_folder(home, month.dataset_month) as folder,
        lake.local_copy(clean_key, folder) as trips,
        lake.local_copy(rejected_key, folder) as rejected,
    ):
        uris = lake.uri(clean_key), lake.uri(rejected_key)
        return warehouse.replace_month(CleanFiles(month.dataset_month, version, trips, rejected, *uris))


def published(lake: Lake, dataset_month: DatasetMonth) -> tuple[CleanFooter, Report]:
    """The clean month as the lake holds it; raises `LakeError` where it is not whole."""
    month = LakeMonth(lake, dataset_month)
    footer = month.footer()
    report = month.report(footer.file_version) if footer else None
    if footer is None or report is None:
        raise LakeError(f"The lake has no clean file of {dataset_month}.", "Materialize its clean_trips first.")
    return footer, report


@retry_on_conflict
def check_accounted_for(lake: Lake, dataset_month: DatasetMonth) -> tuple[int, int, int]:
    """Rows read, clean and rejected, each from where it is stored; raises `IntegrityError` where they do not add up."""
    import pyarrow.parquet as pq

    with _clean_month(lake, dataset_month) as (month, footer, _):
        versions, _ = month.versions()
        read = next((raw.rows for raw in reversed(versions) if raw.sha256 == footer.raw_sha256), None)
        with lake.open(month.rejected_key(footer.file_version)) as file:
            rejected = pq.read_metadata(file).num_rows
    if read is None or read != footer.rows + rejected:
        raise IntegrityError(
            f"{dataset_month}: {read} rows were read, but {footer.rows} are clean and {rejected} rejected.",
            "Materialize the month again with force.",
        )
    return read, footer.rows, rejected


@retry_on_conflict
def check_table(lake: Lake, warehouse: Warehouse, dataset_month: DatasetMonth, home: Path) -> tuple[str, str]:
    """The fingerprints of clean file and table, read again; raises `IntegrityError` where they differ.

    Raises `Conflict` where the table holds another version than the clean file: cleaned again, and not loaded yet.
    """
    trips, rejected = trips_table(dataset_month.dataset), rejected_table(dataset_month.dataset)
    with _clean_month(lake, dataset_month) as (month, footer, report):
        loaded = warehouse.loaded_month(trips.name, dataset_month)
        if loaded and len(loaded.file_versions) == 1 and loaded.file_versions != (footer.file_version,):
            raise Conflict(
                f"{trips.name} holds version {loaded.file_versions[0]} of {dataset_month}, "
                f"the lake {footer.file_version}.",
                f"Whoever cleaned it loads it too; if nobody does, materialize {dataset_month.dataset}/trips again.",
            )
        with work_folder(home, dataset_month) as folder, lake.local_copy(month.clean_key, folder) as path:
            expected = parquet_fingerprint(trips.columns, path)
        arrived = warehouse.fingerprint(trips, dataset_month)
        check_arrived(trips, expected, arrived)
        found = warehouse.loaded_month(rejected.name, dataset_month)
        rows = found.rows if found else 0
        if rows != report.rows_rejected:
            raise IntegrityError(
                f"{dataset_month}: {rows} rejected rows are in the table, not {report.rows_rejected}.",
                "Materialize the month again with force.",
            )
    return str(expected), str(arrived)
