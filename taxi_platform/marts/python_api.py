"""Months of the lake as data frames: `from taxi_platform import load_trips, load_rejected, load_mart, months`.

For maps there is `zone_shapes` too.

The lake is the one that TAXI_LAKE_URL names, by default the folder `lake` in TAXI_HOME. Only published months are read,
and only the columns and rows that are asked for. Nothing here imports Dagster, and no load is blocked.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from difflib import get_close_matches
from typing import Any

from taxi_platform.lake import open_lake
from taxi_platform.lake.base import Lake
from taxi_platform.lake.months import LakeMonth
from taxi_platform.marts.frames import Form, load_frame
from taxi_platform.marts.view_files import view_files
from taxi_platform.marts.views import VIEWS, View
from taxi_platform.marts.zones import zone_shapes as zone_shapes
from taxi_platform.settings import load_settings
from taxi_platform.trips.contract import REJECTED_COLUMNS, contract_of
from taxi_platform.trips.errors import LakeError, UserError
from taxi_platform.trips.months import Dataset, DatasetMonth, Month


def months(dataset: str) -> list[str]:
    """The months of a dataset that are in the lake, oldest first, such as `["2021-01", "2021-02"]`.

    Raises `UserError` for an unknown dataset and `LakeError` where the lake cannot be read.
    """
    return [str(month) for month in _months_of(open_lake(load_settings().lake_url), Dataset.parse(dataset))]


def load_trips(
    dataset: str,
    first: str,
    last: str | None = None,
    *,
    columns: Sequence[str] | None = None,
    where: str | None = None,
    as_: Form = "pandas",
    max_bytes: int | None = None,
) -> Any:
    """The clean trips of a month, or of a range of months with both ends included, in the order of the files.

    >>> trips = load_trips("yellow", "2021-01", "2021-03", columns=["pickup_datetime", "fare_amount"])
    >>> airport = load_trips("green", "2021-01", where="dropoff_location_id IN (1, 132, 138)", as_="arrow")

    Args:
        dataset: `yellow`, `green`, `fhv` or `fhvhv`.
        first: The first month, such as `2021-01`.
        last: The last month; by default the first one alone.
        columns: Names from `docs/columns.md`, in the order wanted; by default all of the dataset.
        where: An SQL expression over the dataset's columns, in DuckDB's dialect. Other columns than the ones asked
            for may be used. Rows for which it is null are left out.
        as_: `pandas` (a DataFrame with Arrow-backed types, so that integers may be null and money is exact), `arrow`
            (a Table), `polars` (a DataFrame; needs the extra `polars`) or `duckdb` (a relation that reads only when
            it is used). For charts with Altair, which takes no decimals and no Arrow dates: `as_="duckdb"` and `.df()`.
        max_bytes: The size above which nothing is loaded; by default half of the memory that is available.

    Returns:
        One row per trip. Times are New York wall clock time in microseconds without zone, money is decimal dollars,
        distances are miles, `trip_time` is seconds.

    Raises:
        UserError: An unknown dataset, month, column or form, a range whose months are not all in the lake, a `where`
            that is not an expression, or a result that would not fit into memory.
        LakeError: The lake cannot be read.
        IntegrityError: A file in it is damaged.
    """
    parsed = Dataset.parse(dataset)
    lake = open_lake(load_settings().lake_url)
    keys = [LakeMonth(lake, dataset_month).clean_key for dataset_month in _range(lake, parsed, first, last)]
    return load_frame(lake, keys, contract_of(parsed).table_columns, columns, where, as_, max_bytes)


def load_rejected(
    dataset: str,
    first: str,
    last: str | None = None,
    *,
    columns: Sequence[str] | None = None,
    where: str | None = None,
    as_: Form = "pandas",
    max_bytes: int | None = None,
) -> Any:
    """The rejected rows of a month, or of a range of months: why each was rejected, and its text.

    >>> load_rejected("yellow", "2021-01", columns=["reason", "column_name", "line"])

    Takes, returns and raises what `load_trips` does. `line` counts from 1, the header included; it is null for rows of
    Parquet files.
    """
    lake = open_lake(load_settings().lake_url)
    keys = []
    for dataset_month in _range(lake, Dataset.parse(dataset), first, last):
        month = LakeMonth(lake, dataset_month)
        footer = month.footer()
        if footer is None:
            raise LakeError(f"{dataset_month} was removed from the lake meanwhile.", "Load it again.")
        keys.append(month.rejected_key(footer.file_version))
    return load_frame(lake, keys, REJECTED_COLUMNS, columns, where, as_, max_bytes)


def load_mart(
    name: str,
    first: str | None = None,
    last: str | None = None,
    *,
    dataset: str | None = None,
    columns: Sequence[str] | None = None,
    where: str | None = None,
    as_: Form = "pandas",
    max_bytes: int | None = None,
) -> Any:
    """Ready answers: one of the views over the marts, of a month, a range of months, or all months of the lake.

    >>> load_mart("daily_zones", "2021-01", dataset="yellow", where="pickup_borough = 'Queens'")
    >>> load_mart("market_share", columns=["month", "company_name", "share"])

    Takes, returns and raises what `load_trips` does, but for these:

    Args:
        name: `trips_by_day`, `daily_zones`, `hours`, `zone_pairs`, `payments`, `quality` or `market_share`.
        first: The first month; by default all that are in the lake.
        dataset: One dataset; by default all that have months in the lake.

    Returns:
        One row for each combination of what stands before the number of trips, sorted. Money is decimal dollars,
        `miles` are decimal too, `seconds` are whole. Trips that are stamped outside of their file's month have their
        own dates and belong to that month (`in_month` is false). A sum is null where no trip has a value.

    Raises:
        UserError: Also for an unknown name, for a range of which a dataset lacks a month, and for a month whose marts
            are missing or older than its trips.
    """
    view = _known_view(name)
    if first is None and last is not None:
        raise UserError("last is set, but not first.", "Name the first month of the range too.")
    lake = open_lake(load_settings().lake_url)
    datasets = [Dataset.parse(dataset)] if dataset else [each for each in Dataset if _months_of(lake, each)]
    if dataset and not view.marts_of(datasets[0]):
        raise UserError(f"{dataset} has no {name}.", "Choose another dataset, or leave it out.")
    wanted = []
    for each in datasets:
        if first is None:
            wanted += [DatasetMonth(each, month) for month in _months_of(lake, each)]
        elif dataset or Month.parse(last or first) >= each.first_month:
            start = first if dataset else str(max(Month.parse(first), each.first_month))
            wanted += _range(lake, each, start, last or first)
    if first and not wanted:
        raise UserError(f"Not in the lake {lake.url}: {first} of any dataset.", "Load it first, with taxi ingest.")
    files = view_files(lake, view, datasets, wanted)
    return load_frame(lake, files.keys, view.columns, columns, where, as_, max_bytes, files.rows)


def _known_view(name: str) -> View:
    if name not in VIEWS:
        close = get_close_matches(str(name), VIEWS, 1)
        suggestion = f"Did you mean {close[0]}?" if close else f"Choose from {', '.join(VIEWS)}."
        raise UserError(f"{name!r} is not a mart.", suggestion)
    return VIEWS[name]


def _months_of(lake: Lake, dataset: Dataset) -> list[Month]:
    keys = set(lake.list(f"clean/{dataset}/"))
    possible = dataset.first_month.until(Month.of(date.today()))
    return [month for month in possible if LakeMonth(lake, DatasetMonth(dataset, month)).clean_key in keys]


def _range(lake: Lake, dataset: Dataset, first: str, last: str | None) -> list[DatasetMonth]:
    """The months of a range; raises `UserError` unless all are in the lake."""
    start = DatasetMonth.parse(dataset, first).month
    end = DatasetMonth.parse(dataset, last or first).month
    if end < start:
        raise UserError(f"{last} is before {first}.", "Name the first month first.")
    wanted = list(start.until(end))
    missing = sorted(set(wanted) - set(_months_of(lake, dataset)))
    if missing:
        names = ", ".join(map(str, missing[:12])) + (f" and {len(missing) - 12} more" if len(missing) > 12 else "")
        raise UserError(
            f"Not in the lake {lake.url}: {dataset} {names}.",
            f"Load the months first, for example with taxi ingest {dataset} {missing[0]}.",
        )
    return [DatasetMonth(dataset, month) for month in wanted]
