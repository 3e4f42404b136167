"""Fails when something private of Dagster that we use moves or changes, and when it is imported elsewhere."""

import ast
import importlib
import inspect
import logging
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
from dagster._core.storage import tags
from dagster._core.test_utils import freeze_time
from dagster._utils.interrupts import capture_interrupts

import taxi_platform
from taxi_platform.assets import names
from taxi_platform.runs import dagster_internals as internals
from taxi_platform.ui.daemon import RECOUNTED_EVENTS

PACKAGE = Path(taxi_platform.__file__).parent


def private_imports(path):
    """The modules below `dagster._…` that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if name.startswith("dagster._")}


def test_only_one_module_imports_what_is_private_in_dagster():
    importers = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if private_imports(path)}
    assert importers == {"runs/dagster_internals.py"}


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (internals.execute_run_iterator, ["job", "dagster_run", "instance"]),
        (internals.InMemoryJob, ["job_def"]),
        (internals.LoadableTargetOrigin, ["executable_path", "python_file", "module_name"]),
        (internals.ManagedGrpcPythonEnvCodeLocationOrigin, ["loadable_target_origin", "location_name"]),
        (internals.RemoteRepositoryOrigin, ["code_location_origin", "repository_name"]),
        (internals.RemoteJobOrigin, ["repository_origin", "job_name"]),
        (internals.WorkspaceProcessContext, ["instance", "workspace_load_target", "version", "read_only"]),
        (internals.is_valid_cron_string, ["cron_string"]),
        (internals.JobPythonOrigin, ["job_name", "repository_origin"]),
        (internals.RepositoryPythonOrigin, ["executable_path", "code_pointer"]),
        (internals.LaunchRunContext, ["dagster_run", "workspace"]),
        (internals.CheckRunHealthResult, ["status", "msg"]),
        (dg.DagsterInstance.create_run_for_job, ["self", "job_def"]),
        (internals.RunDomain._log_asset_planned_events, ["self", "dagster_run"]),
        (internals.sqlite_event_log_class()._connect, ["self", "shard"]),
        (internals.sql_event_log_module().serialize_value, ["val"]),
    ],
)
def test_the_parameters_are_those_we_pass(function, parameters):
    internals.remote_job_origin("any")  # Dagster gives a record's class its signature when it is first instantiated
    assert list(inspect.signature(function).parameters)[: len(parameters)] == parameters


def test_what_is_replaced_while_runs_are_executed_is_where_dagster_uses_it():
    for module in internals.sqlite_modules():
        assert module.create_engine is internals.sql_module().create_engine
    assert list(inspect.signature(internals.sqlite_event_log_class()._initdb).parameters) == [
        "self",
        "engine",
        "for_index_shard",
    ]
    assert callable(internals.sql_module().ScriptDirectory.from_config)
    assert list(inspect.signature(internals.compute_logs_module().tail_to_stream).parameters) == ["path", "stream"]


def test_a_workspace_file_is_the_only_argument_of_its_target():
    assert internals.WorkspaceFileTarget(["workspace.yaml"]).paths == ["workspace.yaml"]


def test_runs_that_wait_or_run_are_the_unfinished_ones():
    finished = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}
    assert {*internals.NOT_FINISHED_STATUSES} == {*dg.DagsterRunStatus} - finished - {dg.DagsterRunStatus.MANAGED}


def test_the_clock_is_the_one_that_dagsters_tests_set():
    now = internals.get_current_datetime().replace(year=2031)
    with freeze_time(now):
        assert internals.get_current_datetime() == now
        assert internals.get_current_timestamp() == now.timestamp()


def test_cron_lines_are_judged_as_schedules_judge_them():
    assert internals.is_valid_cron_string("30 6 * * *")
    assert not internals.is_valid_cron_string("every morning")


def test_the_origin_has_the_names_of_the_workspace():
    origin = internals.remote_job_origin("green_ingest")
    assert origin.job_name == "green_ingest"
    assert origin.repository_origin.repository_name == "__repository__"
    assert origin.repository_origin.code_location_origin.location_name == "taxi_platform"


def test_a_run_is_executed_by_what_dagsters_own_command_calls(monkeypatch):
    from dagster._cli.api import _execute_run_command_body
    from dagster._core.definitions.reconstruct import initialize_repository_def_from_pointer
    from dagster._daemon.run_coordinator import queued_run_coordinator_daemon

    assert list(inspect.signature(_execute_run_command_body).parameters) == [
        "run_id",
        "instance",
        "write_stream_fn",
        "set_exit_code_on_failure",
    ]
    # What keeps a run in the queue when its launcher raises it.
    source = inspect.getsource(queued_run_coordinator_daemon.QueuedRunCoordinatorDaemon._dequeue_run)
    assert "(DagsterUserCodeUnreachableError, DagsterCodeLocationLoadError)" in source
    origin = internals.job_code_origin("green_ingest")
    monkeypatch.setattr("taxi_platform.definitions.fork_runs", lambda module: None)  # this process is no code server
    assert "green_ingest" in initialize_repository_def_from_pointer(origin.get_repo_pointer()).job_names


def test_an_interruption_is_noted_until_it_is_asked_for():

    with capture_interrupts():
        signal.raise_signal(signal.SIGINT)
        assert internals.pop_captured_interrupt()
        assert not internals.pop_captured_interrupt()


def test_the_noisy_loggers_are_still_modules_that_log():
    for name in internals.NOISY_LOGGERS[1:]:
        assert isinstance(importlib.import_module(name).logger, logging.Logger)
        assert importlib.import_module(name).logger.name == name


def test_the_tags_are_dagsters_own():
    assert tags.PARTITION_NAME_TAG == names.PARTITION_TAG
    assert tags.ASSET_PARTITION_RANGE_START_TAG == names.RANGE_START_TAG
    assert tags.ASSET_PARTITION_RANGE_END_TAG == names.RANGE_END_TAG
    assert tags.PRIORITY_TAG == names.PRIORITY_TAG
    assert names.HURRIED_TAG.startswith(tags.HIDDEN_TAG_PREFIX)
    assert tags.GRPC_INFO_TAG == names.CODE_SERVER_TAG
    assert tags.MAX_RETRIES_TAG == names.MAX_RETRIES_TAG
    assert tags.AUTO_RETRY_RUN_ID_TAG == names.RETRY_TAG
    assert tags.WILL_RETRY_TAG == names.WILL_RETRY_TAG
    assert tags.BACKFILL_ID_TAG == names.BACKFILL_TAG
    assert tags.RETRY_STRATEGY_TAG == names.RETRY_STRATEGY_TAG


def test_how_killed_runs_are_run_again_is_replaced_where_dagster_uses_it():
    reexecution, consumer = internals.retry_modules()
    assert list(inspect.signature(reexecution.retry_run).parameters) == ["failed_run", "workspace_context"]
    retry = reexecution.consume_new_runs_for_automatic_reexecution
    assert list(inspect.signature(retry).parameters) == ["workspace_process_context", "run_records", "logger"]
    assert " retry_run(" in inspect.getsource(retry)
    assert "in BULK_ACTION_TERMINAL_STATUSES" in inspect.getsource(reexecution.should_retry)
    assert "COMPLETED_FAILED" in {status.name for status in reexecution.BULK_ACTION_TERMINAL_STATUSES}
    iteration = consumer.EventLogConsumerDaemon.run_iteration
    assert list(inspect.signature(iteration).parameters) == ["self", "workspace_process_context"]


def test_the_end_of_a_backfill_is_judged_where_it_is_replaced():
    backfills = internals.asset_backfill_module()
    judge = backfills.backfill_runs_are_complete
    assert list(inspect.signature(judge).parameters) == ["backfill_id", "instance", "logger"]
    for caller in (backfills.execute_asset_backfill_iteration, backfills._backfill_is_stalled):
        assert "backfill_runs_are_complete(" in inspect.getsource(caller)


def test_the_storages_are_imported_without_the_daemons_which_come_when_they_are_asked_for():
    code = (
        "import sys\n"
        "from taxi_platform.runs.dagster_internals import retry_modules, sqlite_modules\n"
        "sqlite_modules()\n"
        "assert 'dagster._daemon.types' in sys.modules and 'structlog' not in sys.modules\n"
        "import dagster._daemon\n"
        "retry_modules()\n"
        "from dagster._daemon import DagsterDaemonController, get_daemon_statuses\n"
        "print(dagster._daemon.DagsterDaemonController.__module__)\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert answer.stdout == "dagster._daemon.controller\n", answer.stderr


def test_the_daemon_opens_its_instance_where_it_is_replaced():
    assert "with get_instance_for_cli(" in inspect.getsource(internals.daemon_command())


def test_backfills_are_looked_for_as_often_as_is_said(monkeypatch):
    from dagster._daemon import backfill, controller

    monkeypatch.setattr(controller, "DEFAULT_DAEMON_INTERVAL_SECONDS", controller.DEFAULT_DAEMON_INTERVAL_SECONDS)
    internals.look_for_backfills_every(3)
    waits = []
    event, log = SimpleNamespace(wait=waits.append), logging.getLogger("daemon")
    with dg.DagsterInstance.ephemeral() as instance:
        loop = backfill.execute_backfill_iteration_loop(SimpleNamespace(instance=instance), log, event)
        while not waits:
            next(loop)
    assert 0 < waits[0] <= 3


def test_a_look_at_a_backfill_reads_the_latest_events_again(monkeypatch):
    from dagster._core.execution.asset_backfill import _get_next_latest_storage_id

    events = SimpleNamespace(get_maximum_record_id=lambda: 5000)
    queryer = SimpleNamespace(instance=SimpleNamespace(event_log_storage=events))
    monkeypatch.setenv("ASSET_BACKFILL_CURSOR_OFFSET", RECOUNTED_EVENTS)
    assert _get_next_latest_storage_id(queryer) == 4000


def test_a_code_server_that_is_not_there_is_named_when_it_is_asked_to_reload(tmp_path):
    assert "Could not reach user code server" in internals.reload_code_location(str(tmp_path / "nobody.sock"))


def test_a_run_whose_fork_server_is_killed_has_the_status_by_which_it_is_known():
    from dagster._grpc.server import DagsterApiServer

    assert "self._executions.items()" in inspect.getsource(DagsterApiServer._check_for_orphaned_runs)
    code = (
        "import multiprocessing, os, signal, time\n"
        "from multiprocessing import forkserver\n"
        "process = multiprocessing.get_context('forkserver').Process(target=time.sleep, args=(60,))\n"
        "process.start()\n"
        "os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)\n"
        "os.kill(process.pid, signal.SIGKILL)\n"
        "process.join()\n"
        "print(process.exitcode)\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert answer.stdout == f"{internals.DIED_WITH_FORK_SERVER}\n", answer.stderr


def test_the_code_server_starts_runs_by_the_context_that_is_replaced():
    from dagster._grpc.server import DagsterApiServer

    assert 'self._mp_ctx = multiprocessing.get_context("spawn")' in inspect.getsource(DagsterApiServer.__init__)
    assert "self._mp_ctx.Process(" in inspect.getsource(DagsterApiServer.StartRun)
