"""Which months need work, and why: the one decision behind sensors, schedules, `taxi ingest` and `taxi status`.

It asks the source, the lake and the warehouse, never Dagster's history, so lost files and tables are noticed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from math import inf

from taxi_platform.ingestion.comparing import must_compare_month
from taxi_platform.ingestion.known_damage import damage_ahead
from taxi_platform.ingestion.marts import marts_in_lake
from taxi_platform.ingestion.month_state import MonthState, Stage
from taxi_platform.ingestion.survey_state import SurveyState
from taxi_platform.lake.base import NEW, Lake
from taxi_platform.lake.manifest import Manifest
from taxi_platform.lake.months import LakeMonth, RawVersion
from taxi_platform.marts.tables import QUALITY, mart_table, mart_version
from taxi_platform.sources.base import Source
from taxi_platform.trips.contract import contract_of
from taxi_platform.trips.errors import LakeBusy, LakeError, SourceRefused, SourceUnavailable, WarehouseLocked
from taxi_platform.trips.months import MONTH, Dataset, DatasetMonth, Month
from taxi_platform.trips.publication import Publication
from taxi_platform.warehouse.base import StoredRows, Warehouse, trips_table

__all__ = ["MonthState", "Stage", "Survey", "ask_always", "ask_missing", "ask_never", "months_in_lake"]

ONE_BY_ONE = 6
"""Up to this many months are looked up in the warehouse one by one; for more, one query over the table is cheaper."""

MONTHS_AT_ONCE = 8
"""Months looked at together. A month costs up to 10 requests to a bucket; Google's client keeps ten connections."""

REQUESTS_AT_ONCE = 4
"""Questions to the source that this process has under way at any time: the TLC's CDN limits the rate per address, and
six parallel downloads have been seen to pass."""

USUAL_LAG = timedelta(days=60)
LONGEST_LAG = timedelta(days=90)
"""From a month's end to its publication: about 50 days in 2023 and 2024, 32 to over 80 in 2026 (Last-Modified)."""

_request_slots = threading.BoundedSemaphore(REQUESTS_AT_ONCE)


Question = Callable[[Month, RawVersion | None], bool]
"""Whether to ask the source about a month, given the current raw file in the lake."""


def ask_always(month: Month, raw: RawVersion | None) -> bool:
    return True


def ask_missing(month: Month, raw: RawVersion | None) -> bool:
    """Ask about months that the lake does not have."""
    return raw is None


def ask_never(month: Month, raw: RawVersion | None) -> bool:
    return False


