"""Metrics of the months: the survey behind `taxi status`, without a question to the source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, time

import dagster as dg

from taxi_platform.ingestion.survey import first_month, newest_due
from taxi_platform.ingestion.survey_state import SurveyState, source_name
from taxi_platform.runs.history import latest_failures
from taxi_platform.runs.status import SEARCHED_RUNS, MonthStatus, Stage, status
from taxi_platform.settings import Settings
from taxi_platform.trips.months import Dataset, Month, newest_month
from taxi_platform.ui.metric_sources import Age, Sample

MISSING = "missing"
BY_THE_SOURCE = (Stage.PUBLISHED, Stage.NOT_PUBLISHED, Stage.REPUBLISHED)
"""Stages that only the source's answer tells, which is not asked here."""
STATES = [*(stage.value for stage in Stage if stage not in (Stage.UNKNOWN, *BY_THE_SOURCE)), MISSING]
"""The values of the label `state`."""
IN_TABLES = (Stage.LOADED, Stage.MARTS_DUE, Stage.SET_ASIDE)
"""The stages of a month that is loaded; one with a newer version set aside is, if it has a clean file."""


def month_samples(settings: Settings, instance: dg.DagsterInstance) -> list[Sample]:
    """Raises `WarehouseLocked` where a load keeps the tables from being read, and what lake and warehouse raise."""
    now = datetime.now(UTC)
    failures = latest_failures(instance, settings.datasets, SEARCHED_RUNS)
    found = status(settings, newest_month(now.date()), failures, ask_source=False)
    if found.warehouse_problem:
        raise found.warehouse_problem
    return [
        sample
        for dataset in settings.datasets
        for sample in _of_dataset(dataset, [month for month in found.months if month.dataset == dataset], settings, now)
    ]


def _of_dataset(dataset: Dataset, months: Sequence[MonthStatus], settings: Settings, now: datetime) -> Iterator[Sample]:
    states = Counter(month.stage.value for month in months)
    states[MISSING] = sum(1 for _ in _missing(dataset, months, settings, now))
    for state in STATES:
        yield Sample("months", (dataset.value, state), states[state])
    clean, rejected = sum(month.rows or 0 for month in months), sum(month.rows_rejected or 0 for month in months)
    yield Sample("lake_rows", (dataset.value, "clean"), clean)
    yield Sample("lake_rows", (dataset.value, "rejected"), rejected)
    yield Sample("lake_bytes", (dataset.value,), sum(month.bytes for month in months))
    if clean + rejected:
        yield Sample("rejected_ratio", (dataset.value,), rejected / (clean + rejected))
    newest = max((month for month in months if month.stage in IN_TABLES and month.rows), key=_month, default=None)
    if newest and newest.rows:
        end = datetime.combine(Month.parse(newest.month).plus(1).first_day, time(), UTC)
        yield Sample("newest_month_age_seconds", (dataset.value,), Age(end.timestamp()))
        share = (newest.rows_rejected or 0) / (newest.rows + (newest.rows_rejected or 0))
        yield Sample("newest_month_rejected_ratio", (dataset.value,), share)


def _month(month: MonthStatus) -> str:
    return month.month


def _missing(
    dataset: Dataset, months: Sequence[MonthStatus], settings: Settings, now: datetime
) -> Iterator[MonthStatus]:
    """The months that should be loaded, as TAXI_SINCE says, and are not in the lake, long after their publication.

    Not those that the source said it has not published, when a schedule or sensor last asked.
    """
    last = newest_due(now.date())
    first = first_month(dataset, settings.since, last)
    answers = SurveyState(settings.home, dataset, source_name(settings.source_url), now)
    for month in months:
        is_absent = month.stage == Stage.UNKNOWN and not month.raw_versions
        is_expected = str(first) <= month.month <= str(last)
        if is_absent and is_expected and not answers.was_not_published(Month.parse(month.month)):
            yield month
