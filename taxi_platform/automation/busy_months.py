"""The months that a tick leaves alone: those with a run in progress or queued, and those that failed today."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg

from taxi_platform.assets.names import ASKED_TAG
from taxi_platform.assets.partitions import dataset_months_of
from taxi_platform.runs.dagster_internals import NOT_FINISHED_STATUSES
from taxi_platform.trips.months import Dataset, Month

MAX_RUNS = 2000
"""At most this many runs are read, newest first: three times the months of all datasets."""


@dataclass(frozen=True)
class BusyMonths:
    """The months of one dataset that a tick leaves alone."""

    unfinished: frozenset[Month]
    failed_today: frozenset[Month]

    def __contains__(self, month: Month) -> bool:
        return month in self.unfinished or month in self.failed_today


def day_of(now: datetime) -> str:
    """The day of a tick in UTC, as the tag on the runs that it asks for."""
    return f"{now.astimezone(UTC):%Y-%m-%d}"


def busy_months(instance: dg.DagsterInstance, dataset: Dataset, now: datetime) -> BusyMonths:
    """Two queries for the whole tick. `failed_today` are runs that a schedule or sensor asked for today."""
    unfinished = dg.RunsFilter(statuses=NOT_FINISHED_STATUSES)
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], tags={ASKED_TAG: day_of(now)})
    return BusyMonths(
        _months_of(instance.get_runs(unfinished, limit=MAX_RUNS), dataset),
        _months_of(instance.get_runs(failed, limit=MAX_RUNS), dataset),
    )


def _months_of(runs: Iterable[dg.DagsterRun], dataset: Dataset) -> frozenset[Month]:
    dataset_months = (dataset_month for run in runs for dataset_month in dataset_months_of(run))
    return frozenset(dataset_month.month for dataset_month in dataset_months if dataset_month.dataset == dataset)
