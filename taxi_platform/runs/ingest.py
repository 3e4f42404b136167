"""Dagster runs started from a command line, which look and behave as if launched in the UI."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import dagster as dg
import psutil
from sqlalchemy.exc import DBAPIError

from taxi_platform.assets.names import (
    FRESHNESS_CHECK,
    PARTITION_TAG,
    PROCESS_TAG,
    cleaning_op,
    job_name,
    raw_file_op,
    trips_op,
)
from taxi_platform.settings import Settings
from taxi_platform.trips.errors import LakeError, TaxiError
from taxi_platform.trips.faults import fault_point
from taxi_platform.trips.months import Dataset, DatasetMonth

LOCATION = "taxi_platform"
INTERRUPTIONS = ("DagsterExecutionInterruptedError", "KeyboardInterrupt")


@dataclass(frozen=True)
class IngestOptions:
    """What one ingestion shall do differently."""

    force: bool = False
    reject: tuple[str, ...] = ()
    kept: bool = False
    """Take the raw file that the lake has; then `force` is for cleaning and loading only."""


@dataclass
class RunOutcome:
    """How a run ended: its metadata by asset name, and what failed."""

    dataset_month: DatasetMonth
    run_id: str
    succeeded: bool = False
    interrupted: bool = False
    problem: str = ""
    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed_checks: list[str] = field(default_factory=list)


@contextmanager
def open_instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """Dagster's instance in its home, made with our settings if it is new; dead runs are reported first."""
    home = settings.dagster_home
    try:
        home.mkdir(parents=True, exist_ok=True)
        if not (home / "dagster.yaml").exists():
            text = resources.files("taxi_platform.runs").joinpath("dagster.yaml").read_text("utf-8")
            (home / "dagster.yaml").write_text(text)
    except OSError as error:
        raise LakeError(
            f"Cannot write {home}: {error.strerror}.", "Set TAXI_HOME (or DAGSTER_HOME) to a folder that you own."
        ) from error
    os.environ["DAGSTER_HOME"] = str(home)
    os.environ["TAXI_HOME"] = str(settings.home)
    try:
        with dg.DagsterInstance.get() as instance:
            report_dead_runs(instance)
            yield instance
    except DBAPIError as error:
        raise TaxiError(
            f"Dagster's database failed: {error.orig} (its home is {home}).",
            "Is the disk full, or the server down? Mend that and run again: what is done stays.",
        ) from error


def process_name(pid: int) -> str:
    """A process by machine, id and start time, so that no other one is ever taken for it."""
    return f"{socket.gethostname()}/{pid}@{psutil.Process(pid).create_time():.2f}"


def is_dead(process: str) -> bool:
    """Whether the process is gone; of another machine's nobody here can tell."""
    machine, _, rest = process.rpartition("/")
    if machine != socket.gethostname():
        return False
    try:
        return process_name(int(rest.partition("@")[0])) != process
    except (psutil.NoSuchProcess, ValueError):
        return True


def report_dead_runs(instance: dg.DagsterInstance) -> int:
    """Report runs of killed processes as failed, and free their places in pools: nobody else would."""
    unfinished = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING]
    dead = [
        run
        for run in instance.get_runs(dg.RunsFilter(statuses=unfinished))
        if PROCESS_TAG in run.tags and is_dead(run.tags[PROCESS_TAG])
    ]
    for run in dead:
        instance.report_run_failed(
            run, "The process of this run was killed. Run the month again: it does what is missing."
        )
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return len(dead)


def what_failed(instance: dg.DagsterInstance, datasets: Sequence[Dataset], limit: int) -> dict[DatasetMonth, str]:
    """The months whose latest run failed → the first line of what it said, among the `limit` latest runs."""
    latest: dict[DatasetMonth, str] = {}
    ended = dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE])
    for run in instance.get_runs(ended, limit=limit):
        month = run.tags.get(PARTITION_TAG)
        if month is None:
            continue
        for dataset in datasets_of(run):
            dataset_month = DatasetMonth.parse(dataset, month)
            if dataset in datasets and dataset_month not in latest:
                failed = run.status == dg.DagsterRunStatus.FAILURE
                latest[dataset_month] = _first_line(instance, run, dataset_month) if failed else ""
    return {dataset_month: problem for dataset_month, problem in latest.items() if problem}


def datasets_of(run: dg.DagsterRun) -> list[Dataset]:
    """The datasets that a run ingests: of its job, or of the assets that the UI's pages and backfills select."""
    names = {run.job_name.removesuffix("_ingest"), *(key.path[0] for key in run.asset_selection or ())}
    return [dataset for dataset in Dataset if dataset.value in names]


