"""Every private import of Dagster, each with the reason why the public API is not enough.

Other modules import these names from here. `test_dagster_internals.py` fails when one of them moves, changes its
signature or behaves differently, and when another module imports from `dagster._…`.
"""

from __future__ import annotations

import importlib.util
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import dagster as dg

# How the webserver asks a code server what it has loaded: the answer is the error where it has loaded nothing.
from dagster._api.list_repositories import sync_list_repositories_grpc
from dagster._core.definitions.job_base import InMemoryJob

# What a run launcher raises to have its run stay in the queue; for anything else the daemon fails the run. A code
# server that starts again is the one or the other.
from dagster._core.errors import DagsterCodeLocationLoadError, DagsterUserCodeUnreachableError
from dagster._core.execution.api import execute_run_iterator

# What creates a run: it stores the events of all assets and checks that are planned.
from dagster._core.instance.runs.run_domain import RunDomain

# What run monitoring asks of a run launcher.
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)

# "Not finished" is what makes a month busy; the public API has no such list, and Dagster may add statuses.
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

# The clock that runs and ticks are stamped with; Dagster's own test helper sets it.
from dagster._time import get_current_datetime, get_current_timestamp

# Signals that Dagster notes, and acts on between two steps; and one that it noted but has not acted on yet.
from dagster._utils.interrupts import capture_interrupts, pop_captured_interrupt

# Dagster's own judgement of a cron line, so that a wrong TAXI_SCHEDULE is reported before the code location loads.
from dagster._utils.schedules import is_valid_cron_string

from taxi_platform.assets.names import LOCATION
from taxi_platform.runs.fork_server import CAN_FORK, forking_context

if TYPE_CHECKING:
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import WorkspaceFileTarget

__all__ = [
    "NOISY_LOGGERS",
    "NOT_FINISHED_STATUSES",
    "CheckRunHealthResult",
    "DagsterCodeLocationLoadError",
    "DagsterUserCodeUnreachableError",
    "LaunchRunContext",
    "RunDomain",
    "WorkerStatus",
    "WorkspaceFileTarget",
    "WorkspaceProcessContext",
    "asset_backfill_module",
    "check_state_module",
    "compute_logs_module",
    "daemon_command",
    "execute_in_worker",
    "execute_run",
    "fork_runs",
    "get_current_datetime",
    "get_current_timestamp",
    "import_what_runs_use",
    "is_known_revision",
    "is_valid_cron_string",
    "job_code_origin",
    "look_for_backfills_every",
    "reload_code_location",
    "remote_job_origin",
    "retry_modules",
    "runs_table",
    "sql_event_log_module",
    "sql_module",
    "sqlite_event_log_class",
    "sqlite_modules",
    "sync_list_repositories_grpc",
    "ticks_table",
]

NOISY_LOGGERS = ("dagster", "dagster._core.execution.plan.active")
"""Loggers that repeat a run's own log on stderr. The second by name because a run sets the level of the first again;
it warns that the checks of a month that is not published are skipped."""

RELOAD_SECONDS = 120
"""For loading the code location."""

DIED_WITH_FORK_SERVER = 255
"""The exit status that `multiprocessing` gives a process whose fork server was killed."""

STEP_ENDS = {
    dg.DagsterEventType.STEP_SUCCESS,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.STEP_SKIPPED,
    dg.DagsterEventType.STEP_UP_FOR_RETRY,
}


if not TYPE_CHECKING:  # where `__getattr__` would stand for any name

    def __getattr__(name: str) -> Any:
        """The webserver's app can only be created from these two; `dagster-webserver` itself offers just a command.

        Importing them takes 0.1 s, which runs and code locations need not wait for.
        """
        modules = {"WorkspaceProcessContext": "context", "WorkspaceFileTarget": "load_target"}
        if name not in modules:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"dagster._core.workspace.{modules[name]}"), name)


