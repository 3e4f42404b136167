"""What past runs say: what their events report, and which months failed last."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from taxi_platform.assets.attributes import asset_key
from taxi_platform.assets.checks import month_checks
from taxi_platform.assets.names import RETRY_TAG
from taxi_platform.assets.partitions import dataset_months_of
from taxi_platform.trips.errors import TaxiError
from taxi_platform.trips.months import Dataset, DatasetMonth

FAILED = "FAILED"
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
        new = [month for month in dataset_months_of(run) if month.dataset in datasets and month not in latest]
        if new:
            has_failed = run.status == dg.DagsterRunStatus.FAILURE and RETRY_TAG not in run.tags
            failure = _failure_of(instance, run) if has_failed else ""
            latest.update(dict.fromkeys(new, failure))
    return {dataset_month: failure for dataset_month, failure in latest.items() if failure}


def _failure_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    failures = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    logs = instance.all_logs(run.run_id, of_type=failures)
    problems = [problem_of(log.dagster_event) for log in logs if log.dagster_event]
    return next(filter(None, problems), "failed").splitlines()[0]


def failed_checks(
    instance: dg.DagsterInstance, datasets: Sequence[Dataset], limit: int
) -> dict[DatasetMonth, tuple[str, ...]]:
    """The months of which a check did not pass when it was last evaluated, each with the checks and what they say.

    Looks for what they say in the `limit` latest evaluations of each check.
    """
    failed: dict[DatasetMonth, tuple[str, ...]] = {}
    for dataset in datasets:
        months = _months_failing(instance, dataset)
        for key in [key for key in _check_keys(dataset) if key in {check for check, _ in months}]:
            said: dict[str, str] = {}
            for record in instance.event_log_storage.get_asset_check_execution_history(key, limit):
                event = record.event.dagster_event if record.event else None
                if event and event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
                    evaluation = event.asset_check_evaluation_data
                    said.setdefault(str(evaluation.partition), f" {evaluation.description or ''}".rstrip())
            for _, partition in sorted(each for each in months if each[0] == key):
                dataset_month = DatasetMonth.parse(dataset.value, str(partition))
                sentence = f"{key.name} did not pass.{said.get(str(partition), '')}"
                failed[dataset_month] = (*failed.get(dataset_month, ()), sentence.splitlines()[0])
    return failed


def failed_check_counts(instance: dg.DagsterInstance, datasets: Sequence[Dataset]) -> dict[tuple[Dataset, str], int]:
    """By dataset and check: the months of which it did not pass when it was last evaluated."""
    counts = {(dataset, key.name): 0 for dataset in datasets for key in _check_keys(dataset)}
    for dataset in datasets:
        for key, _ in _months_failing(instance, dataset):
            counts[dataset, key.name] += 1
    return counts


def _check_keys(dataset: Dataset) -> list[dg.AssetCheckKey]:
    return [dg.AssetCheckKey(asset_key(dataset, asset), name) for asset, name in month_checks()]


def _months_failing(instance: dg.DagsterInstance, dataset: Dataset) -> set[tuple[dg.AssetCheckKey, str]]:
    """The checks that did not pass when they were last evaluated, each with its month."""
    infos = instance.event_log_storage.get_asset_check_partition_info(_check_keys(dataset))
    failing = [info for info in infos if info.latest_execution_status.value == FAILED]
    return {(info.check_key, info.partition_key) for info in failing if info.partition_key}


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
        return INTERRUPTED if "interrupted" in message else own_error(event) or message
    return ""


def own_error(event: dg.DagsterEvent) -> str:
    """What a `TaxiError` says that Dagster wraps, as where a lake cannot be locked before the first step; or empty."""
    error = getattr(event.event_specific_data, "error", None)
    while error and not error.message.startswith(f"{TaxiError.__module__}."):
        error = error.cause
    return error.message.partition(": ")[2].strip() if error else ""
