"""A real `taxi dev` whose processes are killed in the middle of a backfill: every month is loaded, none twice."""

import time
from contextlib import suppress

import dagster as dg
import duckdb
import psutil
import pytest

from taxi_platform.assets.names import PROCESS_TAG
from taxi_platform.runs.history import latest_failures
from taxi_platform.trips.months import Dataset
from taxi_platform_tests.support.system import wait_for
from taxi_platform_tests.support.taxi_dev import taxi_dev

MONTHS = ["2020-01", "2020-02"]
SETTINGS = {"TAXI_SOURCE_URL": "sample://?rows=150000", "TAXI_DATASETS": "green"}
RUN, CODE_SERVER, MACHINE = "the process of a run", "code-server", "the machine"
VICTIMS = (RUN, CODE_SERVER, MACHINE, "api grpc", "taxi_platform.ui.daemon", "taxi_platform.ui.webserver")
"""What is killed: a part of a child's command line, all of its descendants with it, or one of the first two above."""
IN_THE_GATE = (RUN,)
DONE_SECONDS = 900


@pytest.mark.slow
@pytest.mark.fault(79)
@pytest.mark.parametrize(
    "victim", [pytest.param(each, marks=() if each in IN_THE_GATE else pytest.mark.soak) for each in VICTIMS]
)
def test_a_backfill_whose_processes_are_killed_ends_complete_by_itself(victim, tmp_path):
    assert kill_in_backfill(tmp_path / "home", victim) == (1 if victim == RUN else None)


@pytest.mark.slow
@pytest.mark.fault(140)
def test_the_last_run_of_a_backfill_of_a_job_is_run_again_when_it_is_killed(tmp_path):
    """Dagster ends such a backfill as soon as no run is in progress, whether one is to be run again or not."""
    home = tmp_path / "home"
    with taxi_dev(home, **SETTINGS) as platform:
        platform.launch_job_backfill("green", MONTHS[:1])
        kill(psutil.Process(wait_for(lambda: working_process(home))))
        with instance_of(home) as instance:
            wait_for(lambda: [run.status.value for run in instance.get_runs()] == ["SUCCESS", "FAILURE"])


def kill_in_backfill(home, victim, delay=None):
    """Kill the victim while a run works, or after `delay` seconds, and check that every month gets loaded.

    Returns how many runs failed if the victim is a run.
    """
    with taxi_dev(home, **SETTINGS) as platform:
        backfill = platform.launch_backfill("green", MONTHS)
        worker = wait_for(lambda: working_process(home)) if delay is None or victim == RUN else time.sleep(delay)
        supervisor = psutil.Process(platform.pid)
        children = supervisor.children(recursive=True)
        if victim == RUN:
            kill(psutil.Process(worker))
        elif victim == MACHINE:
            kill(supervisor, *children)
        else:
            (child,) = [child for child in children if victim in " ".join(child.cmdline())]
            kill(child, *child.children(recursive=True))
        if victim != MACHINE:
            failures = check_complete(platform, backfill, home)
            return failures if victim == RUN else None
    with taxi_dev(home, **SETTINGS) as platform:
        check_complete(platform, backfill, home)
    return None


def kill(*processes):
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def instance_of(home):
    return dg.DagsterInstance.from_config(str(home / "dagster"))


def working_process(home):
    """The process id of a run that has begun, None if there is none."""
    with instance_of(home) as instance:
        runs = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
    ids = [run.tags[PROCESS_TAG].rpartition("/")[2].partition("@")[0] for run in runs if PROCESS_TAG in run.tags]
    return int(ids[0]) if ids else None


def check_complete(platform, backfill, home):
    """Wait for the backfill's end and check what it left; returns how many of its runs failed."""

    def ended():
        with suppress(OSError, AssertionError):  # the webserver may be starting again
            return platform.backfill_status(backfill) not in ("REQUESTED", "FAILING", "CANCELING")

    wait_for(ended, DONE_SECONDS)
    assert platform.backfill_status(backfill) == "COMPLETED_SUCCESS"
    assert platform.backfill_months(backfill)["green/trips"]["materialized"] == len(MONTHS)
    with instance_of(home) as instance:
        runs = instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill}))
        assert not instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        wait_for(lambda: not instance.event_log_storage.get_concurrency_run_ids())
        assert latest_failures(instance, [Dataset.GREEN], 100) == {}
    by_status = [run.status.value for run in runs]
    assert by_status.count("SUCCESS") == len(MONTHS)
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as con:
        query = "SELECT strftime(file_month, '%Y-%m'), count(DISTINCT file_version) FROM green_trips GROUP BY 1"
        assert sorted(con.execute(query).fetchall()) == [(month, 1) for month in MONTHS]
    return by_status.count("FAILURE")
