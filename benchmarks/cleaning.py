"""Cleaning beside DuckDB's bare COPY of the same file, alternating in one run; speed is a ratio, never a timed test."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

BARE = """
import duckdb, sys
con = duckdb.connect(config={"memory_limit": "512MB"})
con.execute("SET enable_progress_bar = false")
con.execute(f"COPY (SELECT * FROM read_csv('{sys.argv[1]}', ignore_errors = true)) TO '{sys.argv[2]}' (FORMAT parquet)")
"""
CLEAN = """
import sys
from pathlib import Path
from taxi_platform.trips.cleaning import Cleaner, RawMonth
from taxi_platform.trips.months import Partition
raw = RawMonth(Partition.parse("yellow", sys.argv[3]), Path(sys.argv[1]), "0" * 64, int(sys.argv[4]))
Cleaner(raw, Path(sys.argv[2])).clean()
"""


def timed(code: str, *arguments: str) -> tuple[float, int]:
    """Seconds and peak memory (MB) of one child process, its imports included."""
    started = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-c", code, *arguments])
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"a child process failed with status {status}")
    return time.perf_counter() - started, usage.ru_maxrss // 1024


def main() -> None:
    from taxi_platform.trips.files import verify
    from taxi_platform.trips.months import Partition
    from taxi_platform.trips.sample import write_sample

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_370_000)
    parser.add_argument("--month", default="2021-01")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        raw = folder / "month.csv.gz"
        print(f"Making a sample month of {options.rows:,} yellow rows ...", flush=True)
        write_sample(Partition.parse("yellow", options.month), options.rows, raw)
        rows = str(verify(raw).rows)
        bare, clean = [], []
        for _ in range(options.rounds):
            bare.append(timed(BARE, str(raw), str(folder / "bare.parquet")))
            work = folder / "work"
            work.mkdir()
            clean.append(timed(CLEAN, str(raw), str(work), options.month, rows))
            subprocess.run(["rm", "-rf", str(work)], check=True)
    for label, runs in (("DuckDB's bare COPY", bare), ("taxi_platform's cleaning", clean)):
        print(f"{label:26} {median(s for s, _ in runs):5.2f} s   {max(m for _, m in runs):4} MB")
    ratios = [ours / theirs for (ours, _), (theirs, _) in zip(clean, bare, strict=True)]
    label = f"ratio, median of {len(ratios)}"
    print(f"{label:26} {median(ratios):5.2f} x   ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