class _PackageOfDaemons(ModuleType):
    """The package `dagster._daemon`, without what its `__init__` imports until somebody asks for that.

    The storages need one class of its `types`; `__init__` imports all daemons, and they structlog, Rich's tracebacks
    and the lexers of Pygments: 0.23 s.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = [str(Path(dg.__file__).with_name("_daemon"))]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what the import system asks for
            raise AttributeError(name)
        spec = importlib.util.spec_from_file_location(self.__name__, Path(self.__path__[0]) / "__init__.py")
        assert spec and spec.loader
        self.__class__ = ModuleType  # type: ignore[assignment]
        spec.loader.exec_module(self)
        return getattr(self, name)


def sqlite_modules() -> list[Any]:
    """The modules in which Dagster makes an engine, by their `create_engine`, for each query of its SQLite files.

    Imported when they are called for: they bring Alembic, and only processes that open an instance need them.
    """
    # Alembic's templates, which nobody renders here, would bring Pygments and its lexers: 0.1 s. Mako does without.
    sys.modules.setdefault("mako.ext.pygmentplugin", None)  # type: ignore[arg-type]
    if "dagster._daemon" not in sys.modules:
        package = _PackageOfDaemons("dagster._daemon")
        sys.modules[package.__name__] = package
        vars(dg)["_daemon"] = package
    names: tuple[str, ...] = ("event_log.sqlite.sqlite_event_log", "runs.sqlite.sqlite_run_storage")
    names += ("schedules.sqlite.sqlite_schedule_storage",)
    return [importlib.import_module(f"dagster._core.storage.{name}") for name in names]


def sqlite_event_log_class() -> Any:
    """Dagster's event log in SQLite files, one a run; `_initdb` makes a run's file."""
    return sqlite_modules()[0].SqliteEventLogStorage


def sql_event_log_module() -> Any:
    """The module that serializes events, by `serialize_value`."""
    return importlib.import_module("dagster._core.storage.event_log.sql_event_log")


def sql_module() -> Any:
    """The module in which Dagster reads, by `ScriptDirectory`, all its migrations to learn which is the latest."""
    return importlib.import_module("dagster._core.storage.sql")


def is_known_revision(revision: str) -> bool:
    """Whether the installed Dagster has a migration of its tables by this name; a later Dagster's it does not know."""
    from alembic.config import Config
    from alembic.util import CommandError

    config, sql = Config(), sql_module()
    config.set_main_option("script_location", sql.ALEMBIC_SCRIPTS_LOCATION)
    try:
        return sql.ScriptDirectory.from_config(config).get_revision(revision) is not None
    except CommandError:
        return False


def compute_logs_module() -> Any:
    """The module in which Dagster, by `tail_to_stream`, shows on the terminal what it stores of a step's output."""
    return importlib.import_module("dagster._core.execution.compute_logs")


def check_state_module() -> Any:
    """The module in which Dagster computes, by `_process_partition_records`, in which months a check passed."""
    return importlib.import_module("dagster._core.storage.asset_check_state")


def retry_modules() -> tuple[Any, Any]:
    """How Dagster runs killed runs again, by `retry_run`, and the part of its daemon that notices them by their events.

    Neither can be asked to wait for a code server, or to look at a run once more. Those of a backfill whose status is
    one of `BULK_ACTION_TERMINAL_STATUSES` are not run again.
    """
    package = "dagster._daemon.auto_run_reexecution"
    reexecution, consumer = (f"{package}.{name}" for name in ("auto_run_reexecution", "event_log_consumer"))
    return importlib.import_module(reexecution), importlib.import_module(consumer)


def asset_backfill_module() -> Any:
    """The module that ends a backfill of assets when, by `backfill_runs_are_complete`, no run of it is to come."""
    return importlib.import_module("dagster._core.execution.asset_backfill")


def daemon_command() -> Any:
    """The module of the daemon's command, which opens by `get_instance_for_cli` the instance of all its threads."""
    return importlib.import_module("dagster._daemon.cli")


def look_for_backfills_every(seconds: float) -> None:
    """Have the daemon that starts in this process look at backfills so often. Dagster has no setting for its 30 s."""
    controller: Any = importlib.import_module("dagster._daemon.controller")
    controller.DEFAULT_DAEMON_INTERVAL_SECONDS = seconds


def runs_table() -> Any:
    """The table of runs. Counting by the public API takes a query for each job and status, or reads every run."""
    return importlib.import_module("dagster._core.storage.runs.schema").RunsTable


def ticks_table() -> Any:
    """The table of ticks, whose public reader returns ticks one by one: thousands a day."""
    return importlib.import_module("dagster._core.storage.schedules.schema").JobTickTable


def remote_job_origin(job_name: str) -> RemoteJobOrigin:
    """Where a job lives, by the names in workspace.yaml and pyproject.toml.

    A run with this origin fires status sensors, is listed on its job's page and can be re-executed in the UI. The
    public `execute_in_process` and `execute_job` create runs without one.
    """
    target = LoadableTargetOrigin(executable_path=sys.executable, module_name="taxi_platform.definitions")
    location = ManagedGrpcPythonEnvCodeLocationOrigin(target, LOCATION)
    return RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), job_name)


def job_code_origin(job_name: str) -> JobPythonOrigin:
    """How a process that executes a run finds its job; a run that is queued for the daemon needs it."""
    pointer = importlib.import_module("dagster._core.code_pointer").ModuleCodePointer(
        "taxi_platform.definitions", "defs"
    )
    return JobPythonOrigin(job_name, RepositoryPythonOrigin(sys.executable, pointer))


