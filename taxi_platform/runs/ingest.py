"""The run of one month, executed in this process; the UI shows it like any other run."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from taxi_platform.assets.marts import mart_keys
from taxi_platform.assets.names import (
    FRESHNESS_CHECK,
    HURRIED_TAG,
    MAX_RETRIES_TAG,
    PARTITION_TAG,
    SET_ASIDE_CHECK,
    cleaning_op,
    job_name,
    marts_op,
    raw_file_op,
    trips_op,
)
from taxi_platform.assets.resources import process_tags
from taxi_platform.marts.tables import MARTS
from taxi_platform.runs.dagster_internals import execute_run, job_code_origin, remote_job_origin
from taxi_platform.runs.history import INTERRUPTED, problem_of
from taxi_platform.runs.result import IngestStatus, MonthResult
from taxi_platform.trips.contract import contract_of
from taxi_platform.trips.faults import fault_point
from taxi_platform.trips.months import DatasetMonth


@dataclass(frozen=True)
class IngestOptions:
    """The options of an ingestion."""

    force: bool = False
    """Fetch, clean and load again, even what has not changed."""
    reject: tuple[str, ...] = ()
    """Suspicious rules that reject rows, in addition to those of TAXI_REJECT, in the datasets that have them."""
    use_lake_copy: bool = False
    """Use the lake's raw file without asking the source; `force` then applies to cleaning and loading only."""
    patient: bool = False
    """Try a step again after a transient error, with waits of about 30, 90 and 270 s."""
    only_marts: frozenset[DatasetMonth] = frozenset()
    """The months of which nothing but the marts is due."""


def run_config(dataset_month: DatasetMonth, options: IngestOptions) -> dict[str, Any]:
    """The config of one ingestion, as in the launchpad, without log lines on the console."""
    dataset = dataset_month.dataset
    ops: dict[str, Any] = {}
    if options.force or options.use_lake_copy:
        fetch = {"force": not options.use_lake_copy, "kept": options.use_lake_copy}
        ops[raw_file_op(dataset)] = {"config": fetch}
    if options.force:
        ops[trips_op(dataset)] = ops[marts_op(dataset)] = {"config": {"force": True}}
    reject = list(contract_of(dataset).own_rules(options.reject))
    if options.force or reject:
        ops[cleaning_op(dataset)] = {"config": {"force": options.force, "reject": reject}}
    return {"ops": ops, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def ingest_month(
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    dataset_month: DatasetMonth,
    options: IngestOptions | None = None,
    step_done: Callable[[str], None] = lambda step: None,
) -> MonthResult:
    """Run one month's job in this process; a failure or interruption is a result, never an exception.

    `step_done` is called with the name of each step that succeeded or was skipped.
    """
    options = options or IngestOptions()
    started = time.monotonic()
    job = month_job(definitions, dataset_month, options)
    run = create_run(instance, job, dataset_month, options)
    record = RunRecord()
    try:
        for event in execute_run(job, run, instance):
            record.add(event)
            if event.event_type in (dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.STEP_SKIPPED):
                step_done(event.step_key or "")
    except KeyboardInterrupt:  # between two steps, where Dagster does not turn it into a failure
        record.problems.append(INTERRUPTED)
        instance.report_run_failed(instance.get_run_by_id(run.run_id) or run, INTERRUPTED)
    return record.result(dataset_month, run.run_id, time.monotonic() - started)


def create_run(
    instance: dg.DagsterInstance,
    job: dg.JobDefinition,
    dataset_month: DatasetMonth,
    options: IngestOptions,
    for_daemon: bool = False,
) -> dg.DagsterRun:
    """A new run of the month's `month_job`, to be executed here or, `for_daemon`, wherever the daemon starts it."""
    run_id = str(uuid.uuid4())
    tags = {**job.tags, PARTITION_TAG: str(dataset_month.month)}
    if not for_daemon:
        # The command says what failed, and its user repeats it: the daemon runs nothing again that it did not start.
        tags |= {MAX_RETRIES_TAG: "0", **process_tags(run_id)}
        if not options.patient:
            tags[HURRIED_TAG] = "true"
    return instance.create_run_for_job(
        job,
        run_id=run_id,
        run_config=run_config(dataset_month, options),
        tags=tags,
        asset_selection=_selection(dataset_month, options),
        remote_job_origin=remote_job_origin(job.name),
        job_code_origin=job_code_origin(job.name) if for_daemon else None,
    )


def month_job(definitions: dg.Definitions, dataset_month: DatasetMonth, options: IngestOptions) -> dg.JobDefinition:
    """The dataset's job, or its part that builds the marts if nothing else is due."""
    job = definitions.resolve_job_def(job_name(dataset_month.dataset))
    selection = _selection(dataset_month, options)
    return job.get_subset(asset_selection=selection) if selection else job


def _selection(dataset_month: DatasetMonth, options: IngestOptions) -> frozenset[dg.AssetKey] | None:
    """The assets of a month of which only the marts are due; None for all."""
    return frozenset(mart_keys(dataset_month.dataset)) if dataset_month in options.only_marts else None


@dataclass
class RunRecord:
    """What the events of a run say: metadata by asset name, problems in order, checks that did not pass."""

    succeeded: bool = False
    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    failed_checks: list[str] = field(default_factory=list)

    def add(self, event: dg.DagsterEvent) -> None:
        if event.is_step_materialization:
            materialization = event.step_materialization_data.materialization
            entries = {name: entry.value for name, entry in materialization.metadata.items()}
            self.metadata[materialization.asset_key.path[-1]] = entries
            fault_point("event_recorded")
        elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            if not check.passed and check.check_name != FRESHNESS_CHECK:  # it is about the table, not this month
                self.failed_checks.append(f"{check.check_name}: {check.description or 'failed'}")
        elif event.event_type == dg.DagsterEventType.RUN_SUCCESS:
            self.succeeded = True
        elif problem := problem_of(event):
            self.problems.append(problem)

    def result(self, dataset_month: DatasetMonth, run_id: str, seconds: float) -> MonthResult:
        raw, clean, table = (self.metadata.get(name, {}) for name in ("raw_file", "clean_trips", "trips"))
        status = self._status()
        return MonthResult(
            dataset_month,
            status,
            seconds,
            rows_read=clean.get("rows_read", raw.get("rows_read")),
            rows_clean=clean.get("rows_clean"),
            rows_rejected=clean.get("rows_rejected"),
            rows_in_table=table.get("rows"),
            run_id=run_id,
            problem=self._problem(status),
        )

    def _status(self) -> IngestStatus:
        if INTERRUPTED in self.problems:
            return IngestStatus.INTERRUPTED
        if not self.succeeded:
            return IngestStatus.FAILED
        if not self.metadata:
            return IngestStatus.NOT_PUBLISHED
        was_set_aside = any(check.startswith(SET_ASIDE_CHECK) for check in self.failed_checks)
        judged = {
            name: entries for name, entries in self.metadata.items() if not (was_set_aside and name == "raw_file")
        }
        changed = {name for name, entries in judged.items() if not entries.get("unchanged")}
        if changed - MARTS.keys():
            return IngestStatus.LOADED
        return IngestStatus.MARTS_BUILT if changed else IngestStatus.UNCHANGED

    def _problem(self, status: IngestStatus) -> str:
        if status == IngestStatus.NOT_PUBLISHED:
            return "not published (yet)."
        if self.problems:
            return self.problems[0]
        warning = self.metadata.get("raw_file", {}).get("warning")
        return "; ".join([*self.failed_checks, *([warning] if warning else [])])
