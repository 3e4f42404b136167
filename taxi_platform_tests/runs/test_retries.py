"""Killed runs are run again, also those that Dagster misses, and those of which no step is left."""

import logging
import subprocess
import sys
import time
from threading import Thread

import dagster as dg
import duckdb
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

from taxi_platform.assets.names import BACKFILL_TAG, RETRY_TAG, WILL_RETRY_TAG
from taxi_platform.runs import retries, through_dagster
from taxi_platform.runs.dagster_internals import DagsterUserCodeUnreachableError, asset_backfill_module
from taxi_platform.runs.instance import open_instance
from taxi_platform.runs.retries import MISSED_DAYS, SWEEP_SECONDS
from taxi_platform.settings import load_settings
from taxi_platform_tests.support.retries import GREEN, fail_while_looked_at, restore_after_test, retry_daemon
from taxi_platform_tests.support.system import wait_for

LATER = SWEEP_SECONDS + 30


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    home = str(tmp_path_factory.mktemp("retries") / "home")
    return {"TAXI_HOME": home, "TAXI_SOURCE_URL": "sample://?rows=2000", "TAXI_DATASETS": "green"}


@pytest.fixture(scope="module")
def running_daemon(settings):
    """With a code server, which takes 5 s to start: the tests share it, each with runs of its own."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        with open_instance(load_settings()) as instance, retry_daemon(instance, patch) as daemon:
            yield daemon


@pytest.fixture
def daemon(running_daemon, settings, monkeypatch):
    for name, value in {**settings, "DAGSTER_HOME": running_daemon.instance.root_directory}.items():
        monkeypatch.setenv(name, value)
    return running_daemon


def test_a_killed_run_is_run_again_only_once_the_code_server_answers(monkeypatch):
    restore_after_test(monkeypatch)
    reexecution, _ = retries.retry_modules()
    attempts = []

    def retry_run(failed_run, workspace_context):
        attempts.append((failed_run, workspace_context))
        if len(attempts) < 3:
            raise DagsterUserCodeUnreachableError("it starts again")

    monkeypatch.setattr(reexecution, "retry_run", retry_run)
    monkeypatch.setattr(retries.time, "sleep", lambda seconds: None)
    retries.retry_killed_runs()
    reexecution.retry_run("run", "workspace")
    assert attempts == [("run", "workspace")] * 3


def add_backfill(daemon, name, status, run):
    """A backfill of this one run."""
    daemon.instance.add_backfill(
        PartitionBackfill(name, status=status, from_failure=False, tags={}, backfill_timestamp=0.0)
    )
    daemon.instance.add_run_tags(run.run_id, {BACKFILL_TAG: name})


def is_complete(daemon, backfill):
    """Whether Dagster's daemon would end it now."""
    return asset_backfill_module().backfill_runs_are_complete(backfill, daemon.instance, logging.getLogger())


@pytest.mark.fault(132)
def test_a_run_that_the_daemon_looked_at_before_it_was_recorded_as_failed_is_run_again(daemon, monkeypatch):
    run = daemon.started_run()
    fail_while_looked_at(daemon, run, monkeypatch)
    daemon.look()
    # What Dagster leaves behind: the run waits to be run again, and its event will not be read a second time.
    assert (daemon.tags(run)[WILL_RETRY_TAG], daemon.retries(run)) == ("true", [])
    daemon.look(later=LATER)
    (again,) = daemon.retries(run)
    assert (again.status, daemon.tags(run)[RETRY_TAG]) == (dg.DagsterRunStatus.QUEUED, again.run_id)
    daemon.look(later=LATER)
    assert len(daemon.retries(run)) == 1


@pytest.mark.fault(132)
def test_a_run_whose_failure_was_not_recorded_to_the_end_is_run_again(daemon, monkeypatch):
    """The process that reported it was killed before it said that the run is to be run again."""
    run = daemon.started_run()
    with monkeypatch.context() as patch:
        patch.setattr(daemon.instance, "add_run_tags", lambda *arguments: sys.exit("killed"))
        with pytest.raises(SystemExit):
            fail_while_looked_at(daemon, run, patch)
    daemon.look()
    assert (WILL_RETRY_TAG in daemon.tags(run), daemon.retries(run)) == (False, [])
    daemon.look(later=LATER)
    assert len(daemon.retries(run)) == 1


@pytest.mark.fault(132)
def test_what_is_not_to_be_run_again_is_left_alone_and_no_longer_waits(daemon, monkeypatch):
    old, canceled, unwanted = (daemon.started_run() for _ in range(3))
    add_backfill(daemon, "over", BulkActionStatus.CANCELED, canceled)
    daemon.instance.add_run_tags(unwanted.run_id, {"dagster/max_retries": "0"})
    for run in (old, canceled, unwanted):
        fail_while_looked_at(daemon, run, monkeypatch)
    daemon.look(later=MISSED_DAYS * 86400 + LATER)
    assert daemon.tags(old)[WILL_RETRY_TAG] == "true"
    daemon.instance.add_run_tags(old.run_id, {BACKFILL_TAG: "deleted"})
    for _ in range(2):
        daemon.look(later=LATER)
    for run in (old, canceled, unwanted):
        assert (daemon.tags(run)[WILL_RETRY_TAG], daemon.retries(run)) == ("false", [])
    told = [entry.message for entry in daemon.instance.all_logs(canceled.run_id) if "Not retrying" in entry.message]
    assert len(told) == 1


