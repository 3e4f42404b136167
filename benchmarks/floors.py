"""What the parts of a step take, where a goal is missed: `python -m benchmarks.floors [--rows N] [--rounds N]`.

Processor time of each part, which other work on the machine disturbs least: the medians of some rounds, each in a
process of its own.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from statistics import median

from benchmarks.cleaning import bare, casts, clean_month, idle
from benchmarks.measure import timed
from benchmarks.months import Months
from benchmarks.parts import cleaning, marts
from benchmarks.reading import SCANS, scans
from taxi_platform.trips.contract import contract_of
from taxi_platform.trips.months import DatasetMonth

PARQUET = (("yellow", "2023-03"), ("green", "2023-03"), ("fhv", "2023-03"), ("fhvhv", "2023-03"))
CSV = (("yellow", "2021-01"), ("fhvhv", "2021-01"))
PARTS_OF_A_SCAN = {
    "the footer": "SELECT count(*) FROM {file}",
    "the footer, and decoding every pick-up time": "SELECT sum(epoch({pickup_datetime})) FROM {file}",
    "trips of a day": SCANS["trips of a day"],
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.floors", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_370_000, help="of each month")
    parser.add_argument("--rounds", type=int, default=3, help="how often each part is measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        months = Months(Path(folder), Path(folder), options.rows)
        months.prepare(CSV, PARQUET)
        for number, (dataset, month) in enumerate((*PARQUET, *CSV)):
            path = months.parquet(dataset, month) if number < len(PARQUET) else months.csv(dataset, month)
            _print_cleaning(months, dataset, month, path, options.rounds)
        for dataset, month in (PARQUET[0], PARQUET[-1]):
            _print_marts_and_scans(months, dataset, month, options.rounds)


def _print_cleaning(months: Months, dataset: str, month: str, path: Path, rounds: int) -> None:
    work = months.folder / "work"
    clean_month(months, dataset, month, path)
    raw = {**vars(months.raw(dataset, month, path)), "dataset_month": f"{dataset} {month}", "path": str(path)}
    _print_parts(f"{path.name}: cleaning", (timed(cleaning, raw, work).output for _ in range(rounds)))
    target = str(months.folder / "plain.parquet")
    peaks = {
        "nothing but its imports": timed(idle),
        "bare COPY": timed(bare, path, target),
        "plain casts": timed(casts, path, target, dataset),
        "the step": clean_month(months, dataset, month, path),
    }
    print(
        "  peak memory: " + ", ".join(f"{name} {timing.peak_mb:.0f} MB" for name, timing in peaks.items()), flush=True
    )


def _print_marts_and_scans(months: Months, dataset: str, month: str, rounds: int) -> None:
    published, work = months.parquet(dataset, month), months.folder / "work"
    clean_month(months, dataset, month, published)
    version = contract_of(DatasetMonth.parse(dataset, month).dataset).file_version(
        months.raw(dataset, month, published).sha256, ()
    )
    _print_parts(
        f"{dataset} {month}: marts", (timed(marts, dataset, month, version, work).output for _ in range(rounds))
    )
    taken = timed(scans, work / "trips.parquet", published, dataset, rounds, PARTS_OF_A_SCAN).output
    print(f"{dataset} {month}: scans of the clean file, and of the TLC's own")
    for name, pairs in taken.items():
        ours, theirs = (1000 * median(pair[number] for pair in pairs) for number in (1, 3))
        print(f"  {name:48} {ours:6.1f} and {theirs:.1f} ms", flush=True)


def _print_parts(title: str, rounds: Iterable[dict[str, float]]) -> None:
    parts: dict[str, list[float]] = defaultdict(list)
    for measured in rounds:
        for name, seconds in measured.items():
            parts[name].append(seconds)
    print(title)
    for name, measured_seconds in parts.items():
        print(f"  {name:48} {median(measured_seconds):6.2f} s", flush=True)


if __name__ == "__main__":
    main()
