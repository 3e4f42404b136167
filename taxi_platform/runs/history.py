"""What past runs say: what their events report, and which months failed last."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from taxi_platform.assets.names import RETRY_TAG
from taxi_platform.assets.partitions import dataset_months_of
from taxi_platform.trips.months import Dataset, DatasetMonth

INTERRUPTED = "Interrupted."
INTERRUPTIONS = ("DagsterExecutionInterruptedError", "KeyboardInterrupt")
"""The names of the errors that a step or run fails with when its process is interrupted."""


def latest_failures(instance: dg.DagsterInstance, datasets: Sequence[Dataset], limit: int) -> dict[DatasetMonth, str]:
    """The months whose latest run failed, each with the first line of the failure; looks at the `limit` latest runs.

    A killed run that Dagster runs again says nothing: the retry does.
    """
    latest: dict[DatasetMonth, str] = {}
    ended = dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE])
    for run in instance.get_runs(ended, limit=limit):
        if RETRY_TAG in run.tags:
            continue
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
