"""Measure a backfill launched as the UI launches it: `python benchmarks/backfill.py [--months 60] [--dataset yellow]`.

A real `taxi dev` on a temporary home materializes a dataset's first months from tiny synthetic files, so that this
measures what Dagster needs for a run, not the cleaning. Prints seconds per month and where they go; fails unless every
month succeeded with every check evaluated.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from taxi_platform.trips.months import Dataset
from taxi_platform_tests.support.taxi_dev import taxi_dev

RUNNING = ("REQUESTED", "IN_PROGRESS", "COMPLETING", "CANCELING")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--months", type=int, default=60)
    parser.add_argument("--dataset", type=Dataset, default=Dataset.YELLOW)
    parser.add_argument("--rows", type=int, default=200)
    options = parser.parse_args()
    first = options.dataset.first_month
    months = {str(month) for month in first.until(first.plus(options.months - 1))}
    with (
        tempfile.TemporaryDirectory() as folder,
        taxi_dev(Path(folder) / "home", TAXI_SOURCE_URL=f"sample://?rows={options.rows}") as platform,
    ):
        started = time.monotonic()
        backfill = platform.launch_backfill(options.dataset.value, sorted(months))
        while (status := platform.backfill_status(backfill)) in RUNNING:
            time.sleep(2)
        seconds = time.monotonic() - started
        runs = platform.backfill_runs(backfill)
        checks = set(platform.latest_checks(options.dataset.value))
        incomplete = [run["tags"] for run in runs if set(platform.run_checks(run["runId"])) != checks]
        materialized = platform.materialized(f"{options.dataset}/trips")
    waits = [run["startTime"] - run["creationTime"] for run in runs]
    durations = [run["endTime"] - run["startTime"] for run in runs]
    starts = sorted(run["startTime"] for run in runs)
    print(f"{status}: {len(runs)} runs in {seconds:.0f} s, {seconds / len(months):.2f} s per month")
    print(f"a run takes {statistics.median(durations):.2f} s (median) and {max(durations):.2f} s at most")
    print(f"a run waits {min(waits):.1f} to {max(waits):.1f} s; from the first start to the last end")
    print(f"{max(run['endTime'] for run in runs) - starts[0]:.0f} s, {sum(durations) / seconds:.1f} runs at a time")
    print(f"{len(incomplete)} runs did not evaluate all {len(checks)} checks")
    if status != "COMPLETED_SUCCESS" or incomplete or materialized != months:
        sys.exit(1)


if __name__ == "__main__":
    main()
