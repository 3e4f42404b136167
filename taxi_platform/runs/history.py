"""What past runs say: which months a run is about, what its events report, and which months failed last."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from taxi_platform.assets.names import PARTITION_TAG, RANGE_END_TAG, RANGE_START_TAG
from taxi_platform.trips.errors import UserError
from taxi_platform.trips.months import Dataset, DatasetMonth, Month

INTERRUPTED = "Interrupted."
INTERRUPTIONS = ("DagsterExecutionInterruptedError", "KeyboardInterrupt")
"""The names of the errors that a step or run fails with when its process is interrupted."""


def datasets_of(run: dg.DagsterRun) -> list[Dataset]:
    """The datasets that a run ingests: that of its job, or those of the assets that were selected in the UI."""
    names = {run.job_name.removesuffix("_ingest"), *(key.path[0] for key in run.asset_selection or ())}
    return [dataset for dataset in Dataset if dataset.value in names]


def dataset_months_of(run: dg.DagsterRun) -> list[DatasetMonth]:
    """The datasets and months that a run ingests, by dataset, then month; empty for a run that ingests none.

    A run has one partition. Backfills that earlier versions started have a range instead, mostly of a single month.
    """
    first = run.tags.get(PARTITION_TAG) or run.tags.get(RANGE_START_TAG)
    last = run.tags.get(PARTITION_TAG) or run.tags.get(RANGE_END_TAG)
    if not first or not last:
        return []
    try:
        months = list(Month.parse(first).until(Month.parse(last)))
    except UserError:  # a run of another code location, with partitions of its own
        return []
    return [
        DatasetMonth(dataset, month) for dataset in datasets_of(run) for month in months if month >= dataset.first_month
    ]


def latest_failures(instance: dg.DagsterInstance, datasets: Sequence[Dataset], limit: int) -> dict[DatasetMonth, str]:
    """The months whose latest run failed, each with the first line of the failure; looks at the `limit` latest runs."""
    latest: dict[DatasetMonth, str] = {}
    ended = dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE])
    for run in instance.get_runs(ended, limit=limit):
        new = [month for month in dataset_months_of(run) if month.dataset in datasets and month not in latest]
        if new:
            failure = _failure_of(instance, run) if run.status == dg.DagsterRunStatus.FAILURE else ""
            latest.update(dict.fromkeys(new, failure))
    return {dataset_month: failure for dataset_month, failure in latest.items() if failure}


def _failure_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    failures = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    logs = instance.all_logs(run.run_id, of_type=failures)
    problems = [problem_of(log.dagster_event) for log in logs if log.dagster_event]
    return next(filter(None, problems), "failed").splitlines()[0]


def problem_of(event: dg.DagsterEvent) -> str:
    """What a failed step or run reports; `INTERRUPTED` for an interruption, empty for any other event."""
    if event.is_step_failure:
        failure = event.step_failure_data
        if failure.error and failure.error.cls_name in INTERRUPTIONS:
            return INTERRUPTED
        described = failure.user_failure_data.description if failure.user_failure_data else None
        return described or (failure.error.message.strip() if failure.error else "") or "failed"
    if event.event_type == dg.DagsterEventType.RUN_FAILURE:
        message = event.message or "failed"
        return INTERRUPTED if "interrupted" in message else message
    return ""
