"""Which months need work, and why: the one decision behind sensors, schedules, `taxi ingest` and `taxi status`.

It asks the source, the lake and the warehouse, never Dagster's history: what was lost there is found missing here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum

from taxi_platform.lake.base import Lake
from taxi_platform.lake.months import CleanFooter, LakeMonth, RawVersion
from taxi_platform.sources.base import Source
from taxi_platform.trips.contract import contract_of
from taxi_platform.trips.errors import LakeBusy, LakeError, SourceRefused, SourceUnavailable
from taxi_platform.trips.months import MONTH, Dataset, DatasetMonth, Month
from taxi_platform.trips.publication import Publication
from taxi_platform.warehouse.base import StoredRows, Warehouse, trips_table

ONE_BY_ONE = 6
"""So many months are asked of the warehouse one by one; for more, one query over the table is cheaper."""

USUAL_LAG = timedelta(days=60)
LONGEST_LAG = timedelta(days=90)
"""From a month's end to its publication: about 50 days in 2023 and 2024, 32 to over 80 in 2026 (Last-Modified)."""


class Reason(StrEnum):
    """Why a month needs work."""

    MISSING = "missing"
    REPUBLISHED = "republished"
    OUTDATED = "outdated"
    NOT_LOADED = "not loaded"


@dataclass(frozen=True)
class MonthState:
    """One month in source, lake and warehouse. `published` is None where it is not, or where nobody was asked."""

    dataset_month: DatasetMonth
    published: Publication | None
    raw: RawVersion | None
    clean: CleanFooter | None
    loaded: StoredRows | None
    reject: tuple[str, ...] = ()
    problem: LakeError | None = None
    """Why nobody can tell what the lake holds of it."""

    @property
    def file_version(self) -> str | None:
        """The version that the kept raw file has when it is cleaned today."""
        return contract_of(self.dataset_month.dataset).file_version(self.raw.sha256, self.reject) if self.raw else None

    @property
    def reason(self) -> Reason | None:
        """Why the month needs work; None where it does not, or where there is nothing to work on."""
        if self.problem:
            return None
        if self.raw is None:
            return Reason.MISSING if self.published else None
        if self.published and not self.raw.is_of(self.published):
            return Reason.REPUBLISHED
        if self.clean is None or self.clean.file_version != self.file_version:
            return Reason.OUTDATED
        expected = StoredRows(self.clean.rows, (self.clean.file_version,)) if self.clean.rows else None
        return None if self.loaded == expected else Reason.NOT_LOADED


class Survey:
    """Looks at months. A source that does not answer is asked no more; the lake's months are judged without it."""

    def __init__(
        self, source: Source | None, lake: Lake, warehouse: Warehouse, dataset: Dataset, reject: Sequence[str] = ()
    ) -> None:
        self.source, self.lake, self.warehouse, self.dataset = source, lake, warehouse, dataset
        self.reject = contract_of(dataset).check_rules(reject)
        self.problem: SourceUnavailable | SourceRefused | None = None
        self._loaded: dict[str, StoredRows] | None = None

    def look(self, months: Sequence[Month], ask_kept: bool = True) -> Iterator[MonthState]:
        """The months' states, in order, each as it is found; `ask_kept` asks the source for those in the lake too."""
        if len(months) > ONE_BY_ONE and self._loaded is None:
            self._loaded = self.warehouse.loaded_months(self._table)
        for month in months:
            dataset_month = DatasetMonth(self.dataset, month)
            kept = LakeMonth(self.lake, dataset_month)
            try:
                raw = kept.current_raw()
                clean = kept.footer() if raw else None
            except LakeBusy:
                raise
            except LakeError as error:  # one month's trouble must not hold up the others
                yield MonthState(dataset_month, None, None, None, None, self.reject, error)
                continue
            published = self._ask(dataset_month) if raw is None or ask_kept else None
            loaded = self._loaded_month(dataset_month) if clean else None
            yield MonthState(dataset_month, published, raw, clean, loaded, self.reject)

    @property
    def _table(self) -> str:
        return trips_table(self.dataset).name

    def _loaded_month(self, dataset_month: DatasetMonth) -> StoredRows | None:
        if self._loaded is not None:
            return self._loaded.get(str(dataset_month.month))
        return self.warehouse.loaded_month(self._table, dataset_month)

    def _ask(self, dataset_month: DatasetMonth) -> Publication | None:
        if self.source is None:
            return None
        try:
            return self.source.stat(dataset_month)
        except (SourceUnavailable, SourceRefused) as error:
            self.source, self.problem = None, error
            return None


def months_to_ingest(states: Iterable[MonthState], limit: int) -> list[MonthState]:
    """The months that need work, newest first, at most `limit` of them."""
    due = [state for state in states if state.reason]
    return sorted(due, key=lambda state: state.dataset_month.month, reverse=True)[:limit]


def months_in_lake(lake: Lake, dataset: Dataset) -> list[Month]:
    """The months of which a raw file was ever kept, oldest first; one listing."""
    names = {key.split("/")[2] for key in lake.list(f"raw/{dataset}/")}
    months = [Month.parse(name) for name in names if MONTH.fullmatch(name)]  # a person may have put a note there
    return sorted(month for month in months if month >= dataset.first_month)


def first_month(dataset: Dataset, since: Month | None, newest: Month) -> Month:
    """Where catching up begins: at TAXI_SINCE, else twelve months back, never before the dataset does."""
    return max(since or newest.plus(-11), dataset.first_month)


def expected_on(month: Month) -> date:
    """About when the TLC publishes a month."""
    return month.plus(1).first_day + USUAL_LAG


def newest_due(today: date) -> Month:
    """The newest month whose publication is overdue if it is not there."""
    return Month.of(today - LONGEST_LAG).plus(-1)


def newest_loaded(warehouse: Warehouse, dataset: Dataset, newest: Month, depth: int = 24) -> Month | None:
    """The newest month that the table holds, looked for from `newest` down: each step reads one partition, not all."""
    table = trips_table(dataset).name
    months = (newest.plus(-back) for back in range(depth))
    return next((month for month in months if warehouse.loaded_month(table, DatasetMonth(dataset, month))), None)
