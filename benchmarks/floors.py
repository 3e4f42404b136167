"""What the parts of a step take, where a goal is missed: `python -m benchmarks.floors [--rounds N] [GROUP …]`.

Processor time of each part, which other work on the machine disturbs least: the medians of some rounds, each in a
process of its own. `command` is the floor of a whole `taxi ingest`: the sum of what it cannot do without.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.cleaning import bare, casts, clean_month, idle
from benchmarks.commands import (
    MONTHS,
    bare_process,
    in_copy,
    make_template,
    note_latest_run,
    run_dagster_alone,
    serving,
    source_url,
)
from benchmarks.measure import alternate, seconds, timed
from benchmarks.months import Months
from benchmarks.parts import cleaning, command, marts
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
    parser.add_argument("groups", nargs="*", help=f"some of {', '.join(GROUPS)} (default: all)")
    options = parser.parse_args()
    if unknown := set(options.groups) - set(GROUPS):
        parser.error(f"there is no group {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        months = Months(Path(folder), Path(folder), options.rows)
        for group in options.groups or GROUPS:
            GROUPS[group](months, options.rounds)


def _print_cleaning_of_all(months: Months, rounds: int) -> None:
    months.prepare(CSV, PARQUET)
    for number, (dataset, month) in enumerate((*PARQUET, *CSV)):
        path = months.parquet(dataset, month) if number < len(PARQUET) else months.csv(dataset, month)
        _print_cleaning(months, dataset, month, path, rounds)


def _print_cleaning(months: Months, dataset: str, month: str, path: Path, rounds: int) -> None:
    work = months.folder / "work"
    clean_month(months, dataset, month, path)
    raw = {**vars(months.raw(dataset, month, path)), "dataset_month": f"{dataset} {month}", "path": str(path)}
    measured = [timed(cleaning, raw, work).output for _ in range(rounds)]
    print(f"{path.name}: cleaning, in seconds that pass, and in seconds of processor time")
    parts = {name: [median(each[name][clock] for each in measured) for clock in (0, 1)] for name in measured[0]}
    for name, (wall, processor) in parts.items():
        print(f"  {name:48} {wall:6.2f} {processor:6.2f} s", flush=True)
    plain, duplicates = parts["plain casts to the clean schema"], parts["… and counting the hashes that differ"]
    for way, name in (("bare COPY", "the bare COPY"), ("plain casts to the clean schema", "plain casts")):
        floors = [(plain[clock] + duplicates[clock]) / parts[way][clock] for clock in (0, 1)]
        steps = [parts["the step"][clock] / parts[way][clock] for clock in (0, 1)]
        print(f"  the floor, plain casts and duplicates, to {name}: {floors[0]:.2f} and {floors[1]:.2f} ×; ", end="")
        print(f"the step: {steps[0]:.2f} and {steps[1]:.2f} ×", flush=True)
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


def _print_marts_and_scans_of_all(months: Months, rounds: int) -> None:
    for dataset, month in (PARQUET[0], PARQUET[-1]):
        _print_marts_and_scans(months, dataset, month, rounds)


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


def _print_commands(months: Months, rounds: int) -> None:
    make_template(months.folder)
    with serving(months.inputs) as url:
        for dataset, month, kind in MONTHS.values():
            _print_command(months, dataset, month, kind, url, rounds)


def _print_command(months: Months, dataset: str, month: str, kind: str, url: str, rounds: int) -> None:
    """The floor of a new month as a whole command, measured in turn with the command and with the bare steps."""
    path = months.parquet(dataset, month) if kind == "parquet" else months.csv(dataset, month)
    home, file, work = (months.folder / name for name in ("home", f"floor-{kind}.pickle", "work"))
    clean_month(months, dataset, month, path)
    version = contract_of(DatasetMonth.parse(dataset, month).dataset).file_version(
        months.raw(dataset, month, path).sha256, ()
    )
    ours = partial(in_copy, months.folder, source_url(url, kind), dataset, month)
    ours()
    note_latest_run(home, dataset, file)
    raw = f"{url}/{path.name}"
    ways = {
        "taxi ingest": ours,
        "bare steps": partial(bare_process, months.folder, raw),
        "Dagster alone": partial(run_dagster_alone, file, month, month),
        "parts": partial(timed, command, raw, dataset, month, version, work),
    }
    timings = alternate(ways, rounds)
    parts = {name: [(t.wall, t.processor) for t in timings[name]] for name in ways if name != "parts"}
    floor = {"Dagster alone": parts.pop("Dagster alone")}
    floor |= {name: [tuple(t.output[name]) for t in timings["parts"]] for name in timings["parts"][0].output}
    floor["the floor: the sum of these"] = [
        tuple(map(sum, zip(*each, strict=True))) for each in zip(*floor.values(), strict=True)
    ]
    print(f"taxi ingest of {path.name}: seconds that pass, and of processor time")
    for name, pairs in (floor | parts).items():
        wall, processor = (median(pair[number] for pair in pairs) for number in (0, 1))
        print(f"  {name:48} {wall:6.2f} {processor:6.2f} s", flush=True)
    print(f"  {'the goal: 1.5 x the bare steps + 1.5 s':48} {1.5 * seconds(timings['bare steps']) + 1.5:6.2f} s")


def _print_parts(title: str, rounds: Iterable[dict[str, float]]) -> None:
    parts: dict[str, list[float]] = defaultdict(list)
    for measured in rounds:
        for name, taken in measured.items():
            parts[name].append(taken)
    print(title)
    for name, measured_seconds in parts.items():
        print(f"  {name:48} {median(measured_seconds):6.2f} s", flush=True)


GROUPS = {"cleaning": _print_cleaning_of_all, "marts": _print_marts_and_scans_of_all, "command": _print_commands}
"""What is measured → the function that prints it."""


if __name__ == "__main__":
    main()
