"""Compares the time of comparing a month's table with its file, every value, with that of cleaning the month.

In DuckDB, where the goal is at most 0.3: it was 0.15 with 400,000 rows. The two alternate; the result is a ratio.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from taxi_platform.sources.sample.writing import write_sample
from taxi_platform.trips.cleaning import Cleaner, CleaningInput
from taxi_platform.trips.files import verify
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.warehouse import open_warehouse
from taxi_platform.warehouse.base import CleanFiles

DATASET_MONTH = DatasetMonth.parse("yellow", "2021-01")


def seconds(work: Callable[[], object]) -> float:
    """Of processor time, in all threads: both sides run in this process."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_370_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        raw = folder / "raw.csv.gz"
        print(f"Generating a sample month of {options.rows:,} yellow rows ...", flush=True)
        write_sample(DATASET_MONTH, options.rows, raw)
        sha256, verified = hashlib.sha256(raw.read_bytes()).hexdigest(), verify(raw)
        cleaner = Cleaner(CleaningInput(DATASET_MONTH, raw, sha256, verified.rows, verified.plain), folder)
        clean = cleaner.clean()
        files = CleanFiles(DATASET_MONTH, clean.report.file_version, clean.trips, clean.rejected, "", "")
        warehouse = open_warehouse(f"duckdb://{folder / 'warehouse.duckdb'}")
        warehouse.replace_month(files)
        turns = [
            (seconds(cleaner.clean), seconds(lambda: warehouse.verify_month(files))) for _ in range(options.rounds)
        ]
    cleaning, comparing = (median(times) for times in zip(*turns, strict=True))
    ratios = [compared / cleaned for cleaned, compared in turns]
    print(f"cleaning {cleaning:.2f} s, comparing {comparing:.2f} s of processor time")
    print(f"ratio, median of {len(ratios)}: {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
