"""Whole processes: `taxi ingest` of a month against the bare steps, an unchanged month, loading the code location, many
tiny months, and `taxi status`. What Dagster takes alone stands beside them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median

import duckdb

from benchmarks.history import EACH_MONTH, ONE_TINY_MONTH
from benchmarks.measure import TAXI, Timing, alternate, check_equal, ratio, seconds, timed, timed_command
from benchmarks.months import Months, Options
from benchmarks.report import Row, ratio_row
from taxi_platform.trips.casting import literal
from taxi_platform.trips.months import Month

TINY_SOURCE = "sample://?rows=200"
ARCHIVE = 606
"""Months that the TLC has published, of all datasets: so many tiny ones have a goal, as the start hardly counts."""
JOBS = "2"
MONTHS = {"Parquet": ("yellow", "2023-03", "parquet"), "CSV.gz": ("yellow", "2021-01", "csv.gz")}
OTHER_MONTHS = (("green", "2023-03", "parquet"), ("fhv", "2023-03", "parquet"), ("fhvhv", "2023-03", "parquet"))


def bare_steps(url: str, folder: str) -> int:
    """In a child: download with curl, bare COPY to Parquet, INSERT into a new DuckDB table; returns its rows."""
    work = Path(folder)
    raw = work / url.rpartition("/")[2]
    subprocess.run(["curl", "--silent", "--fail", "--output", raw, url], check=True)
    reading = f"read_parquet({literal(str(raw))})"
    if raw.name.endswith(".gz"):
        reading = f"read_csv({literal(str(raw))}, ignore_errors = true)"
    with duckdb.connect(str(work / "bare.duckdb"), config={"memory_limit": "512MB"}) as con:
        con.execute("SET enable_progress_bar = false")
        con.execute(f"COPY (SELECT * FROM {reading}) TO {literal(str(work / 'bare.parquet'))} (FORMAT parquet)")
        con.execute(f"CREATE TABLE trips AS FROM {literal(str(work / 'bare.parquet'))} LIMIT 0")
        con.execute(f"INSERT INTO trips FROM {literal(str(work / 'bare.parquet'))}")
        return con.execute("SELECT count(*) FROM trips").fetchall()[0][0]


def measure(months: Months, options: Options) -> list[Row]:
    """The rows of whole processes."""
    pairs = options.pairs
    rows, dagster = _code_location(months.folder, pairs)
    make_template(months.folder)
    with serving(months.inputs) as url:
        for what, month in MONTHS.items():
            rows += _one_month(months, what, *month, url, pairs, dagster)
        for dataset, month, kind in OTHER_MONTHS:
            months.parquet(dataset, month)
            way = partial(in_copy, months.folder, source_url(url, kind), dataset, month)
            what = f"taxi ingest of a month, Parquet, {dataset} {month}"
            rows.append(Row(what, seconds([way()]), "s", note="measured once", rate=dataset))
    home = months.folder / "many"
    rows += _tiny_months(home, months.folder, options)
    return [*rows, status_row(home, pairs, f"taxi status, {options.months} months in a folder", 1.0)]


def status_row(home: Path, pairs: int, what: str, goal: float, **environment: str) -> Row:
    """The row of `taxi status` in this home."""
    environment = {"TAXI_HOME": str(home), "TAXI_SOURCE_URL": TINY_SOURCE, **environment}
    timings = [timed_command([TAXI, "status"], **environment) for _ in range(pairs)]
    return Row(what, seconds(timings), "s", goal, _range(timings))


def _code_location(folder: Path, pairs: int) -> tuple[list[Row], float]:
    """The rows of loading the code location, and the seconds of `import dagster`."""
    from benchmarks.dagster_alone import note_definitions  # not above: each child would import Dagster, for a second

    file = folder / "location.pickle"
    timed(note_definitions, file, TAXI_HOME=str(folder / "home-of-location"))
    ours = "from taxi_platform.definitions import defs; defs().get_repository_def()"
    floor = f"from benchmarks.dagster_alone import load_definitions; load_definitions({str(file)!r})"
    code = {"ours": ours, "dagster": "import dagster", "floor": floor}
    ways = {name: partial(timed_command, [sys.executable, "-c", line]) for name, line in code.items()}
    for way in ways.values():
        way()  # compiles the modules
    timings = alternate(ways, pairs)
    dagster = seconds(timings["dagster"])
    note = f"{seconds(timings['ours']):.2f} and {dagster:.2f} s"
    result, alone = ratio(timings["ours"], timings["dagster"]), ratio(timings["ours"], timings["floor"])
    rows = [ratio_row("loading the code location, against import dagster alone", result, 1.4, note)]
    note = f"{seconds(timings['ours']):.2f} and {seconds(timings['floor']):.2f} s"
    rows.append(ratio_row("… against one of as many assets, checks and jobs that do nothing", alone, None, note))
    return rows, dagster


def _one_month(
    months: Months, what: str, dataset: str, month: str, kind: str, url: str, pairs: int, dagster: float
) -> list[Row]:
    """A new month in a home that has others already, and the same month unchanged."""
    path = months.parquet(dataset, month) if kind == "parquet" else months.csv(dataset, month)
    ways: dict[str, Callable[[], Timing]] = {
        "ours": partial(in_copy, months.folder, source_url(url, kind), dataset, month),
        "bare": lambda: bare_process(months.folder, f"{url}/{path.name}"),
    }
    loaded, bare = ways["ours"](), ways["bare"]()
    rows_read, in_table = (json.loads(loaded.output)[0][name] for name in ("rows_read", "rows_in_table"))
    # Where the engine guesses texts, it takes lines that are unreadable by the contract.
    check_equal(f"taxi ingest, {what}", min(max(bare.output, in_table), rows_read), bare.output)
    timings = alternate(ways, pairs)
    ours, bare_seconds = timings["ours"], seconds(timings["bare"])  # Python's start, which those need not, left out
    goal, times = 1.5 * bare_seconds + 1.5, f"{seconds(ours) / dagster:.1f} × import dagster, {dagster:.2f} s"
    processor = median(timing.processor for timing in ours)
    note = f"goal: 1.5 × the bare steps, {bare_seconds:.2f} s, + 1.5 s; {times}; {processor:.2f} s of processor time"
    row = Row(f"taxi ingest of a month, {what}, {dataset} {month}", seconds(ours), "s", goal, _range(ours), note=note)
    if kind != "parquet":
        return [row]  # of an unchanged month nothing is read but the clean file
    rows = [replace(row, rate=dataset)]
    home, file = months.folder / "home", months.folder / "floor.pickle"
    note_latest_run(home, dataset, file)
    repeated = {
        "again": partial(ingest, home, source_url(url, kind), dataset, month),
        "dagster": partial(timed_command, [sys.executable, "-c", "import dagster"]),
        "floor": partial(run_dagster_alone, file, month, month),
    }
    timings = alternate(repeated, pairs)
    again, floor = timings["again"], timings["floor"]
    assert json.loads(again[0].output)[0]["status"] == "unchanged"
    times = ratio(again, timings["dagster"])
    note = f"{times.median:.1f} × import dagster (processor time {times.processor:.1f} ×), measured in turn"
    rows.append(Row("… of the same month, unchanged", seconds(again), "s", 1.5, _range(again), note=note))
    return [*rows, _floor_row("taxi ingest of an unchanged month", again, floor)]


def _floor_row(what: str, ours: list[Timing], floor: list[Timing]) -> Row:
    note = f"{seconds(ours):.2f} and {seconds(floor):.2f} s"
    what = f"{what}, against a Dagster job of as many assets and checks that do nothing"
    return ratio_row(what, ratio(ours, floor), None, note)


def note_latest_run(home: Path, dataset: str, file: Path) -> None:
    """Note what the home's latest run of the dataset reported, for `run_dagster_alone`."""
    from benchmarks.dagster_alone import note_run

    environment = {"TAXI_HOME": str(home), "DAGSTER_HOME": str(home / "dagster")}
    timed(note_run, dataset, file, **environment)