class Survey:
    """Looks at the months of a dataset, several at once, within `seconds` after it was made.

    A source that does not answer is not asked again, and a locked table is not waited for if `warehouse` comes from
    `for_polling`: months are then judged by the rest. `state` has the answers to earlier ticks, and the daily limit.
    """

    def __init__(
        self,
        source: Source | None,
        lake: Lake,
        warehouse: Warehouse,
        dataset: Dataset,
        reject: Sequence[str] = (),
        state: SurveyState | None = None,
        seconds: float = inf,
    ) -> None:
        self.source, self.lake, self.warehouse, self.dataset = source, lake, warehouse, dataset
        self.reject = contract_of(dataset).own_rules(reject)
        self.state = state
        self.seconds = seconds
        self.source_problem: SourceUnavailable | SourceRefused | None = None
        self.warehouse_problem: WarehouseLocked | None = None
        self.not_reached: list[Month] = []
        """Months that the last `look` did not reach: its time was up, or its caller had enough."""
        self.over_limit: list[Month] = []
        """Months that were not asked about because the day's requests were used up."""
        self._deadline = time.monotonic() + seconds
        self._now = datetime.now(UTC)
        self._in_lake: frozenset[Month] | None = None
        self._table: Future[dict[str, StoredRows]] | None = None
        self._marts: tuple[dict[Month, tuple[str, str]], dict[str, StoredRows]] | None = None

    @property
    def months_in_lake(self) -> frozenset[Month]:
        if self._in_lake is None:
            self._in_lake = frozenset(months_in_lake(self.lake, self.dataset))
        return self._in_lake

    def look(
        self, months: Sequence[Month], ask: Question = ask_always, at_once: int = MONTHS_AT_ONCE
    ) -> Generator[MonthState, None, None]:
        """The months' states in order, each as soon as it is known; ends early when the time is up.

        Damaged files of one month do not affect the others. Raises `LakeBusy` and what the warehouse raises.
        """
        self.not_reached = list(months)
        pool = ThreadPoolExecutor(at_once + 1)  # one more for the table
        try:
            if len(months) > ONE_BY_ONE and self.months_in_lake and self._table is None:
                self._table = pool.submit(self.warehouse.loaded_months, trips_table(self.dataset).name)
            for start in range(0, len(months), at_once):
                if not self._seconds_left():
                    return
                futures = [pool.submit(self._look_at, month, ask) for month in months[start : start + at_once]]
                done, _ = wait(futures, self._timeout())
                for future in futures:
                    if future not in done:
                        return
                    state = self._with_table(future.result())
                    self.not_reached.pop(0)
                    yield state
            self._check_table()
        finally:
            # A request that hangs must not hold up the caller; it ends by its own timeout.
            pool.shutdown(wait=False, cancel_futures=True)

    def _seconds_left(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    def _timeout(self) -> float | None:
        return None if self.seconds == inf else self._seconds_left()

    def _look_at(self, month: Month, ask: Question) -> MonthState:
        """The month in lake and source; runs in a thread of its own."""
        dataset_month = DatasetMonth(self.dataset, month)
        manifest = Manifest((), NEW)
        clean = damage = None
        lake_month = LakeMonth(self.lake, dataset_month)
        if month in self.months_in_lake:
            try:
                manifest = lake_month.manifest()
                if manifest.current:
                    clean = lake_month.footer()
                    damage = lake_month.find_damage(manifest.current, clean)
            except LakeBusy:
                raise
            except LakeError as error:
                return MonthState(dataset_month, reject=self.reject, problem=error)
        raw = manifest.current
        answered, published = self._ask(dataset_month) if ask(month, raw) else (False, None)
        pending = manifest.pending
        if self.state and raw is None and published and pending and pending.raw.is_of(published):
            self.state.note_not_published(month)  # nothing that can be loaded: asked again as rarely
        return MonthState(
            dataset_month,
            manifest.versions,
            clean,
            published=published,
            source_answered=answered,
            reject=self.reject,
            problem=damage_ahead(lake_month, raw, clean, published) if month in self.months_in_lake else None,
            damage=damage,
            compare=bool(published and must_compare_month(manifest, published, self._now)),
            set_aside=pending,
        )

    def _ask(self, dataset_month: DatasetMonth) -> tuple[bool, Publication | None]:
        """Whether the source answered, and what it publishes of the month."""
        if self.source is None:
            return False, None
        if self.state and self.state.was_not_published(dataset_month.month):
            return True, None
        with _request_slots:
            if self.source_problem or not self._seconds_left():
                return False, None
            if self.state and not self.state.take_question():
                self.over_limit.append(dataset_month.month)
                return False, None
            try:
                published = self.source.stat(dataset_month)
            except (SourceUnavailable, SourceRefused) as error:
                self.source_problem = self.source_problem or error
                return False, None
        if published is None and self.state:
            self.state.note_not_published(dataset_month.month)
        return True, published

    def _with_table(self, state: MonthState) -> MonthState:
        """The state with what the table holds of the month, if that can be read without waiting."""
        if state.clean is None:
            return state
        if self.warehouse_problem is None:
            try:
                state = replace(state, loaded=self._loaded_month(state.dataset_month))
                return replace(state, marts_are_current=self._has_marts(state)) if state.loaded else state
            except WarehouseLocked as error:
                self.warehouse_problem = error
        return replace(state, table_was_read=False)

    def _check_table(self) -> None:
        """Raise the warehouse's error even if no month needed the table."""
        if self._table and self.warehouse_problem is None:
            try:
                self._loaded_months()
            except WarehouseLocked as error:
                self.warehouse_problem = error

    def _loaded_month(self, dataset_month: DatasetMonth) -> StoredRows | None:
        if self._table is None:
            return self.warehouse.loaded_month(trips_table(self.dataset).name, dataset_month)
        return self._loaded_months().get(str(dataset_month.month))

    def _has_marts(self, state: MonthState) -> bool:
        """Whether lake and warehouse have the month's marts: one listing and one small query for all months."""
        if self._marts is None:
            in_table = self.warehouse.loaded_months(mart_table(self.dataset, QUALITY).name)
            self._marts = marts_in_lake(self.lake, self.dataset), in_table
        in_lake, in_table = self._marts
        month, version = state.dataset_month.month, state.clean.file_version if state.clean else ""
        stored = in_table.get(str(month))
        is_in_lake = in_lake.get(month) == (version, mart_version(self.dataset))
        return is_in_lake and stored is not None and stored.file_versions == (version,)

    def _loaded_months(self) -> dict[str, StoredRows]:
        assert self._table is not None
        done, _ = wait([self._table], self._timeout())
        if not done:
            raise WarehouseLocked(f"{self.warehouse.url} did not answer within {self.seconds:.0f} s.")
        return self._table.result()


def months_in_lake(lake: Lake, dataset: Dataset) -> list[Month]:
    """The months that ever had a raw file, oldest first; one listing."""
    names = lake.names(f"raw/{dataset}/")
    months = [Month.parse(name) for name in names if MONTH.fullmatch(name)]  # a person may have put a note there
    return sorted(month for month in months if month >= dataset.first_month)


def first_month(dataset: Dataset, since: Month | None, newest: Month) -> Month:
    """The first month to catch up on: TAXI_SINCE, or else the twelfth newest; never before the dataset begins."""
    return max(since or newest.plus(-11), dataset.first_month)


def expected_on(month: Month) -> date:
    """The day about which the TLC publishes a month."""
    return month.plus(1).first_day + USUAL_LAG


def newest_due(today: date) -> Month:
    """The newest month whose publication is overdue if it is missing."""
    return Month.of(today - LONGEST_LAG).plus(-1)
