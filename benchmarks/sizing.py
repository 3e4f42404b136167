"""How large a machine the whole history takes: `python -m benchmarks.sizing [--rows N]`; a minute or two.

One month of each dataset is ingested as a process of its own, from Parquet as the TLC writes it, into a home of its
own. What it leaves on the disk, in proportion to its published file, and its processor time, which a busy machine
disturbs less than hours, are scaled to every month whose published row count is known; docs/operating.md shows them.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.commands import TINY_SOURCE
from benchmarks.history import EACH_MONTH, ONE_TINY_MONTH, hours, published_rows
from benchmarks.measure import TAXI, Timing, timed_command
from benchmarks.months import Months
from taxi_platform.trips.months import Dataset

MONTH = "2023-03"
TINY_MONTHS = ("2020-01", "2020-12")
PUBLISHED_BYTES_A_ROW = {"yellow": 17.45, "green": 15.70, "fhv": 7.45, "fhvhv": 25.47}
"""Of the TLC's Parquet files, over those whose size is known: 65.5 GB with 3.7 of the 4.4 billion rows."""


@dataclass(frozen=True)
class Taken:
    """What a month took: processor time, MB of memory, and bytes on the disk for each byte of its published file."""

    seconds: float
    peak_mb: float
    lake: float
    """Beside the raw file: clean and rejected trips, marts, reports."""
    warehouse: float


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sizing", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_370_000, help="of each month")
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory(prefix="sizing-") as name:
        folder = Path(name)
        (folder / "inputs").mkdir()
        months = Months(folder / "inputs", folder, rows)
        alone = _ingest(folder / "alone", TINY_SOURCE, "green", MONTH).processor
        empty = (folder / "alone/warehouse.duckdb").stat().st_size
        taken = {dataset: _month(months, folder / dataset.value, dataset.value, empty) for dataset in Dataset}
        each, history_bytes = _tiny_months(folder / "tiny")
    rates = {dataset.value: month.seconds for dataset, month in taken.items()}
    rates |= {EACH_MONTH: each, ONE_TINY_MONTH: alone}
    _print(taken, rates, rows, history_bytes)


def _month(months: Months, home: Path, dataset: str, empty: int) -> Taken:
    """`empty` is what a warehouse takes that has hardly any rows."""
    published = months.parquet(dataset, MONTH)
    source = f"file://{months.inputs}/{{dataset}}_tripdata_{{month}}.parquet"
    timing = _ingest(home, source, dataset, MONTH)
    size, lake = published.stat().st_size, _bytes(home / "lake") - _bytes(home / "lake/raw")
    warehouse = (home / "warehouse.duckdb").stat().st_size - empty
    return Taken(timing.processor, timing.peak_mb, lake / size, warehouse / size)


def _tiny_months(home: Path) -> tuple[float, float]:
    """Processor time of one of many tiny months, and bytes of Dagster's history for each."""
    timing = _ingest(home, TINY_SOURCE, "green", *TINY_MONTHS)
    return timing.processor / 12, _bytes(home / "dagster") / 12


def _ingest(home: Path, source: str, *arguments: str) -> Timing:
    environment = {"TAXI_HOME": str(home), "TAXI_SOURCE_URL": source, "TAXI_SET_ASIDE": "no"}
    return timed_command([TAXI, "ingest", *arguments], **environment)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _print(taken: dict[Dataset, Taken], rates: dict[str, float], month_rows: int, history_bytes: float) -> None:
    heads = ["dataset", "months", "rows", "raw files", "rest of the lake", "DuckDB", "processor hours", "memory"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    totals = [0.0] * 4
    counts = published_rows()
    for dataset, months in counts.items():
        raw = sum(months) * PUBLISHED_BYTES_A_ROW[dataset.value] / 1e9
        month = taken[dataset]
        values = [raw, raw * month.lake, raw * month.warehouse, hours(months, rates, dataset, month_rows)]
        totals = [total + value for total, value in zip(totals, values, strict=True)]
        print(_line(dataset.value, len(months), sum(months), values, f"{month.peak_mb:.0f} MB"))
    print(_line("all", sum(map(len, counts.values())), sum(map(sum, counts.values())), totals, ""))
    print(f"\nDagster's history: {history_bytes / 1e6:.2f} MB a month. {os.cpu_count()} cores.")


def _line(name: str, months: int, rows: int, values: list[float], memory: str) -> str:
    sizes = [f"{value:.0f} GB" if value >= 10 else f"{value:.1f} GB" for value in values[:3]]
    return f"| {' | '.join([name, str(months), f'{rows:,}', *sizes, f'{values[3]:.1f}', memory])} |"


if __name__ == "__main__":
    main()