def run_dagster_alone(file: Path, first: str, last: str, jobs: str = "1") -> Timing:
    """The module `benchmarks.dagster_alone` on a home of its own, whose months are as many as its runs so far."""
    from taxi_platform.runs.home import write_dagster_yaml

    home = file.with_suffix("")
    if not home.exists():
        home.mkdir()
        write_dagster_yaml(home)
    command = [sys.executable, "-m", "benchmarks.dagster_alone", str(file), first, last, jobs]
    return timed_command(command, DAGSTER_HOME=str(home))


def _tiny_months(home: Path, folder: Path, options: Options) -> list[Row]:
    """Many months of 200 rows, in two processes; a round each in a new home."""
    months, last = options.months, Month.parse("2024-12")
    first = last.plus(1 - months)
    rounds = []
    for _ in range(min(options.pairs, 2)):
        shutil.rmtree(home, ignore_errors=True)
        rounds.append(ingest(home, TINY_SOURCE, "yellow", str(first), str(last), "--jobs", JOBS))
        assert [result["status"] for result in json.loads(rounds[-1].output)] == ["loaded"] * months
    each = [timing.wall / months for timing in rounds]
    value, processor = median(each), median(timing.processor for timing in rounds) / months
    file = folder / "floor-tiny.pickle"
    note_latest_run(home, "yellow", file)
    floor = [run_dagster_alone(file, str(first), str(last), JOBS) for _ in rounds]
    what = f"taxi ingest of {months} tiny months, {JOBS} processes"
    note = f"{processor:.2f} s of processor time a month"
    goal, of_archive = (0.3, "") if months >= ARCHIVE else (None, f"; the goal of 0.3 s is that of {ARCHIVE} months")
    tiny = in_copy(folder, TINY_SOURCE, "yellow", "2020-05")
    return [
        Row(f"{what}, a month", value, "s", goal, (min(each), max(each)), note=f"{note}{of_archive}", rate=EACH_MONTH),
        _floor_row(what, rounds, floor),
        Row("taxi ingest of one tiny month", seconds([tiny]), "s", note="measured once", rate=ONE_TINY_MONTH),
    ]