def execute_in_worker(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Execute a run that was launched, as `dagster api execute_run` does; returns whether it succeeded.

    A SIGTERM or SIGINT ends it as canceled, if that was asked for, or else as failed.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # one that is ignored would stay so
    with capture_interrupts():
        api = importlib.import_module("dagster._cli.api")
        return api._execute_run_command_body(run_id, instance, lambda event: None, True) == 0


def execute_run(job: dg.JobDefinition, run: dg.DagsterRun, instance: dg.DagsterInstance) -> Iterator[dg.DagsterEvent]:
    """Execute an existing run in this process and yield its events; the public API only executes runs it creates.

    A failure is an event, not an exception. An interruption during a step is a step failure, one while the run waits
    for a step's next try a run failure.
    """
    events = execute_run_iterator(InMemoryJob(job), run, instance)
    if threading.current_thread() is threading.main_thread():
        return _interruptible_waits(events)
    return events


def _interruptible_waits(events: Iterator[dg.DagsterEvent]) -> Iterator[dg.DagsterEvent]:
    """Let a signal end the wait before a step is tried again.

    Dagster's executor sleeps for it (up to 270 s) with a handler that only notes the signal until the next step.
    """
    caller_handler = signal.getsignal(signal.SIGINT)
    waiting: set[str | None] = set()
    for event in events:
        if event.event_type == dg.DagsterEventType.STEP_UP_FOR_RETRY:
            dagster_handler = signal.getsignal(signal.SIGINT)
            waiting.add(event.step_key)
        if waiting:
            may_sleep = event.event_type in STEP_ENDS
            _handle_interruptions(caller_handler if may_sleep else dagster_handler)
            if may_sleep and pop_captured_interrupt():
                signal.raise_signal(signal.SIGINT)
        if event.event_type == dg.DagsterEventType.STEP_RESTARTED:
            waiting.discard(event.step_key)
        yield event


def _handle_interruptions(handler: Any) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def fork_runs(warm_module: str) -> None:
    """If this process is a code server, have it fork the runs from a process that has imported `warm_module`.

    Dagster's code server starts a new Python for each run, which imports Dagster and builds the definitions: 2 s of
    processor time. `multiprocessing`'s fork server does that once. It starts with the first run, again if it was
    killed, and ends with the code server and its runs; a reload of the code location starts a new code server, and so
    a new one of these.
    """
    server = sys.modules.get("dagster._grpc.server")
    if server is None or not CAN_FORK:
        return
    context = forking_context(warm_module)
    # Each server sets this attribute for itself before it loads our code; a property of the class comes before it.
    server.DagsterApiServer._mp_ctx = property(lambda server: context, lambda server, value: None)
    report_orphans = server.DagsterApiServer._check_for_orphaned_runs

    def check_for_orphaned_runs(self: Any) -> None:
        for run_id, (process, instance_ref) in list(self._executions.items()):
            if process.exitcode == DIED_WITH_FORK_SERVER:
                _allow_another_try(instance_ref, run_id)
        report_orphans(self)

    server.DagsterApiServer._check_for_orphaned_runs = check_for_orphaned_runs


def _allow_another_try(instance_ref: Any, run_id: str) -> None:
    from taxi_platform.runs.instance import allow_another_try  # which needs this module

    with suppress(Exception), dg.DagsterInstance.from_ref(instance_ref) as instance:  # it is reported all the same
        run = instance.get_run_by_id(run_id)
        if run and not run.is_finished:
            allow_another_try(instance, run)


def import_what_runs_use() -> None:
    """Import the modules of Dagster that every run imports, those that open its instance included."""
    import dagster._core.execution.asset_backfill
    import dagster._core.execution.telemetry
    import dagster._core.executor.in_process
    import dagster._core.instance.factory
    import dagster._core.scheduler
    import dagster._core.secrets.env_file
    import dagster._core.storage.local_compute_log_manager
    import dagster._core.storage.sqlite_storage
    import dagster._daemon
    import dagster._grpc.impl  # noqa: F401


def reload_code_location(code_socket: str) -> str:
    """Have a code server load the code location anew; returns why it cannot, empty if it can.

    Runs in progress stay with the process that they began with, which ends after them. Webservers and daemons notice by
    themselves. The public way is a mutation of the webserver's, which `--no-ui` has not.
    """
    from dagster._core.errors import DagsterUserCodeProcessError, DagsterUserCodeUnreachableError
    from dagster._grpc.client import DagsterGrpcClient
    from dagster._grpc.types import ListRepositoriesResponse
    from dagster_shared.serdes import deserialize_value

    client = DagsterGrpcClient(socket=code_socket)
    try:
        client.reload_code(timeout=RELOAD_SECONDS)
        answer: Any = deserialize_value(client.list_repositories())
    except (DagsterUserCodeUnreachableError, DagsterUserCodeProcessError) as error:
        return str(error)
    return "" if isinstance(answer, ListRepositoriesResponse) else answer.to_string()
