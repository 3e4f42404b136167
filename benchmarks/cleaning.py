"""Compares the speed of cleaning with DuckDB's bare COPY of the same file. The two alternate; the result is a ratio."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

# Both import everything before the clock starts: the platform imports it once for all its months.
BARE = """
import duckdb, pandas, pyarrow, sys, time
con = duckdb.connect(config={"memory_limit": "512MB"})
con.execute("SET enable_progress_bar = false")
started = time.perf_counter()
con.execute(f"COPY (SELECT * FROM read_csv('{sys.argv[1]}', ignore_errors = true)) TO '{sys.argv[2]}' (FORMAT parquet)")
print(time.perf_counter() - started)
"""
CLEAN = """
import pandas, pyarrow, sys, time
from pathlib import Path
from taxi_platform.trips.cleaning import Cleaner, CleaningInput
from taxi_platform.trips.months import DatasetMonth
dataset_month, rows, plain = DatasetMonth.parse("yellow", sys.argv[3]), int(sys.argv[4]), sys.argv[5] == "True"
raw = CleaningInput(dataset_month, Path(sys.argv[1]), "0" * 64, rows, plain)
started = time.perf_counter()
Cleaner(raw, Path(sys.argv[2])).clean()
print(time.perf_counter() - started)
"""


def timed(code: str, *arguments: str) -> tuple[float, int]:
    """Run `code` in a child process: the seconds it printed, and the peak memory of the process in MB."""
    child = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)
    output = child.stdout.read() if child.stdout else ""
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"a child process failed with status {status}")
    return float(output), usage.ru_maxrss // 1024


def main() -> None:
    from taxi_platform.sources.sample.writing import write_sample
    from taxi_platform.trips.files import verify
    from taxi_platform.trips.months import DatasetMonth

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_370_000)
    parser.add_argument("--month", default="2021-01")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        raw = folder / "month.csv.gz"
        print(f"Generating a sample month of {options.rows:,} yellow rows ...", flush=True)
        write_sample(DatasetMonth.parse("yellow", options.month), options.rows, raw)
        verified = verify(raw)
        bare, clean = [], []
        for _ in range(options.rounds):
            bare.append(timed(BARE, str(raw), str(folder / "bare.parquet")))
            work = folder / "work"
            work.mkdir()
            clean.append(timed(CLEAN, str(raw), str(work), options.month, str(verified.rows), str(verified.plain)))
            subprocess.run(["rm", "-rf", str(work)], check=True)
    for label, runs in (("DuckDB's bare COPY", bare), ("taxi_platform's cleaning", clean)):
        print(f"{label:26} {median(s for s, _ in runs):5.2f} s   {max(m for _, m in runs):4} MB")
    ratios = [ours / theirs for (ours, _), (theirs, _) in zip(clean, bare, strict=True)]
    label = f"ratio, median of {len(ratios)}"
    print(f"{label:26} {median(ratios):5.2f} x   ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
