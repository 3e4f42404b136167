"""The marts: small tables with the answers of a month, by dataset. Their names, columns, and what each comes from.

The SQL (`sql/*.sql`, one file a mart) names columns as yellow does; `trip_columns` says what they are in the other
datasets. `quality` has no SQL: its rows are the cleaning report's (`quality.py`).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib import resources

from taxi_platform.trips.contract import PROVENANCE, Column, contract_of
from taxi_platform.trips.months import Dataset
from taxi_platform.warehouse.tables import Table

MARTS_VERSION = 1
"""Part of every mart version. Raise it when the marts have other rows for the same SQL and columns."""

QUALITY = "quality"
"""The mart that is published last: where it is, the others are."""

OWN_COLUMNS: dict[Dataset, dict[str, tuple[str, ...]]] = {
    Dataset.FHVHV: {
        "trip_distance": ("trip_miles",),
        "fare_amount": ("base_passenger_fare",),
        "tip_amount": ("tips",),
        "tolls_amount": ("tolls",),
        "total_amount": (
            *("base_passenger_fare", "tolls", "bcf", "sales_tax"),
            *("congestion_surcharge", "airport_fee", "tips", "cbd_congestion_fee"),
        ),
    }
}
"""Yellow's name of a column → this dataset's columns; of several, the sum, null where the first is null."""

KEYS = {
    "pickup_date": ("DATE", "Day of the pick-up, also where it is outside of the file's month.", ("pickup_datetime",)),
    "pickup_hour": ("D", "Hour of the pick-up, as the time at which it begins.", ("pickup_datetime",)),
    "pickup_location_id": ("I", "Taxi zone of the pick-up; null where the trip has none.", ("pickup_location_id",)),
    "dropoff_location_id": ("I", "Taxi zone of the drop-off; null where the trip has none.", ("dropoff_location_id",)),
    "payment_type": ("I", "How the trip was paid, a code of the trips.", ("payment_type",)),
    "hvfhs_license_num": ("S", "Licence of the company; null where the trip has none.", ("hvfhs_license_num",)),
    "measure": ("S", "read, clean, rejected, suspicious or published.", ()),
    "name": ("S", "Why rows were rejected, or the rule that they are suspicious by; else empty.", ()),
}
"""Column of a mart → type, meaning and, by yellow's names, the columns of the trips that it comes from."""

MEASURES = {
    "trips": ("I", "Number of trips.", ()),
    "passengers": ("I", "Sum of the passengers.", ("passenger_count",)),
    "miles": (
        "TOTAL",
        "Sum of the miles, each trip's rounded to hundredths (half up); without distances of 100 million or more.",
        ("trip_distance",),
    ),
    "seconds": (
        "I",
        "Sum of the whole seconds from pick-up to drop-off; negative for trips that end before they begin.",
        ("pickup_datetime", "dropoff_datetime"),
    ),
    "fare_amount": ("TOTAL", "Sum of the fares in dollars.", ("fare_amount",)),
    "tip_amount": ("TOTAL", "Sum of the tips in dollars; cash tips are not recorded.", ("tip_amount",)),
    "tolls_amount": ("TOTAL", "Sum of the tolls in dollars.", ("tolls_amount",)),
    "total_amount": ("TOTAL", "Sum of what passengers paid in dollars.", ("total_amount",)),
    "tipped_trips": ("I", "Number of trips with a tip above zero.", ("tip_amount",)),
    "rows": ("I", "Number of rows.", ()),
}
"""The same for what is counted and summed. A sum is null where no trip has a value."""


@dataclass(frozen=True)
class Mart:
    """What the marts of a name have in common. Each row's keys are unique within its file's month, and may be null."""

    description: str
    keys: tuple[str, ...]
    measures: tuple[str, ...]