@pytest.mark.fault(140)
def test_a_backfill_does_not_end_before_it_is_stored_whether_its_failed_run_is_to_be_run_again(daemon, monkeypatch):
    run = daemon.started_run()
    add_backfill(daemon, "failing", BulkActionStatus.REQUESTED, run)
    answers, add_run_tags = [], daemon.instance.add_run_tags

    def look_first(*tags):
        answers.append(is_complete(daemon, "failing"))
        add_run_tags(*tags)

    with monkeypatch.context() as patch:
        patch.setattr(daemon.instance, "add_run_tags", look_first)
        daemon.instance.report_run_failed(run)
    assert (answers, daemon.tags(run)[WILL_RETRY_TAG]) == ([False], "true")


@pytest.mark.fault(140)
def test_a_backfill_does_not_end_while_its_failed_run_is_run_again(daemon, monkeypatch):
    run = daemon.started_run()
    add_backfill(daemon, "retrying", BulkActionStatus.REQUESTED, run)
    daemon.instance.report_run_failed(run)
    get_run_ids = daemon.instance.get_run_ids

    def look_afterwards(**arguments):
        ids = get_run_ids(**arguments)
        daemon.look()
        return ids

    with monkeypatch.context() as patch:
        patch.setattr(daemon.instance, "get_run_ids", look_afterwards)
        assert not is_complete(daemon, "retrying")
    (again,) = daemon.retries(run)
    assert not is_complete(daemon, "retrying")
    succeeded = dg.DagsterEvent(dg.DagsterEventType.RUN_SUCCESS.value, again.job_name)
    daemon.instance.report_dagster_event(succeeded, again.run_id)
    assert is_complete(daemon, "retrying")


@pytest.mark.fault(140)
def test_a_run_of_a_backfill_that_ended_as_failed_too_early_is_run_again(daemon):
    run = daemon.started_run()
    add_backfill(daemon, "early", BulkActionStatus.COMPLETED_FAILED, run)
    daemon.instance.report_run_failed(run)
    daemon.look()
    assert len(daemon.retries(run)) == 1


@pytest.mark.fault(133)
@pytest.mark.parametrize(
    ("storage", "method", "is_stored"),
    [("event_log_storage", "store_event", False), ("run_storage", "handle_run_event", True)],
)
def test_a_run_that_is_killed_after_its_last_step_is_run_again_as_a_whole(daemon, storage, method, is_stored):
    run = daemon.new_run()
    execute(run, storage, method)
    events = [entry.dagster_event_type for entry in daemon.instance.all_logs(run.run_id)]
    assert (dg.DagsterEventType.RUN_SUCCESS in events) == is_stored
    assert daemon.instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.STARTED
    daemon.instance.report_run_failed(run)  # as its code server does
    daemon.look()
    (again,) = daemon.retries(run)
    assert (again.status, again.step_keys_to_execute) == (dg.DagsterRunStatus.QUEUED, None)
    execute(again)
    with duckdb.connect(str(load_settings().home / "warehouse.duckdb"), read_only=True) as con:
        assert con.execute("SELECT count(*) FROM green_trips").fetchone() == (1999,)  # one of the 2,000 is rejected


@pytest.mark.fault(143)
def test_a_month_is_followed_while_it_is_not_said_yet_that_its_run_is_run_again(daemon, monkeypatch):
    run, results, add_run_tags = daemon.started_run(), [], daemon.instance.add_run_tags
    monkeypatch.setattr(through_dagster, "LOOK_SECONDS", 0.01)
    following = through_dagster._follow(daemon.instance, {GREEN: run.run_id})
    Thread(target=lambda: results.extend(following), daemon=True).start()

    def add_late(*arguments):
        assert daemon.instance.get_run_by_id(run.run_id).is_finished
        time.sleep(1)  # a hundred looks
        add_run_tags(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(daemon.instance, "add_run_tags", add_late)
        daemon.instance.report_run_failed(run)
    daemon.look()
    (again,) = daemon.retries(run)
    daemon.instance.report_dagster_event(dg.DagsterEvent("PIPELINE_SUCCESS", again.job_name), again.run_id)
    wait_for(lambda: results)
    assert [result.run_id for result in results] == [again.run_id]


EXECUTE = """
import os, signal, sys
import dagster as dg
from taxi_platform.runs.dagster_internals import execute_in_worker
run_id, *killed_at = sys.argv[1:]
with dg.DagsterInstance.get() as instance:
    for storage, method in [killed_at] if killed_at else []:
        original = getattr(getattr(instance, storage), method)
        def killed(*arguments):
            events = [getattr(argument, "dagster_event", argument) for argument in arguments]
            if dg.DagsterEventType.RUN_SUCCESS in [getattr(event, "event_type", None) for event in events]:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments)
        setattr(getattr(instance, storage), method, killed)
    sys.exit(0 if execute_in_worker(instance, run_id) else 1)
"""


def execute(run, *killed_at):
    """Execute the run in a process, which is killed when it gives the event of its success to this storage's method."""
    command = [sys.executable, "-c", EXECUTE, run.run_id, *killed_at]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert ended.returncode == (-9 if killed_at else 0), ended.stderr
