"""A real `taxi dev` whose processes are killed in the middle of a backfill: every month is loaded, none twice."""

import os
import signal
from contextlib import suppress

import dagster as dg
import duckdb
import psutil
import pytest

from taxi_platform.assets.names import PROCESS_TAG
from taxi_platform.runs.status import failed_months
from taxi_platform.settings import load_settings
from taxi_platform_tests.support.system import wait_for
from taxi_platform_tests.support.taxi_dev import taxi_dev

MONTHS = ["2020-01", "2020-02"]
SOURCE = "sample://?rows=150000"
DONE = 600

pytestmark = [pytest.mark.slow, pytest.mark.fault(82)]


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("TAXI_DATASETS", "green")
    return tmp_path / "home"


def test_a_killed_run_is_run_again_once_and_its_backfill_ends_complete(home):
    with taxi_dev(home, TAXI_SOURCE_URL=SOURCE, TAXI_DATASETS="green") as platform:
        backfill = platform.launch_backfill("green", MONTHS)
        os.kill(wait_for(lambda: working_process(home)), signal.SIGKILL)
        check_complete(platform, backfill, home, failures=1)


@pytest.mark.parametrize(
    "victim",
    [
        "code-server",
        pytest.param("api grpc", marks=pytest.mark.soak),
        pytest.param("taxi_platform.ui.daemon", marks=pytest.mark.soak),
        pytest.param("taxi_platform.ui.webserver", marks=pytest.mark.soak),
    ],
)
def test_a_child_of_taxi_dev_that_is_killed_with_its_runs_is_started_again(home, victim):
    with taxi_dev(home, TAXI_SOURCE_URL=SOURCE, TAXI_DATASETS="green") as platform:
        backfill = platform.launch_backfill("green", MONTHS)
        wait_for(lambda: working_process(home))
        (child,) = [child for child in descendants(platform.pid) if victim in " ".join(child.cmdline())]
        kill(child, *child.children(recursive=True))
        check_complete(platform, backfill, home)


@pytest.mark.soak
def test_a_machine_that_stops_and_starts_again_completes_the_backfill(home):
    with taxi_dev(home, TAXI_SOURCE_URL=SOURCE, TAXI_DATASETS="green") as platform:
        backfill = platform.launch_backfill("green", MONTHS)
        wait_for(lambda: working_process(home))
        kill(psutil.Process(platform.pid), *descendants(platform.pid))
    with taxi_dev(home, TAXI_SOURCE_URL=SOURCE, TAXI_DATASETS="green") as platform:
        check_complete(platform, backfill, home)


def descendants(pid):
    return psutil.Process(pid).children(recursive=True)


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


def check_complete(platform, backfill, home, failures=None):
    def ended():
        with suppress(OSError, AssertionError):  # the webserver may be starting again
            return platform.backfill_status(backfill) not in ("REQUESTED", "FAILING", "CANCELING")

    wait_for(ended, DONE)
    assert platform.backfill_status(backfill) == "COMPLETED_SUCCESS"
    assert platform.backfill_months(backfill)["green/trips"]["materialized"] == len(MONTHS)
    with instance_of(home) as instance:
        runs = instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill}))
        assert not instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        assert not instance.event_log_storage.get_concurrency_run_ids()
    by_status = [run.status.value for run in runs]
    assert by_status.count("SUCCESS") == len(MONTHS)
    if failures is not None:
        assert by_status.count("FAILURE") == failures
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as con:
        loaded = con.execute(
            "SELECT strftime(file_month, '%Y-%m'), count(DISTINCT file_version) FROM green_trips GROUP BY 1"
        )
        assert sorted(loaded.fetchall()) == [(month, 1) for month in MONTHS]
    assert failed_months(load_settings()) == {}
