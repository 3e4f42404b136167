"""`taxi status`: what is known of every month of every dataset, as values; the command line draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from taxi_platform.automation.decision import MonthState, Reason, Survey, months_in_lake
from taxi_platform.lake import open_lake
from taxi_platform.lake.base import Lake
from taxi_platform.lake.months import MonthInLake
from taxi_platform.settings import Settings
from taxi_platform.sources import open_source
from taxi_platform.trips.errors import SourceUnavailable
from taxi_platform.trips.months import Month, Partition
from taxi_platform.warehouse import open_warehouse
from taxi_platform.warehouse.base import rejected_table

ASKED = 3
"""Of the newest months the source is asked; of the others the manifest tells what was published."""
RUNS = 2000
"""So many of the latest runs are looked through for failures."""


class Stage(StrEnum):
    """How far a month has come."""

    LOADED = "loaded"
    NOT_LOADED = "not loaded"
    RAW = "raw"
    OUTDATED = "outdated"
    REPUBLISHED = "republished"
    FAILED = "failed"
    PUBLISHED = "published"
    NOT_PUBLISHED = "not published"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class MonthStatus:
    """One month: `bytes` is all that the lake holds of it, `problem` the first line of its last run's failure."""

    dataset: str
    month: str
    stage: Stage
    rows: int | None = None
    rows_rejected: int | None = None
    bytes: int = 0
    raw_versions: int = 0
    file_version: str | None = None
    problem: str | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Status:
    """All months, and why the source could not be asked, if it could not."""

    months: list[MonthStatus] = field(default_factory=list)
    source_problem: SourceUnavailable | None = None


def status(settings: Settings, newest: Month, failures: Mapping[Partition, str], ask_all: bool = False) -> Status:
    """Look at every month there can be; makes nothing, neither a lake nor a database.

    `failures` tells why the last run of a month failed. Raises what lake and warehouse raise.
    """
    source, found = open_source(settings.source_url, settings.datasets), Status()
    lake, warehouse = open_lake(settings.lake_url), open_warehouse(settings.warehouse_url)
    for dataset in settings.datasets:
        survey = Survey(source, lake, warehouse, dataset, settings.reject)
        kept = months_in_lake(lake, dataset)
        rejected = warehouse.loaded_months(rejected_table(dataset).name) if kept else {}
        months = list(dataset.first_month.until(newest))
        asked = months if ask_all else months[-ASKED:]
        looked_at = [
            *survey.look([month for month in kept if month not in asked], ask_kept=False),
            *survey.look(asked),
        ]
        states = {state.partition.month: state for state in looked_at}
        for month in months:
            rows_rejected = rejected[str(month)].rows if str(month) in rejected else 0
            failure = failures.get(Partition(dataset, month))
            found.months.append(
                _month_status(lake, states[month], survey, rows_rejected, failure)
                if month in states
                else MonthStatus(dataset, str(month), Stage.FAILED if failure else Stage.UNKNOWN, problem=failure)
            )
        found.source_problem = found.source_problem or survey.problem
    return found


def _month_status(
    lake: Lake, state: MonthState, survey: Survey, rows_rejected: int, failure: str | None
) -> MonthStatus:
    partition = state.partition
    dataset, month = partition.dataset.value, str(partition.month)
    stage = _stage(state, survey)
    if failure and stage != Stage.LOADED:
        stage = Stage.FAILED
    else:
        failure = None
    if state.raw is None:
        return MonthStatus(dataset, month, stage, problem=failure)
    kept = MonthInLake(lake, partition)
    versions, _ = kept.versions()
    size = sum(version.size for version in versions)
    if state.clean:
        side_files = (kept.rejected_key(state.clean.file_version), kept.report_key(state.clean.file_version))
        size += state.clean.size + sum(found.size for key in side_files if (found := lake.stat(key)))
    rows, file_version = (state.clean.rows, state.clean.file_version) if state.clean else (None, None)
    return MonthStatus(dataset, month, stage, rows, rows_rejected, size, len(versions), file_version, failure)


def _stage(state: MonthState, survey: Survey) -> Stage:
    if state.raw is None and state.published is None:
        return Stage.UNKNOWN if survey.problem else Stage.NOT_PUBLISHED
    if state.reason == Reason.OUTDATED and state.clean is None:
        return Stage.RAW
    stages = {
        None: Stage.LOADED,
        Reason.MISSING: Stage.PUBLISHED,
        Reason.REPUBLISHED: Stage.REPUBLISHED,
        Reason.OUTDATED: Stage.OUTDATED,
        Reason.NOT_LOADED: Stage.NOT_LOADED,
    }
    return stages[state.reason]


def failed_months(settings: Settings) -> dict[Partition, str]:
    """The months whose latest run failed, and what it said; empty where Dagster has no home yet."""
    if not (settings.dagster_home / "dagster.yaml").exists():
        return {}
    from taxi_platform.automation.runs import open_instance, what_failed

    with open_instance(settings) as instance:
        return what_failed(instance, settings.datasets, RUNS)


def folded(months: Sequence[MonthStatus]) -> dict[int, list[MonthStatus]]:
    """The months by year, without the years of which nothing is known."""
    years: dict[int, list[MonthStatus]] = {}
    for month in months:
        years.setdefault(int(month.month[:4]), []).append(month)
    return {year: found for year, found in years.items() if any(month.stage != Stage.UNKNOWN for month in found)}
