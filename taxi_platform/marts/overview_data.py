"""What the overview is made from: the marts of every month, read from the lake and summed.

Nothing finer than day and zone is read, so that the whole archive, 606 months, takes seconds. Belongs here: which files
are read, and their sums. Does not belong here: how a month's status is determined (`ingestion/overview.py`).
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from taxi_platform.lake.base import Lake
from taxi_platform.lake.mart_month import MartMonth, complete_marts
from taxi_platform.marts.tables import QUALITY, mart_names, mart_version
from taxi_platform.trips.casting import escape_glob, literal
from taxi_platform.trips.errors import IntegrityError, LakeBusy, LakeError
from taxi_platform.trips.months import Dataset, DatasetMonth, Month

QUERIES = {
    "daily_zones": "SELECT pickup_location_id, sum(trips)::BIGINT FROM marts GROUP BY ALL ORDER BY ALL",
    "hours": "SELECT isodow(pickup_hour), hour(pickup_hour), sum(trips)::BIGINT FROM marts "
    "WHERE date_trunc('month', pickup_hour) = file_month GROUP BY ALL ORDER BY ALL",
    "payments": "SELECT strftime(file_month, '%Y-%m'), payment_type, sum(trips)::BIGINT, sum(tipped_trips)::BIGINT, "
    "sum(tip_amount), sum(total_amount) FROM marts GROUP BY ALL ORDER BY ALL",
    "companies": "SELECT strftime(file_month, '%Y-%m'), hvfhs_license_num, sum(trips)::BIGINT FROM marts "
    "GROUP BY ALL ORDER BY ALL",
    QUALITY: "SELECT strftime(file_month, '%Y-%m'), measure, name, rows FROM marts ORDER BY ALL",
}
"""Mart → what is read of it. An hour outside of its file's month is left out: the rest of its day is elsewhere."""

FILES_AT_ONCE = 8
"""Copied at the same time from a bucket; Google's client keeps ten connections."""
ATTEMPTS = 3
"""A run may replace a month between the listing and the reading."""


@dataclass(frozen=True)
class OverviewMonth:
    """One month: its status as `taxi status` names it, and the clean file that its marts are made from."""

    dataset: Dataset
    month: str
    stage: str
    file_version: str | None = None
    is_synthetic: bool = False
    unknown_columns: tuple[str, ...] = ()
    problem: str | None = None


@dataclass
class OverviewData:
    """The sums. `months` are all that can exist; `counted` those whose marts were read, `older` those whose marts are
    of another version. The rows of the four marts are those of `QUERIES`, by dataset."""

    months: Sequence[OverviewMonth]
    counted: set[tuple[Dataset, str]] = field(default_factory=set)
    older: set[tuple[Dataset, str]] = field(default_factory=set)
    rows: Mapping[str, Mapping[Dataset, list[tuple[Any, ...]]]] = field(default_factory=dict)

    def of(self, mart: str) -> list[tuple[Any, ...]]:
        """The rows of a mart, each with its dataset in front."""
        return [(dataset, *row) for dataset, rows in self.rows.get(mart, {}).items() for row in rows]

    def read_months(self) -> list[OverviewMonth]:
        """The months whose marts were read."""
        return [month for month in self.months if (month.dataset, month.month) in self.counted]


def read_marts(lake: Lake, months: Sequence[OverviewMonth], marts: Collection[str] = tuple(QUERIES)) -> OverviewData:
    """Read the marts of these months that belong to their clean files and are of this version.

    Raises `LakeError` where the lake cannot be read, `IntegrityError` if a file in it is damaged.
    """
    for attempt in range(1, ATTEMPTS + 1):
        data = OverviewData(months)
        keys = _keys(lake, data, marts)
        try:
            data.rows = {
                mart: {dataset: _query(lake, QUERIES[mart], files) for dataset, files in by_dataset.items()}
                for mart, by_dataset in keys.items()
            }
            return data
        except (duckdb.Error, LakeError) as error:
            if isinstance(error, LakeBusy):
                raise
            if attempt == ATTEMPTS:
                problem = f"A mart of {lake.url} cannot be read: {str(error).splitlines()[0]}"
                raise IntegrityError(problem, "Run taxi audit, which names what is damaged.") from error
    raise AssertionError("the last attempt returns or raises")


def _keys(lake: Lake, data: OverviewData, marts: Collection[str]) -> Mapping[str, Mapping[Dataset, list[str]]]:
    """Mart → dataset → the objects to read. Notes in `data` which months are complete, and which have older marts."""
    keys: dict[str, dict[Dataset, list[str]]] = defaultdict(lambda: defaultdict(list))
    stored = {
        dataset: complete_marts(lake, dataset, mart_names(dataset))
        for dataset in dict.fromkeys(month.dataset for month in data.months)
    }
    for month in data.months:
        dataset, file_version = month.dataset, month.file_version
        versions = stored[dataset].get(Month.parse(month.month))
        if versions is None or file_version is None:
            continue
        if versions != (file_version, mart_version(dataset)):
            data.older.add((dataset, month.month))
            continue
        data.counted.add((dataset, month.month))
        dataset_month = DatasetMonth.parse(dataset, month.month)
        files = MartMonth(lake, dataset_month, mart_names(dataset), file_version, mart_version(dataset))
        for name in files.names:
            if name in marts:
                keys[name][dataset].append(files.key(name))
    return keys


def _query(lake: Lake, query: str, keys: Sequence[str]) -> list[tuple[Any, ...]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="taxi-")))

        def copied(numbered: tuple[int, str]) -> Path:
            own = folder / str(numbered[0])  # the marts of a month have the same file name
            own.mkdir()
            return stack.enter_context(lake.local_copy(numbered[1], own))

        with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
            files = ", ".join(literal(escape_glob(str(path))) for path in pool.map(copied, enumerate(keys)))
        with duckdb.connect(config={"autoinstall_known_extensions": False}) as con:
            con.execute("SET enable_progress_bar = false")
            marts = f"FROM read_parquet([{files}], hive_partitioning = false)"
            return con.execute(f"WITH marts AS ({marts}) {query}").fetchall()
