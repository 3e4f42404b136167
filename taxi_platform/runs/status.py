"""`taxi status`: the status of every month of every dataset, as values; the command line draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from typing import Any

import tenacity

from taxi_platform.ingestion.comparing import COMPARE_EVERY
from taxi_platform.ingestion.judging import accept_command
from taxi_platform.ingestion.survey import MONTHS_AT_ONCE, MonthState, Stage, Survey, ask_always, ask_never
from taxi_platform.lake import open_lake
from taxi_platform.lake.base import Lake
from taxi_platform.lake.months import CleanFooter, LakeMonth
from taxi_platform.runs.failures import may_have_failures
from taxi_platform.runs.home import FILE
from taxi_platform.settings import Settings
from taxi_platform.sources import open_source
from taxi_platform.trips.errors import (
    Conflict,
    DamagedFile,
    LakeBusy,
    LakeError,
    SourceRefused,
    SourceUnavailable,
    WarehouseLocked,
)
from taxi_platform.trips.months import Dataset, DatasetMonth, Month
from taxi_platform.warehouse import open_warehouse
from taxi_platform.warehouse.base import StoredRows, rejected_table

__all__ = [
    "COMPARE_EVERY",
    "MonthStatus",
    "Stage",
    "Status",
    "by_year",
    "status",
    "what_failed",
]

LISTED = ("raw", "clean", "rejected", "reports", "checksums")
"""The folders of a lake with what is looked at of every month."""

ASKED_MONTHS = 3
"""The source is asked about this many of the newest months; what it published of the others is in the manifests."""
SEARCHED_RUNS = 2000
"""This many of the latest runs are searched for failures."""


@dataclass(frozen=True)
class MonthStatus:
    """One month: `bytes` is all that the lake holds of it but its marts, which are small, and `problem` the first line
    of its last run's failure.

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
    set_aside: str | None = None
    """Why the source's version looks wrong and was set aside, and the command that accepts it."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Status:
    """All months, and what kept the survey from asking the source or reading the tables, if anything did.

    `weak` lists the months whose server sent neither ETag nor Last-Modified, see `ingestion/comparing.py`.
    """

    months: list[MonthStatus] = field(default_factory=list)
    weak: list[DatasetMonth] = field(default_factory=list)
    failed_checks: Mapping[DatasetMonth, Sequence[str]] = field(default_factory=dict)
    source_problem: SourceUnavailable | SourceRefused | None = None
    warehouse_problem: WarehouseLocked | None = None


def status(
    settings: Settings,
    newest: Month,
    failures: Mapping[DatasetMonth, str],
    ask_all: bool = False,
    ask_source: bool = True,
) -> Status:
    """Survey every month that can exist. Creates neither a lake nor a database, and waits for no lock.

    The source is asked about the newest months, about all, or about none. `failures` has the reason why the last run
    of a month failed. Raises what lake and warehouse raise.
    """
    # A person is waiting: the source is tried once, and after a failure not asked about the other datasets.
    source = open_source(settings.source_url, settings.datasets).for_polling(lambda: None)
    lake, warehouse = open_lake(settings.lake_url), open_warehouse(settings.warehouse_url).for_polling()
    overview = Status()
    for dataset in settings.datasets:
        listed, asked = _listed(lake, dataset), source if ask_source and not overview.source_problem else None
        survey = Survey(asked, listed, warehouse, dataset, settings.reject)
        again = Survey(None, lake, warehouse, dataset, settings.reject)
        states = _without_false_damage(_states(survey, newest, ask_all), again)
        overview.source_problem = overview.source_problem or survey.source_problem
        rejected: dict[str, StoredRows] = {}
        if any(state.loaded for state in states):
            try:
                rejected = warehouse.loaded_months(rejected_table(dataset).name)
            except WarehouseLocked as error:
                survey.warehouse_problem = error
        overview.warehouse_problem = overview.warehouse_problem or survey.warehouse_problem
        describe = _Describer(survey, lake, rejected, failures)
        with ThreadPoolExecutor(MONTHS_AT_ONCE) as pool:
            overview.months += pool.map(describe.month, states)
        overview.weak += [state.dataset_month for state in states if state.raw and state.raw.publication.is_weak]
    return overview


def _listed(lake: Lake, dataset: Dataset) -> Lake:
    """The lake, with the dataset's objects listed rather than asked for one by one; as it is where that fails."""
    try:
        return lake.listed([f"{kind}/{dataset}/" for kind in LISTED])
    except LakeBusy:
        raise
    except LakeError:  # a folder that cannot be read belongs to one month, which says so
        return lake


def _without_false_damage(states: Sequence[MonthState], survey: Survey) -> list[MonthState]:
    """The states; those of damaged months are seen again by `survey`: a run may have replaced what was listed."""
    damaged = [state for state in states if state.damage or isinstance(state.problem, LakeError)]
    now = survey.look([state.dataset_month.month for state in damaged], ask_never)
    seen_again = {
        state.dataset_month: replace(
            new, published=state.published, source_answered=state.source_answered, compare=state.compare
        )
        for state, new in zip(damaged, now, strict=True)
    }
    return [seen_again.get(state.dataset_month, state) for state in states]


