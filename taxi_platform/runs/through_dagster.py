"""Months queued on the instance, executed by whatever its run launcher uses, and followed from here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import dagster as dg

from taxi_platform.assets.names import RETRY_TAG
from taxi_platform.runs.heartbeats import silent_parts
from taxi_platform.runs.ingest import IngestOptions, RunRecord, create_run, month_job
from taxi_platform.runs.instance import open_instance
from taxi_platform.runs.many_months import silence_loggers
from taxi_platform.runs.result import IngestStatus, MonthResult
from taxi_platform.runs.retries import waits_for_retry
from taxi_platform.settings import Settings
from taxi_platform.trips.months import DatasetMonth

LOOK_SECONDS = 1.0
DAEMON = "QUEUED_RUN_COORDINATOR"


def ingest_through_dagster(
    settings: Settings,
    definitions: Callable[[], dg.Definitions],
    dataset_months: Sequence[DatasetMonth],
    options: IngestOptions,
    say: Callable[[str], None],
) -> Iterator[MonthResult]:
    """Queue every month's job and yield each result as it comes, of the last run where Dagster ran it again.

    An interruption stops following, not the runs: the months that are left are yielded as `queued`.
    """
    silence_loggers()
    with open_instance(settings) as instance:
        built = definitions()
        if DAEMON in silent_parts(instance):
            say("No daemon runs on this instance: the months wait in its queue until taxi dev or taxi serve runs.")
        followed: dict[DatasetMonth, str] = {}
        try:
            for dataset_month in dataset_months:
                job = month_job(built, dataset_month, options)
                run = create_run(instance, job, dataset_month, options, for_daemon=True)
                instance.submit_run(run.run_id, None)  # type: ignore[arg-type]  # Dagster's queue needs no workspace
                followed[dataset_month] = run.run_id
            yield from _follow(instance, followed)
        except KeyboardInterrupt:
            say("The runs go on; they can be canceled in the UI. taxi status shows what became of them.")
            for dataset_month, run_id in followed.items():
                yield MonthResult(dataset_month, IngestStatus.QUEUED, run_id=run_id)


def _follow(instance: dg.DagsterInstance, followed: dict[DatasetMonth, str]) -> Iterator[MonthResult]:
    """Yield the result of each month and remove it from `followed`, until that is empty."""
    while followed:
        months = {run_id: dataset_month for dataset_month, run_id in followed.items()}
        for record in instance.get_run_records(dg.RunsFilter(run_ids=list(months))):
            run, dataset_month = record.dagster_run, months[record.dagster_run.run_id]
            if not run.is_finished:
                continue
            if again := run.tags.get(RETRY_TAG):
                followed[dataset_month] = again
            elif not waits_for_retry(instance, run):
                del followed[dataset_month]
                seconds = (record.end_time or 0) - (record.start_time or record.end_time or 0)
                yield _result(instance, run, dataset_month, seconds)
        time.sleep(LOOK_SECONDS if followed else 0)


def _result(
    instance: dg.DagsterInstance, run: dg.DagsterRun, dataset_month: DatasetMonth, seconds: float
) -> MonthResult:
    if run.status == dg.DagsterRunStatus.CANCELED:
        return MonthResult(
            dataset_month, IngestStatus.INTERRUPTED, seconds, run_id=run.run_id, problem="Canceled in the UI."
        )
    outcome = RunRecord()
    for entry in instance.all_logs(run.run_id):
        if entry.dagster_event:
            outcome.add(entry.dagster_event)
    return outcome.result(dataset_month, run.run_id, seconds)
