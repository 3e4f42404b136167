"""Versions that look wrong: what is known of a fetched or cleaned file, put before `trips/judgement.py`.

Not judged are sample months, whose rows are as many as somebody asked for, and files that somebody accepted.
"""

from __future__ import annotations

from pathlib import Path

from taxi_platform.lake.manifest import Manifest, RawVersion, SetAside
from taxi_platform.lake.months import CleanFooter
from taxi_platform.trips.errors import LooksWrong, NotData
from taxi_platform.trips.formats import SNIFFED_BYTES, Format, sniff
from taxi_platform.trips.judgement import judge
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.trips.publication import FetchedFile
from taxi_platform.trips.report import Report

OUTSIDE = "outside_month"


def judge_fetched(fetched: FetchedFile, manifest: Manifest, dataset_month: DatasetMonth) -> tuple[str, ...]:
    """Why a file fetched just now looks wrong, by its columns and rows; empty if it looks right or is not judged."""
    current = manifest.current
    is_known = fetched.sha256 in manifest.accepted or (current is not None and current.sha256 == fetched.sha256)
    if fetched.publication.is_synthetic or is_known:
        return ()
    standing_rows = current.rows if current and not current.publication.is_synthetic else None
    try:
        file_format, columns = published_columns(fetched.path)
    except NotData as error:
        return (error.problem,)
    return judge(dataset_month, file_format, columns, fetched.rows, standing_rows)


def judge_cleaned(
    report: Report, raw: RawVersion, manifest: Manifest, standing: CleanFooter | None, dataset_month: DatasetMonth
) -> tuple[str, ...]:
    """Why a file cleaned just now looks wrong, by its pick-ups and rejected rows; empty if it looks right.

    `standing` is the clean file that it would replace. Rows that a rule rejects on request count as stored.
    """
    if raw.publication.is_synthetic or raw.instead_of or raw.sha256 in manifest.accepted:
        return ()
    by_reason = report.rejected_by_reason
    return judge(
        dataset_month,
        rows=report.rows_read,
        outside_month=report.suspicious.get(OUTSIDE, 0) + by_reason.get(OUTSIDE, 0),
        readable_rows=report.rows_clean + sum(by_reason.get(rule, 0) for rule in report.reject),
        standing_readable_rows=standing.rows if standing else None,
    )


def published_columns(path: Path) -> tuple[Format, list[str]]:
    """A file's format and column names; raises `NotData` if it has none that can be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from taxi_platform.trips import csv_reading

    with path.open("rb") as file:
        file_format = sniff(file.read(SNIFFED_BYTES))
    if file_format is not Format.PARQUET:
        return file_format, csv_reading.header(path)
    try:
        return file_format, list(pq.read_schema(path).names)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise NotData(f"The columns of {path.name} cannot be read.", "Check what the source serves.") from error


def looks_wrong(entry: SetAside, dataset_month: DatasetMonth) -> LooksWrong:
    """The error for a month of which there is nothing but a version that is set aside."""
    return LooksWrong(
        f"{dataset_month} was not published, because its file looks wrong. {entry.why}",
        f"The file is kept in the lake, set aside. If it is right: {accept_command(entry, dataset_month)}. "
        "If the source holds extracts of months, set TAXI_SET_ASIDE=no.",
    )


def stays_as_it_was(entry: SetAside, dataset_month: DatasetMonth) -> str:
    """What is said of a month whose new version is set aside."""
    return (
        f"A new version looks wrong and is set aside; the month stays as it was. {entry.why} If it is right: "
        f"{accept_command(entry, dataset_month)}."
    )


def accept_command(entry: SetAside, dataset_month: DatasetMonth) -> str:
    return f"taxi accept {dataset_month} {entry.raw.short_sha256}"
