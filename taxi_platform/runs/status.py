"""`taxi status`: what is known of every month of every dataset, as values; the command line draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from itertools import groupby
from typing import Any

import tenacity

from taxi_platform.ingestion.survey import MonthState, Reason, months_in_lake
from taxi_platform.lake import open_lake
from taxi_platform.lake.base import Lake
from taxi_platform.lake.months import LakeMonth
from taxi_platform.settings import Settings
from taxi_platform.sources import open_source
from taxi_platform.sources.base import Source
from taxi_platform.trips.contract import contract_of
from taxi_platform.trips.errors import Conflict, LakeBusy, LakeError, SourceRefused, SourceUnavailable
from taxi_platform.trips.months import Dataset, DatasetMonth, Month
from taxi_platform.trips.publication import Publication
from taxi_platform.warehouse import open_warehouse
from taxi_platform.warehouse.base import StoredRows, rejected_table, trips_table

ASKED = 3
"""Of the newest months the source is asked; of the others the manifest tells what was published."""
RUNS = 2000
"""So many of the latest runs are looked through for failures."""
THREADS = 8
"""Months looked at together. A month costs seven requests to a bucket; Google's client keeps ten connections."""


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
    """One month: `bytes` is all that the lake holds of it, `problem` the first line of its last run's failure.

    `rows` and `rows_rejected` belong to `file_version`, the clean file's; all three are None where there is none.
    """

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
    """All months, and why the source could not be asked further, if it could not."""

    months: list[MonthStatus] = field(default_factory=list)
    source_problem: SourceUnavailable | SourceRefused | None = None


@dataclass(frozen=True)
class _Known:
    """What is asked once for all months of a dataset; the lake is then looked at month by month.

    `answers` are the source's, for the months it was asked about: None for not published.
    """

    lake: Lake
    reject: tuple[str, ...]
    kept: Sequence[Month]
    answers: Mapping[Month, Publication | None]
    loaded: Mapping[str, StoredRows]
    rejected: Mapping[str, StoredRows]
    failures: Mapping[DatasetMonth, str]

    def look(self, dataset_month: DatasetMonth) -> MonthStatus:
        try:
            return self._look(dataset_month)
        except LakeBusy:
            raise
        except LakeError as error:
            return MonthStatus(dataset_month.dataset.value, str(dataset_month.month), Stage.FAILED, problem=str(error))

    # Three times, because a run may replace a file between its being found and its being read.
    @tenacity.retry(retry=tenacity.retry_if_exception_type(Conflict), stop=tenacity.stop_after_attempt(3), reraise=True)
    def _look(self, dataset_month: DatasetMonth) -> MonthStatus:
        dataset, month = dataset_month.dataset.value, str(dataset_month.month)
        kept = LakeMonth(self.lake, dataset_month)
        versions = kept.versions()[0] if dataset_month.month in self.kept else []
        raw, clean = (versions[-1], kept.footer()) if versions else (None, None)
        published = self.answers.get(dataset_month.month)
        state = MonthState(dataset_month, published, raw, clean, self.loaded.get(month), self.reject)
        stage, failure = self._stage(state)
        size = sum({version.key: version.size for version in versions}.values())  # going back lists a file twice
        if clean is None:
            return MonthStatus(dataset, month, stage, bytes=size, raw_versions=len(versions), problem=failure)
        version = clean.file_version
        side_files = (kept.rejected_key(version), kept.report_key(version))
        size += clean.size + sum(found.size for key in side_files if (found := self.lake.stat(key)))
        rejected = self._rows_rejected(kept, version)
        return MonthStatus(dataset, month, stage, clean.rows, rejected, size, len(versions), version, failure)

    def _stage(self, state: MonthState) -> tuple[Stage, str | None]:
        """How far the month has come, and why its last run failed if it still needs work."""
        stage = _stage(state, state.dataset_month.month in self.answers)
        failure = self.failures.get(state.dataset_month)
        if failure and stage not in (Stage.LOADED, Stage.NOT_PUBLISHED):
            return Stage.FAILED, failure
        return stage, None

    def _rows_rejected(self, kept: LakeMonth, file_version: str) -> int | None:
        """The table's count where it holds this version, else the report's."""
        month = str(kept.dataset_month.month)
        if month in self.loaded and self.loaded[month].file_versions == (file_version,):
            return self.rejected[month].rows if month in self.rejected else 0
        report = kept.report(file_version)
        return report.rows_rejected if report else None


def status(settings: Settings, newest: Month, failures: Mapping[DatasetMonth, str], ask_all: bool = False) -> Status:
    """Look at every month there can be; makes nothing, neither a lake nor a database.

    `failures` tells why the last run of a month failed. Raises what lake and warehouse raise.
    """
    # Somebody waits for the picture: the source is tried once, and after a failure asked about no dataset any more.
    source, found = open_source(settings.source_url, settings.datasets).for_polling(lambda: None), Status()
    lake, warehouse = open_lake(settings.lake_url), open_warehouse(settings.warehouse_url)
    with ThreadPoolExecutor(THREADS) as pool:
        for dataset in settings.datasets:
            kept = months_in_lake(lake, dataset)
            months = list(dataset.first_month.until(max([newest, *kept])))  # a sample month may be newer
            asked = [month for month in months if ask_all or newest.plus(-ASKED) < month <= newest]
            loaded = warehouse.loaded_months(trips_table(dataset).name) if kept else {}
            rejected = warehouse.loaded_months(rejected_table(dataset).name) if loaded else {}
            answers = _ask(source, dataset, asked, found)
            reject = contract_of(dataset).check_rules(settings.reject)
            known = _Known(lake, reject, kept, answers, loaded, rejected, failures)
            found.months += pool.map(known.look, [DatasetMonth(dataset, month) for month in months])
    return found


def _ask(source: Source, dataset: Dataset, months: Sequence[Month], found: Status) -> dict[Month, Publication | None]:
    """What the source says of these months, newest first, until it fails; notes that, and is then not asked again."""
    answers: dict[Month, Publication | None] = {}
    for month in reversed(months):
        if found.source_problem:
            break
        try:
            answers[month] = source.stat(DatasetMonth(dataset, month))
        except (SourceUnavailable, SourceRefused) as error:
            found.source_problem = error
    return answers


def _stage(state: MonthState, asked: bool) -> Stage:
    if state.raw is None and state.published is None:
        return Stage.NOT_PUBLISHED if asked else Stage.UNKNOWN
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


def failed_months(settings: Settings) -> dict[DatasetMonth, str]:
    """The months whose latest run failed, and what it said; empty where Dagster has no home yet."""
    if not (settings.dagster_home / "dagster.yaml").exists():
        return {}
    from taxi_platform.runs.history import latest_failures
    from taxi_platform.runs.instance import open_instance

    with open_instance(settings) as instance:
        return latest_failures(instance, settings.datasets, RUNS)


def by_year(months: Sequence[MonthStatus]) -> list[tuple[str, list[MonthStatus]]]:
    """A dataset's months by year; neighbouring years of which nothing is known are one, `2009–2018`, without months."""
    lines: list[tuple[str, list[MonthStatus]]] = []
    for year, group in groupby(months, key=lambda month: month.month[:4]):
        of_year = list(group)
        known = of_year if any(month.stage != Stage.UNKNOWN for month in of_year) else []
        if lines and not known and not lines[-1][1]:
            lines[-1] = (f"{lines[-1][0][:4]}–{year}", [])
        else:
            lines.append((year, known))
    return lines
