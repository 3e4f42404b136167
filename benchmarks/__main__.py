"""`python -m benchmarks [--rows N] [--pairs N] [GROUP …]`: measure, print the table, and write `results.md`."""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.history import estimate
from benchmarks.months import Months, Options
from benchmarks.report import RESULTS, Row, page, print_rows

GROUPS = {
    "cleaning": "Cleaning a month",
    "reading": "The clean files, against the TLC's own of the same rows",
    "tables": "Tables, marts and data frames",
    "commands": "Whole processes",
    "bucket": "A lake in a bucket",
}
"""The module that measures a group of rows → its title."""


def main(arguments: list[str] | None = None) -> dict[str, list[Row]]:
    """Measure the groups; returns their rows by title. Writes the page only if all groups were measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"some of {', '.join(GROUPS)} (default: all)")
    parser.add_argument("--rows", type=int, default=1_370_000, help="of each month; yellow 2021-01 has so many")
    parser.add_argument("--pairs", type=int, default=5, help="how often each comparison is repeated")
    parser.add_argument("--months", type=int, default=60, help="tiny months in one home")
    parser.add_argument("--write", type=Path, help=f"the page to write (default: {RESULTS.name}, if all is measured)")
    options = parser.parse_args(arguments)
    if unknown := set(options.groups) - set(GROUPS):
        sys.exit(f"There is no group {', '.join(sorted(unknown))}. Choose from {', '.join(GROUPS)}.")
    started, results = time.monotonic(), {}
    with tempfile.TemporaryDirectory(prefix="bench-inputs-") as inputs:
        for name in options.groups or GROUPS:
            print(f"{GROUPS[name]}, from minute {(time.monotonic() - started) / 60:.1f}", flush=True)
            with tempfile.TemporaryDirectory(prefix="bench-") as folder:
                months = Months(Path(inputs), Path(folder), options.rows)
                measure = importlib.import_module(f"benchmarks.{name}").measure
                results[GROUPS[name]] = measure(months, Options(options.pairs, options.months))
            print_rows(results[GROUPS[name]])
    minutes = (time.monotonic() - started) / 60
    ending = estimate([row for rows in results.values() for row in rows], options.rows)
    print(ending, flush=True)
    target = options.write or (None if options.groups else RESULTS)
    if target:
        described = f"months of {options.rows:,} rows, {options.pairs} pairs"
        target.write_text(page(results, described, minutes, ending), "utf-8")
        print(f"{minutes:.0f} minutes; written to {target}")
    return results


if __name__ == "__main__":
    main()
