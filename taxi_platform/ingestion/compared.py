"""What a run has compared, so that its checks do not compare a month that was unchanged once more."""

from __future__ import annotations

from typing import Any

from taxi_platform.lake.clean_month import CleanFooter
from taxi_platform.trips.months import DatasetMonth

_compared: dict[tuple[str, str, DatasetMonth], tuple[str, CleanFooter, Any]] = {}
"""Step, warehouse and month → the run of this process that compared its tables, the clean file, and what they hold."""


def note_comparison(
    step: str, run: str, warehouse_url: str, dataset_month: DatasetMonth, footer: CleanFooter, result: Any
) -> None:
    """Remember that a step of `run` compared its tables with the month's files, by every value, and all were equal."""
    _compared[step, warehouse_url, dataset_month] = run, footer, result


def take_comparison(
    step: str, run: str, warehouse_url: str, dataset_month: DatasetMonth
) -> tuple[CleanFooter, Any] | None:
    """What that step of the same run compared, once; None if it did not, or not in this process."""
    noted = _compared.pop((step, warehouse_url, dataset_month), None)
    return noted[1:] if noted and run and noted[0] == run else None