MARTS = {
    "daily_zones": Mart(
        "trips by day and zone of the pick-up",
        ("pickup_date", "pickup_location_id"),
        (
            *("trips", "passengers", "miles", "seconds"),
            *("fare_amount", "tip_amount", "tolls_amount", "total_amount"),
        ),
    ),
    "hours": Mart("trips by hour of the pick-up", ("pickup_hour",), ("trips", "total_amount")),
    "zone_pairs": Mart(
        "trips by the zones of pick-up and drop-off",
        ("pickup_location_id", "dropoff_location_id"),
        ("trips", "miles", "seconds", "total_amount"),
    ),
    "payments": Mart(
        "trips by day of the pick-up and type of payment",
        ("pickup_date", "payment_type"),
        ("trips", "tipped_trips", "tip_amount", "total_amount"),
    ),
    "companies": Mart("trips by licensed company", ("hvfhs_license_num",), ("trips",)),
    QUALITY: Mart("what the cleaning of each month found", ("measure", "name"), ("rows",)),
}

OWN_DATES = (
    "Trips that are stamped outside of their file's month are counted in that month's rows, under their own dates."
)


def mart_names(dataset: Dataset) -> tuple[str, ...]:
    """The dataset's marts, `quality` last."""
    needs = {"payments": "payment_type", "companies": "hvfhs_license_num"}
    return tuple(name for name in MARTS if name not in needs or trip_columns(dataset, needs[name]))


def trip_columns(dataset: Dataset, name: str) -> tuple[str, ...]:
    """The dataset's columns that are yellow's column `name`; empty if it has none such."""
    own = OWN_COLUMNS.get(dataset, {}).get(name)
    has_it = any(column.name == name for column in contract_of(dataset).table_columns)
    return own or ((name,) if has_it else ())


def lineage(dataset: Dataset, name: str) -> dict[str, tuple[str, ...]]:
    """Column of the mart → the columns of `{dataset}_trips` that it comes from; those of `quality` come from none."""
    if name == QUALITY:
        return {}
    columns = {column: _sources(dataset, column) for column in (*MARTS[name].keys, *MARTS[name].measures)}
    return columns | {column.name: (column.name,) for column in PROVENANCE}


@cache
def mart_table(dataset: Dataset, name: str) -> Table:
    """The table of one mart."""
    mart = MARTS[name]
    columns = tuple(_column(dataset, column) for column in (*mart.keys, *mart.measures))
    description = f"{contract_of(dataset).description}: {mart.description}."
    if name != QUALITY:
        description += f" {OWN_DATES}"
    return Table(f"{dataset}_{name}", (*columns, *PROVENANCE), description, small=True)


def mart_tables(dataset: Dataset) -> tuple[Table, ...]:
    """The tables of all marts of a dataset."""
    return tuple(mart_table(dataset, name) for name in mart_names(dataset))


def mart_sql(name: str) -> str:
    """The SQL of a mart, in DuckDB's dialect, over `trips` with yellow's columns."""
    return resources.files("taxi_platform.marts").joinpath("sql", f"{name}.sql").read_text("utf-8")


@cache
def mart_version(dataset: Dataset) -> str:
    """8 hex digits of a hash over all that decides on the rows of the dataset's marts, but for the trips."""
    content: list[object] = [MARTS_VERSION]
    for name in mart_names(dataset):
        columns = [(column.name, column.type) for column in mart_table(dataset, name).columns]
        content.append([name, columns, lineage(dataset, name), "" if name == QUALITY else mart_sql(name)])
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:8]


def _column(dataset: Dataset, name: str) -> Column:
    type_, description, uses = KEYS.get(name) or MEASURES[name]
    sources = _sources(dataset, name)
    if uses and not sources:
        description = f"Always null: {dataset} trips have no such value."
    elif len(sources) > 2:
        description += f" From the sum of {', '.join(sources)}."
    elif sources:
        description += f" From {' and '.join(sources)}."
    return Column(name, type_, description)


def _sources(dataset: Dataset, name: str) -> tuple[str, ...]:
    uses = (KEYS.get(name) or MEASURES[name])[2]
    return tuple(source for use in uses for source in trip_columns(dataset, use))