def make_template(folder: Path) -> None:
    """Make the home that `in_copy` copies: it has a tiny month of yellow, as a home of use has others already."""
    home = folder / "home"
    ingest(home, TINY_SOURCE, "yellow", "2020-04")
    home.rename(folder / "template")


def in_copy(folder: Path, source: str, dataset: str, month: str) -> Timing:
    """Ingest the month in a new copy of the template, where that was made: views name the folder of the lake."""
    home = folder / "home"
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(folder / "template", home)
    return ingest(home, source, dataset, month)


def source_url(url: str, kind: str) -> str:
    """The setting for files of this kind that are served at the address."""
    return f"{url}/{{dataset}}_tripdata_{{month}}.{kind}"


def ingest(home: Path, source: str, *arguments: str) -> Timing:
    """Not set aside, because sample months have other row counts than the published ones."""
    environment = {"TAXI_HOME": str(home), "TAXI_SOURCE_URL": source, "TAXI_SET_ASIDE": "no"}
    return timed_command([TAXI, "ingest", *arguments, "--json"], **environment)


def bare_process(folder: Path, url: str) -> Timing:
    """The bare steps in a new folder, as a whole process."""
    work = folder / "bare"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    return timed(bare_steps, url, work)


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of a web server on this machine for the files of the folder."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _range(timings: list[Timing]) -> tuple[float, float]:
    walls = [timing.wall for timing in timings]
    return min(walls), max(walls)
