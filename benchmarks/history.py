"""The whole history, every month whose published row count is known, estimated from the rates that were measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.report import Row
from taxi_platform.trips.known import published_counts
from taxi_platform.trips.months import Dataset

EACH_MONTH, ONE_TINY_MONTH = "each month", "one tiny month"
"""The rates of what every month takes, however small: one of many, and one as a process of its own."""


def published_rows() -> dict[Dataset, list[int]]:
    """The rows of each dataset's published months, of their newest version; Parquet where a month has both formats."""
    rows: dict[tuple[str, str], int] = {}
    for (dataset, month, kind), counts in published_counts().items():
        if kind == "parquet" or (dataset, month, "parquet") not in published_counts():
            rows[dataset, month] = counts[-1]
    return {dataset: [count for (name, _), count in rows.items() if name == dataset.value] for dataset in Dataset}


def estimate(rows: Sequence[Row], month_rows: int) -> str:
    """The end of the page; empty if not everything that it takes was measured.

    A month takes what a tiny one takes among many, and for its rows what `taxi ingest` of `month_rows` rows took beyond
    a tiny month.
    """
    rates = {row.rate: row.value for row in rows if row.rate}
    if set(rates) < {EACH_MONTH, ONE_TINY_MONTH, *(dataset.value for dataset in Dataset)}:
        return ""
    history = published_rows()
    lines = [["dataset", "months", "rows", "rows a second", "hours"], ["---"] * 5]
    total = 0.0
    for dataset, months in history.items():
        taken = hours(months, rates, dataset, month_rows)
        total += taken
        speed = month_rows / _seconds_of_rows(rates, dataset, month_rows)
        lines.append([dataset.value, str(len(months)), f"{sum(months):,}", f"{speed:,.0f}", f"{taken:.1f}"])
    all_months, all_rows = sum(map(len, history.values())), sum(map(sum, history.values()))
    lines.append(["all", f"{all_months}", f"{all_rows:,}", "", f"**{total:.1f}**"])
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return (
        f"## The whole history\n\nEstimated: {rates[EACH_MONTH]:.2f} s for each month, however small, and for its rows "
        f"what `taxi ingest` of {month_rows:,} rows of Parquet took beyond a tiny month. One month after the other, "
        f"without the download from the TLC.\n\n{table}"
    )


def _seconds_of_rows(rates: Mapping[str, float], dataset: Dataset, month_rows: int) -> float:
    return max(rates[dataset.value] - rates[ONE_TINY_MONTH], 0.01)


def hours(months: Sequence[int], rates: Mapping[str, float], dataset: Dataset, month_rows: int) -> float:
    """Of months with so many rows, one after the other; `rates` are seconds, of a dataset's month of `month_rows`."""
    of_a_row = _seconds_of_rows(rates, dataset, month_rows) / month_rows
    return (len(months) * rates[EACH_MONTH] + sum(months) * of_a_row) / 3600