def _states(survey: Survey, newest: Month, ask_all: bool) -> list[MonthState]:
    """All months of the survey's dataset, oldest first; a sample month may be newer than `newest`."""
    months = list(survey.dataset.first_month.until(max([newest, *survey.months_in_lake])))
    asked = [month for month in reversed(months) if ask_all or newest.plus(-ASKED_MONTHS) < month <= newest]
    others = [month for month in months if month not in asked]
    states = list(survey.look(others, ask_never))
    # A few questions are asked one by one, so that a source that is down is asked only once.
    states += survey.look(asked, ask_always, MONTHS_AT_ONCE if ask_all else 1)
    return sorted(states, key=lambda state: state.dataset_month)


@dataclass(frozen=True)
class _Describer:
    """Turns the states of a dataset's months into the status of each, with sizes and counts for people."""

    survey: Survey
    lake: Lake
    """The survey's, not listed."""
    rejected: Mapping[str, StoredRows]
    failures: Mapping[DatasetMonth, str]

    def month(self, state: MonthState) -> MonthStatus:
        entry = state.set_aside
        set_aside = f"{entry.why} If it is right: {accept_command(entry, state.dataset_month)}" if entry else None
        try:
            with suppress(LakeError, Conflict):
                return replace(self._month(state, self.survey.lake, state.clean), set_aside=set_aside)
            return replace(self._month_now(state), set_aside=set_aside)
        except LakeBusy:
            raise
        except LakeError as error:
            dataset_month = state.dataset_month
            stage = Stage.DAMAGED if isinstance(error, DamagedFile) else Stage.FAILED
            return MonthStatus(dataset_month.dataset.value, str(dataset_month.month), stage, problem=str(error))

    # Three times, because a run may replace a file between being listed and being read.
    @tenacity.retry(retry=tenacity.retry_if_exception_type(Conflict), stop=tenacity.stop_after_attempt(3), reraise=True)
    def _month_now(self, state: MonthState) -> MonthStatus:
        footer = LakeMonth(self.lake, state.dataset_month).footer() if state.clean else None
        return self._month(state, self.lake, footer)

    def _month(self, state: MonthState, lake: Lake, clean: CleanFooter | None) -> MonthStatus:
        dataset, month = state.dataset_month.dataset.value, str(state.dataset_month.month)
        lake_month = LakeMonth(lake, state.dataset_month)
        stage, problem = self._stage(state)
        # A restored file is listed twice and stored once.
        size = sum({version.key: version.size for version in state.versions}.values())
        if clean is None:
            return MonthStatus(dataset, month, stage, bytes=size, raw_versions=len(state.versions), problem=problem)
        version = clean.file_version
        side_files = [lake.stat(key) for key in lake_month.side_keys_of(version)]
        size += clean.size + sum(side_file.size for side_file in side_files if side_file)
        rejected = None if state.damage else self._rows_rejected(state, lake_month, version)
        return MonthStatus(dataset, month, stage, clean.rows, rejected, size, len(state.versions), version, problem)

    def _stage(self, state: MonthState) -> tuple[Stage, str | None]:
        """The month's stage, and why its last run failed if it still needs work."""
        if state.problem or state.damage:
            return state.stage, str(state.problem or state.damage)
        failure = self.failures.get(state.dataset_month)
        if failure and state.stage not in (Stage.LOADED, Stage.NOT_PUBLISHED, Stage.SET_ASIDE):
            return Stage.FAILED, failure
        return state.stage, None

    def _rows_rejected(self, state: MonthState, lake_month: LakeMonth, file_version: str) -> int | None:
        """The table's count if it holds this version, else the report's."""
        month = str(state.dataset_month.month)
        if state.loaded and state.loaded.file_versions == (file_version,) and not self.survey.warehouse_problem:
            return self.rejected[month].rows if month in self.rejected else 0
        report = lake_month.report(file_version)
        return report.rows_rejected if report else None


def what_failed(settings: Settings) -> tuple[dict[DatasetMonth, str], dict[DatasetMonth, tuple[str, ...]]]:
    """The months whose latest run failed, each with the failure; and those of which a check did not pass, each with
    what it said. Both are empty if Dagster has no home yet.
    """
    home = settings.dagster_home
    if not (home / FILE).exists() or not may_have_failures(home):
        return {}, {}
    from taxi_platform.runs.history import failed_checks, latest_failures
    from taxi_platform.runs.instance import open_instance

    with open_instance(settings) as instance:
        failures = latest_failures(instance, settings.datasets, SEARCHED_RUNS)
        return failures, failed_checks(instance, settings.datasets, SEARCHED_RUNS)


def by_year(months: Sequence[MonthStatus]) -> list[tuple[str, list[MonthStatus]]]:
    """A dataset's months by year; neighbouring years of which nothing is known become one entry, `2009–2018`."""
    lines: list[tuple[str, list[MonthStatus]]] = []
    for year, group in groupby(months, key=lambda month: month.month[:4]):
        of_year = list(group)
        is_known = any(month.stage != Stage.UNKNOWN or month.raw_versions for month in of_year)
        known = of_year if is_known else []
        if lines and not known and not lines[-1][1]:
            lines[-1] = (f"{lines[-1][0][:4]}–{year}", [])
        else:
            lines.append((year, known))
    return lines