def _first_line(instance: dg.DagsterInstance, run: dg.DagsterRun, dataset_month: DatasetMonth) -> str:
    wanted = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    outcome = RunOutcome(dataset_month, run.run_id)
    for log in instance.all_logs(run.run_id, of_type=wanted):
        if log.dagster_event:
            _note(outcome, log.dagster_event, lambda step: None)
    return (outcome.problem or "failed").splitlines()[0]


def run_config(dataset_month: DatasetMonth, options: IngestOptions) -> dict[str, Any]:
    """The config of one ingestion, as the launchpad would take it; quiet on the console, complete in the UI."""
    dataset = dataset_month.dataset
    ops: dict[str, Any] = {}
    if options.force or options.kept:
        ops[raw_file_op(dataset)] = {"config": {"force": not options.kept, "kept": options.kept}}
    if options.force:
        ops[trips_op(dataset)] = {"config": {"force": True}}
    if options.force or options.reject:
        ops[cleaning_op(dataset)] = {"config": {"force": options.force, "reject": list(options.reject)}}
    return {"ops": ops, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def ingest_month(
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    dataset_month: DatasetMonth,
    options: IngestOptions | None = None,
    step_done: Callable[[str], None] = lambda step: None,
) -> RunOutcome:
    """Run one month's job here and now; never raises for a failed run.

    `create_run_for_job` with a remote origin and `execute_run_iterator` are Dagster's internals: only so do status
    sensors fire, the job's page lists the run, and Re-execute works. `test_runs.py` holds them to that.
    """
    from dagster._core.definitions.job_base import InMemoryJob
    from dagster._core.execution.api import execute_run_iterator

    job = definitions.resolve_job_def(job_name(dataset_month.dataset))
    run = instance.create_run_for_job(
        job,
        run_config=run_config(dataset_month, options or IngestOptions()),
        tags={**job.tags, PARTITION_TAG: str(dataset_month.month), PROCESS_TAG: process_name(os.getpid())},
        remote_job_origin=_origin(job.name),
    )
    outcome = RunOutcome(dataset_month, run.run_id)
    try:
        for event in execute_run_iterator(InMemoryJob(job), run, instance):
            _note(outcome, event, step_done)
    except KeyboardInterrupt:  # between two steps; inside them Dagster makes it a failure
        outcome.interrupted = True
        instance.report_run_failed(instance.get_run_by_id(run.run_id) or run, "Interrupted.")
    return outcome


def _note(outcome: RunOutcome, event: dg.DagsterEvent, step_done: Callable[[str], None]) -> None:
    if event.is_step_materialization:
        found = event.step_materialization_data.materialization
        outcome.metadata[found.asset_key.path[-1]] = {key: value.value for key, value in found.metadata.items()}
        fault_point("event_recorded")
    elif event.is_step_failure:
        data = event.step_failure_data
        outcome.interrupted |= bool(data.error and data.error.cls_name in INTERRUPTIONS)
        told = data.user_failure_data.description if data.user_failure_data else None
        problem = "Interrupted." if outcome.interrupted else data.error.message.strip() if data.error else "failed"
        outcome.problem = outcome.problem or told or problem
    elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
        check = event.asset_check_evaluation_data
        if not check.passed and check.check_name != FRESHNESS_CHECK:  # which tells nothing about this month
            outcome.failed_checks.append(f"{check.check_name}: {check.description or 'failed'}")
    elif event.event_type == dg.DagsterEventType.RUN_SUCCESS:
        outcome.succeeded = True
    elif event.event_type == dg.DagsterEventType.RUN_FAILURE:
        outcome.problem = outcome.problem or event.message or "failed"
        outcome.interrupted |= "interrupted" in outcome.problem
    if event.event_type in (dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.STEP_SKIPPED):
        step_done(event.step_key or "")


def _origin(job_name: str) -> Any:
    """Where the job lives, by the names that workspace.yaml and pyproject.toml give."""
    from dagster._core.remote_origin import (
        ManagedGrpcPythonEnvCodeLocationOrigin,
        RemoteJobOrigin,
        RemoteRepositoryOrigin,
    )
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

    target = LoadableTargetOrigin(executable_path=sys.executable, module_name="taxi_platform.definitions")
    location = ManagedGrpcPythonEnvCodeLocationOrigin(target, LOCATION)
    return RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), job_name)
