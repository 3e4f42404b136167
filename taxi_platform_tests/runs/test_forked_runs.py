"""Runs of a real `taxi dev`, which its code server forks from a warm process."""

import dagster as dg
import psutil
import pytest

from taxi_platform.assets.names import PROCESS_TAG
from taxi_platform_tests.automation.test_killed_processes import check_complete, instance_of, working_process
from taxi_platform_tests.support.system import wait_for
from taxi_platform_tests.support.taxi_dev import taxi_dev

pytestmark = pytest.mark.slow
SLOW_ROWS, MONTHS = "sample://?rows=150000", ["2020-01", "2020-02"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("forked") / "home"


@pytest.fixture(scope="module")
def platform(home):
    with taxi_dev(home, TAXI_SOURCE_URL=SLOW_ROWS, TAXI_DATASETS="green") as platform:
        yield platform


def fork_servers(platform):
    """The processes that runs are forked from: a run has the same command line, and one of them as its parent."""
    tree = psutil.Process(platform.pid).children(recursive=True)
    forks = [each for each in tree if "multiprocessing.forkserver" in " ".join(each.cmdline())]
    return [each for each in forks if each.parent() not in forks]


def process_id(run):
    return run.tags[PROCESS_TAG].rpartition("/")[2].partition("@")[0]


def working_run(home):
    return psutil.Process(wait_for(lambda: working_process(home)))


@pytest.mark.fault(90)
def test_months_are_loaded_once_when_the_process_that_runs_are_forked_from_is_killed(platform, home):
    backfill = platform.launch_backfill("green", MONTHS)
    run = working_run(home)
    (warm,) = fork_servers(platform)
    assert run.parent() == warm
    assert warm.num_threads() == 1
    warm.kill()
    wait_for(lambda: not run.is_running() or run.status() == psutil.STATUS_ZOMBIE)
    assert check_complete(platform, backfill, home) >= 1  # what was lost was reported, and run again
    assert [each for each in fork_servers(platform) if each != warm]


def test_a_run_is_terminated_in_the_ui(platform, home):
    backfill = platform.launch_backfill("green", ["2020-03"])
    run = working_run(home)
    [entry] = platform.backfill_runs(backfill)
    query = """mutation($id: String!) { terminateRun(runId: $id) { __typename } }"""
    assert platform.ask(query, id=entry["runId"])["terminateRun"]["__typename"] == "TerminateRunSuccess"
    wait_for(lambda: not run.is_running())
    assert wait_for(lambda: platform.backfill_run_counts(backfill) == {"CANCELED": 1})
    assert platform.materialized("green/trips").isdisjoint({"2020-03"})


def test_after_a_reload_runs_are_forked_from_a_process_that_has_the_new_code(platform, home):
    before = fork_servers(platform)
    query = """mutation { reloadRepositoryLocation(repositoryLocationName: "taxi_platform") { __typename } }"""
    assert platform.ask(query)["reloadRepositoryLocation"]["__typename"] == "WorkspaceLocationEntry"
    backfill = platform.launch_backfill("green", ["2020-04"])
    wait_for(lambda: platform.backfill_status(backfill) == "COMPLETED_SUCCESS")
    (after,) = wait_for(lambda: [each for each in fork_servers(platform) if each not in before])
    wait_for(lambda: fork_servers(platform) == [after])  # Python imports again, so it has what is on disk now


def test_what_a_run_prints_is_kept_with_it(platform, home):
    with instance_of(home) as instance:
        run = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS]), limit=1)[0]
    (captured,) = (home / "dagster").rglob(f"{run.run_id}/compute_logs/*.err")
    assert f"{run.run_id} - {process_id(run)} - green__raw_file - STEP_START" in captured.read_text()
