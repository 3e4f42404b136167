"""Runs killed wherever they publish: readers never see half a month, and the next run repairs everything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

import taxi_platform
from taxi_platform.trips.faults import FAULT_POINTS
from taxi_platform_tests.reliability.conftest import OpenInstallation, Undisturbed
from taxi_platform_tests.support.installations import MONTH, PUBLISHED, Installation, Version
from taxi_platform_tests.support.system import TAXI
from taxi_platform_tests.support.worker_process import DONE, WorkerServer

OLD, NEW = 600, 500
"""Rows of the two samples, which replace each other."""

IN_LAKE = [
    "manifest_written",
    "cleaned",
    "rejected_published",
    "report_published",
    "checksums_published",
    "clean_published",
]
LOCAL = [f"{point}:{n}" for point in ("temp_written", "fsynced", "renamed") for n in (1, 2, 3, 4)]
BUCKET = [f"uploaded:{n}" for n in (1, 2, 3, 4)]
DUCKDB = ["duckdb_inserted:1", "duckdb_inserted:2", "duckdb_committed"]
POSTGRES = [
    *("postgres_copying:1", "postgres_copying:2", "postgres_copying:3", "postgres_copying:5"),
    *("postgres_built:1", "postgres_built:2", "postgres_swapped", "postgres_committed"),
]
BIGQUERY = ["bigquery_submitted:1", "bigquery_rejected_loaded", "bigquery_submitted:2", "bigquery_loaded"]
FIRST = ["fetched", "raw_uploaded", "manifest_written", "report_published", "clean_published"]

OF_A_NEW_MONTH = [
    *(("local", "duckdb", p) for p in (*FIRST, "temp_written", "fsynced", "renamed", "duckdb_inserted:2")),
    *(("gcs", "postgres", p) for p in (*FIRST, "uploaded", "postgres_copying:2", "postgres_swapped")),
    ("gcs", "bigquery", "bigquery_submitted:2"),
]
OF_A_KNOWN_MONTH = [
    *(("local", "duckdb", p) for p in (*IN_LAKE, "swept:1", "swept:2", *LOCAL, *DUCKDB)),
    *(("gcs", "postgres", p) for p in (*IN_LAKE, "swept:1", "swept:2", *BUCKET, *POSTGRES)),
    *(("gcs", "bigquery", p) for p in BIGQUERY),
]
OF_A_COMMAND = [
    ("local", "duckdb", ["fetched", "temp_written", "fsynced", "renamed", "raw_uploaded", *IN_LAKE, "swept"]),
    ("local", "duckdb", ["duckdb_inserted:2", "duckdb_committed", *(f"event_recorded:{n}" for n in (1, 2, 4))]),
    ("local", "duckdb", ["mart_replaced:2", "marts_replaced", "mart_published:3", "mart_swept"]),
    ("gcs", "postgres", ["uploaded:3", "postgres_copying:2", "postgres_built", *POSTGRES[-2:]]),
    ("gcs", "bigquery", ["bigquery_submitted:2", "bigquery_rejected_loaded", "bigquery_loaded"]),
]
OF_MARTS = [
    *(("local", "duckdb", p) for p in ("mart_replaced:1", "mart_replaced:5", "duckdb_committed:2", "marts_replaced")),
    *(("local", "duckdb", p) for p in ("mart_published:1", "mart_published:5", "mart_swept:1")),
    *(("gcs", "postgres", p) for p in ("mart_replaced:3", "postgres_swapped:2", "postgres_committed:2")),
    *(("gcs", "postgres", p) for p in ("mart_published:4", "mart_swept:4")),
    *(("gcs", "bigquery", p) for p in ("bigquery_submitted:4", "mart_replaced:2", "bigquery_loaded:2")),
]
"""After the trips of a month that replaces another version."""
RANDOM_KILLS = 30
"""For each of four pairs of lake and warehouse: 200 together with those at the fault points."""

RUN_SECONDS = 0.6
"""A little longer than one run takes, so that some are killed during a second one."""

pytestmark = pytest.mark.slow


def check_readable(installation: Installation, *possible: Version | None) -> None:
    """Lake and tables show readers one of these versions, complete; None stands for no month yet."""
    assert installation.clean() in [version.objects if version else {} for version in possible]
    tables = [version.tables if version else (None, None) for version in possible]
    if "bigquery" in installation.warehouse_url:  # it has no transaction over two tables
        assert all(
            stored in expected
            for stored, expected in zip(installation.loaded(), zip(*tables, strict=True), strict=True)
        )
    else:
        assert installation.loaded() in tables


def run_again(
    workers: WorkerServer, installation: Installation, rows: int, expected: Version, marts: bool = False
) -> None:
    """An undisturbed run repairs everything."""
    (outcome,) = workers.run(installation.order(rows, marts=marts))
    assert outcome.status == DONE, outcome.output
    assert installation.version() == expected
    assert installation.litter() == []


@pytest.mark.fault(33)
@pytest.mark.parametrize(("lake", "warehouse", "fault"), OF_A_NEW_MONTH)
def test_a_run_killed_while_it_adds_a_month_is_repaired_by_the_next(
    open_installation: OpenInstallation, workers: WorkerServer, undisturbed: Undisturbed, lake, warehouse, fault
):
    installation = open_installation(lake, warehouse)
    (outcome,) = workers.run(installation.order(NEW, fault=fault))
    assert outcome.killed, outcome.output
    check_readable(installation, None, undisturbed(NEW))
    run_again(workers, installation, NEW, undisturbed(NEW))
    assert installation.raw_files() == [undisturbed(NEW).raw]


@pytest.mark.fault(33)
@pytest.mark.parametrize(("lake", "warehouse", "fault"), OF_A_KNOWN_MONTH)
def test_a_run_killed_while_it_replaces_a_month_is_repaired_by_the_next(
    open_installation: OpenInstallation,
    workers: WorkerServer,
    undisturbed: Undisturbed,
    survivors,
    lake,
    warehouse,
    fault,
):
    installation = survivors.pop((lake, warehouse), None)
    if installation is None:
        installation = open_installation(lake, warehouse)
        run_again(workers, installation, OLD, undisturbed(OLD))
    history = installation.raw_files()
    old, new = (OLD, NEW) if history[-1] == undisturbed(OLD).raw else (NEW, OLD)
    (outcome,) = workers.run(installation.order(new, fault=fault))
    assert outcome.killed, outcome.output
    check_readable(installation, undisturbed(old), undisturbed(new))
    run_again(workers, installation, new, undisturbed(new))
    assert installation.raw_files() == [*history, undisturbed(new).raw]
    survivors[lake, warehouse] = installation


@pytest.mark.fault(33)
@pytest.mark.parametrize("warehouse", ["duckdb", "postgres"])
@pytest.mark.parametrize("lake", ["local", "gcs"])
def test_kills_at_any_moment_are_never_visible_to_readers(
    open_installation: OpenInstallation, workers: WorkerServer, undisturbed: Undisturbed, lake, warehouse
):
    random = Random(f"{lake} {warehouse}")
    installation = open_installation(lake, warehouse)
    possible = [undisturbed(OLD), undisturbed(NEW)]
    run_again(workers, installation, OLD, possible[0])
    for number in range(RANDOM_KILLS):
        orders = installation.order(*random.sample((OLD, NEW), 2), endless=True, checks=False)
        (outcome,) = workers.run(orders, kill_after=random.uniform(0, RUN_SECONDS))
        assert outcome.killed, outcome.output
        check_readable(installation, *possible)
        if number % 6 == 5:
            rows = random.choice((OLD, NEW))
            run_again(workers, installation, rows, undisturbed(rows))
            history = installation.raw_files()
            assert all(former != latter for former, latter in pairwise(history))
            assert set(history) <= {version.raw for version in possible}


@pytest.mark.fault(33, 91)
@pytest.mark.parametrize(("lake", "warehouse", "fault"), OF_MARTS)
def test_a_run_killed_between_trips_and_marts_is_repaired_by_the_next(
    open_installation: OpenInstallation,
    workers: WorkerServer,
    undisturbed: Undisturbed,
    survivors_with_marts,
    lake,
    warehouse,
    fault,
):
    installation = survivors_with_marts.pop((lake, warehouse), None)
    if installation is None:
        installation = open_installation(lake, warehouse)
        (outcome,) = workers.run(installation.order(OLD, marts=True))
        assert outcome.status == DONE, outcome.output
    (old,) = set(installation.marts())
    rows = OLD if old == (undisturbed(NEW).file_version,) else NEW
    new = (undisturbed(rows).file_version,)
    (outcome,) = workers.run(installation.order(rows, marts=True, fault=fault))
    assert outcome.killed, outcome.output
    seen = set(installation.marts())
    assert seen <= {old, new}
    assert len(seen) == 1 or warehouse == "bigquery"  # which has no transaction over several tables
    for steps in ("done", "unchanged"):
        (outcome,) = workers.run(installation.order(rows, marts=True))
        assert outcome.status == DONE, outcome.output
        assert outcome.output.endswith(steps)
        assert set(installation.marts()) == {new}
        assert installation.litter() == []
    survivors_with_marts[lake, warehouse] = installation


SPILL = """
import duckdb, sys
con = duckdb.connect(sys.argv[1], config={"memory_limit": "60MB", "threads": 1})
con.execute("CREATE TABLE t AS SELECT hash(range) AS a, 'x' || hash(range + 1) AS b FROM range(9000000) ORDER BY a")
"""


@pytest.mark.fault(33, 42)
def test_files_that_a_killed_process_spilled_are_removed_by_the_next_load(
    open_installation: OpenInstallation, workers: WorkerServer, undisturbed: Undisturbed
):
    installation = open_installation("local", "duckdb")
    run_again(workers, installation, OLD, undisturbed(OLD))
    spilled = installation.home / "warehouse.duckdb.tmp"
    with subprocess.Popen([sys.executable, "-c", SPILL, str(installation.home / "warehouse.duckdb")]) as child:
        while not any(spilled.glob("*")):
            assert child.poll() is None, "it ended without spilling"
            time.sleep(0.01)
        child.kill()
    assert installation.litter() == [str(spilled)]
    run_again(workers, installation, NEW, undisturbed(NEW))


@pytest.mark.fault(33)
@pytest.mark.parametrize(("lake", "warehouse", "faults"), OF_A_COMMAND)
def test_a_command_killed_repeatedly_is_repaired_by_the_next(
    open_installation: OpenInstallation,
    command_workers: WorkerServer,
    undisturbed: Undisturbed,
    lake,
    warehouse,
    faults,
):
    installation = open_installation(lake, warehouse)
    possible = undisturbed(OLD), undisturbed(NEW)
    ingest = ("ingest", "green", MONTH)
    for number, fault in enumerate(faults):
        # The other version each time, with --force, so that every run does all its work up to the fault point.
        rows = (OLD, NEW)[number % 2]
        (outcome,) = command_workers.run(
            installation.order(command=(*ingest, "--force"), settings=installation.settings(rows), fault=fault)
        )
        assert outcome.killed, (fault, outcome)
        check_readable(installation, *possible, None)
    environment = {**os.environ, **installation.settings(NEW)}
    done = subprocess.run([TAXI, *ingest], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert installation.version() == undisturbed(NEW)
    assert set(installation.marts()) == {(undisturbed(NEW).file_version,)}
    assert installation.litter() == []


@pytest.mark.fault(47)
@pytest.mark.parametrize(("lake", "warehouse", "faults"), OF_A_COMMAND)
def test_a_command_that_is_stopped_at_any_stage_says_so_and_leaves_nothing_temporary(
    open_installation: OpenInstallation,
    workers: WorkerServer,
    command_workers: WorkerServer,
    undisturbed: Undisturbed,
    lake,
    warehouse,
    faults,
):
    installation = open_installation(lake, warehouse)
    run_again(workers, installation, OLD, undisturbed(OLD), marts=True)
    for number, fault in enumerate(faults):
        order = {"fault": fault, "ends_by": ("SIGTERM", "SIGINT")[number % 2], "settings": installation.settings(NEW)}
        (outcome,) = command_workers.run(installation.order(command=("ingest", "green", MONTH, "--force"), **order))
        assert (outcome.status, "green 2020-04: interrupted" in outcome.output) == (130, True), (fault, outcome)
        check_readable(installation, undisturbed(OLD), undisturbed(NEW))
        # Objects that no month refers to may remain: the next run uses or sweeps them.
        assert [left for left in installation.litter() if not left.startswith(("raw/", "marts/", *PUBLISHED))] == []
    run_again(workers, installation, OLD, undisturbed(OLD), marts=True)
    run_again(workers, installation, NEW, undisturbed(NEW), marts=True)


def test_every_fault_point_is_in_the_package_and_runs_are_killed_at_it():
    package = Path(taxi_platform.__file__).parent
    used = re.findall(r'fault_point\("(\w+)"\)', "".join(path.read_text("utf-8") for path in package.rglob("*.py")))
    assert sorted(used) == sorted(FAULT_POINTS)
    killed = {fault.partition(":")[0] for *_, fault in OF_A_NEW_MONTH + OF_A_KNOWN_MONTH}
    killed |= {fault.partition(":")[0] for *_, fault in OF_MARTS}
    assert killed == FAULT_POINTS.keys() - {"event_recorded"}  # that one is Dagster's
    of_command = {fault.partition(":")[0] for *_, faults in OF_A_COMMAND for fault in faults}
    assert of_command == FAULT_POINTS.keys()
