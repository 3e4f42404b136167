"""What a run has compared, so that its check of a table does not compare a month that was unchanged once more."""

from __future__ import annotations

from taxi_platform.lake.clean_month import CleanFooter
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.warehouse.base import LoadResult

_compared: dict[tuple[str, DatasetMonth], tuple[str, CleanFooter, LoadResult]] = {}
"""Warehouse and month → the run of this process that compared its tables, the clean file, and what the tables hold."""


def note_comparison(
    run: str, warehouse_url: str, dataset_month: DatasetMonth, footer: CleanFooter, result: LoadResult
) -> None:
    """Remember that `run` compared both tables with the month's files, by every value, and found no difference."""
    _compared[warehouse_url, dataset_month] = run, footer, result


def take_comparison(run: str, warehouse_url: str, dataset_month: DatasetMonth) -> tuple[CleanFooter, LoadResult] | None:
    """What the same run compared, once; None if it did not, or not in this process."""
    noted = _compared.pop((warehouse_url, dataset_month), None)
    return noted[1:] if noted and run and noted[0] == run else None
