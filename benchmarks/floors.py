"""What the parts of a step take, where a goal is missed: `python -m benchmarks.floors [--rounds N] [GROUP …]`.

Processor time of each part, which other work on the machine disturbs least: the medians of some rounds, each in a
process of its own. `command` and `tiny` are the floors of a whole `taxi ingest`, of a large month, new and unchanged,
and of many tiny ones: the sum of what it cannot do without.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.cleaning import bare, casts, clean_month, idle
from benchmarks.commands import (
    JOBS,
    MONTHS,
    bare_process,
    in_copy,
    ingest,
    make_template,
    note_latest_run,
    run_dagster_alone,
    serving,
    source_url,
)
from benchmarks.measure import Timing, alternate, seconds, timed, timed_command
from benchmarks.months import Months
from benchmarks.parts import cleaning, command, marts, tiny_months, unchanged
from benchmarks.reading import SCANS, scans
from taxi_platform.sources.sample.writing import write_sample
from taxi_platform.trips.contract import contract_of
from taxi_platform.trips.months import DatasetMonth, Month

PARQUET = (("yellow", "2023-03"), ("green", "2023-03"), ("fhv", "2023-03"), ("fhvhv", "2023-03"))
CSV = (("yellow", "2021-01"), ("fhvhv", "2021-01"))
TINY_MONTHS, TINY_ROWS, LAST_TINY = 60, 200, "2024-12"
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
            path = months.parquet(dataset, month) if kind == "parquet" else months.csv(dataset, month)
            _print_new_month(months, DatasetMonth.parse(dataset, month), path, url, kind, rounds)
            if kind == "parquet":
                _print_unchanged_month(months.folder, dataset, month, source_url(url, kind), rounds)


def _print_new_month(months: Months, dataset_month: DatasetMonth, path: Path, url: str, kind: str, rounds: int) -> None:
    """The floor of a new month as a whole command, measured in turn with the command and with the bare steps."""
    dataset, month = str(dataset_month.dataset), str(dataset_month.month)
    home, file, work = (months.folder / name for name in ("home", f"floor-{kind}.pickle", "work"))
    ours = partial(in_copy, months.folder, source_url(url, kind), dataset, month)
    ours()
    note_latest_run(home, dataset, file)
    raw = {**vars(months.raw(dataset, month, path)), "dataset_month": f"{dataset} {month}", "path": str(path)}
    work.mkdir(exist_ok=True)
    ways = {
        "taxi ingest": ours,
        "bare steps": partial(bare_process, months.folder, f"{url}/{path.name}"),
        "Dagster alone": partial(run_dagster_alone, file, month, month),
        **_imports("duckdb, pyarrow.parquet"),
        "parts": partial(timed, command, f"{url}/{path.name}", raw, work),
    }
    timings = alternate(ways, rounds)
    _print_floor(f"taxi ingest of {path.name}", timings, "import of DuckDB and pyarrow")
    print(f"  {'bare steps':64} {seconds(timings['bare steps']):6.2f} s")
    print(f"  {'the goal: 1.5 x the bare steps + 1.5 s':64} {1.5 * seconds(timings['bare steps']) + 1.5:6.2f} s")


def _print_unchanged_month(folder: Path, dataset: str, month: str, source: str, rounds: int) -> None:
    """The floor of the same month, unchanged. pyarrow is not in it: DuckDB can read what pyarrow reads there."""
    home, file = folder / "home", folder / "floor-unchanged.pickle"
    ours = partial(ingest, home, source, dataset, month)
    ours()
    note_latest_run(home, dataset, file)
    ways = {
        "taxi ingest": ours,
        "Dagster alone": partial(run_dagster_alone, file, month, month),
        **_imports("duckdb"),
        "parts": partial(timed, unchanged, home, dataset, month),
    }
    _print_floor(f"taxi ingest of {dataset} {month}, unchanged", alternate(ways, rounds), "import of DuckDB")


def _imports(modules: str) -> dict[str, Callable[[], Timing]]:
    """Ways whose difference is what these modules take once Dagster is imported."""
    code = {"with": f"import dagster, {modules}", "without": "import dagster"}
    return {name: partial(timed_command, [sys.executable, "-c", line]) for name, line in code.items()}


def _print_floor(title: str, timings: dict[str, list[Timing]], imported: str) -> None:
    """Medians of the parts, of their sums and of the command: seconds that pass, and of processor time."""
    floor = {"Dagster alone": [(t.wall, t.processor) for t in timings["Dagster alone"]]}
    pairs = zip(timings["with"], timings["without"], strict=True)
    floor[imported] = [(more.wall - less.wall, more.processor - less.processor) for more, less in pairs]
    for name in timings["parts"][0].output:
        floor[name] = [tuple(timing.output[name]) for timing in timings["parts"]]
    floor["the floor: the sum of these"] = [
        (sum(wall for wall, _ in each), sum(processor for _, processor in each))
        for each in zip(*floor.values(), strict=True)
    ]
    floor["taxi ingest"] = [(t.wall, t.processor) for t in timings["taxi ingest"]]
    print(f"{title}: seconds that pass, and of processor time")
    for name, measured in floor.items():
        wall, processor = (median(pair[number] for pair in measured) for number in (0, 1))
        print(f"  {name:64} {wall:6.2f} {processor:6.2f} s", flush=True)


def _print_tiny_months(months: Months, rounds: int) -> None:
    """The floor of many tiny months in two processes, a month each."""
    home, file = months.folder / "many", months.folder / "floor-tiny.pickle"
    first, last = str(Month.parse(LAST_TINY).plus(1 - TINY_MONTHS)), LAST_TINY
    raw, work = months.folder / "tiny.csv.gz", months.folder / "tiny"
    write_sample(DatasetMonth.parse("yellow", first), TINY_ROWS, raw)
    work.mkdir()

    def ours() -> Timing:
        shutil.rmtree(home, ignore_errors=True)
        return ingest(home, f"sample://?rows={TINY_ROWS}", "yellow", first, last, "--jobs", JOBS)

    ours()
    note_latest_run(home, "yellow", file)
    ways = {
        "Dagster alone": partial(run_dagster_alone, file, first, last, JOBS),
        "the barest work": partial(timed, tiny_months, raw, "yellow", first, work, TINY_MONTHS, int(JOBS)),
        "taxi ingest": ours,
    }
    timings = alternate(ways, rounds)
    print(f"taxi ingest of {TINY_MONTHS} months of {TINY_ROWS} rows, {JOBS} processes: seconds a month, as above")
    for name, measured in timings.items():
        wall, processor = seconds(measured), median(timing.processor for timing in measured)
        print(f"  {name:64} {wall / TINY_MONTHS:6.2f} {processor / TINY_MONTHS:6.2f} s", flush=True)


def _print_parts(title: str, rounds: Iterable[dict[str, float]]) -> None:
    parts: dict[str, list[float]] = defaultdict(list)
    for measured in rounds:
        for name, taken in measured.items():
            parts[name].append(taken)
    print(title)
    for name, measured_seconds in parts.items():
        print(f"  {name:48} {median(measured_seconds):6.2f} s", flush=True)


GROUPS = {
    "cleaning": _print_cleaning_of_all,
    "marts": _print_marts_and_scans_of_all,
    "command": _print_commands,
    "tiny": _print_tiny_months,
}
"""What is measured → the function that prints it."""


if __name__ == "__main__":
    main()
