"""The rows of the mart `quality`: what the cleaning report says of a month."""

from __future__ import annotations

from collections.abc import Iterator

from taxi_platform.trips.known import compare_count
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.trips.report import Report

QualityRow = tuple[str, str, int]
"""measure, name, rows."""


def quality_rows(report: Report, is_synthetic: bool = False) -> list[QualityRow]:
    """One row for each number of rows that the report has, sorted.

    `published` is left out where it is not known of this kind of file, CSV or Parquet, and of a synthetic month.
    """
    return sorted(_rows(report, is_synthetic))


def _rows(report: Report, is_synthetic: bool) -> Iterator[QualityRow]:
    yield "read", "", report.rows_read
    yield "clean", "", report.rows_clean
    yield from (("rejected", reason, rows) for reason, rows in report.rejected_by_reason.items())
    yield from (("suspicious", rule, rows) for rule, rows in report.suspicious.items())
    count = compare_count(DatasetMonth.parse(report.dataset, report.month), report.format, report.rows_read)
    if not is_synthetic and count.published is not None and count.compared == count.kind:
        yield "published", "", count.published
