"""The views over the marts of all datasets, with the names of zones, payment types and companies: their columns.

Each has one SQL file (`sql/views/*.sql`) in DuckDB's dialect. In it, `all_hours` stands for the mart `hours` of every
dataset that has it, with a first column `dataset`; `payment_types` and `companies` for the labels (`labels.toml`), as
`code` and `label`; `taxi_zones` is the table.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from taxi_platform.marts.tables import KEYS, MARTS, MEASURES, mart_names, mart_version
from taxi_platform.trips.contract import PROVENANCE, Column
from taxi_platform.trips.months import Dataset
from taxi_platform.warehouse.tables import Table

VIEWS_VERSION = 1
"""Part of every view's version. Raise it when other SQL is written from the same files."""
OWN = {
    column.name: column
    for column in (
        Column("dataset", "S", "yellow, green, fhv or fhvhv."),
        Column("in_month", "BOOL", "Whether the trips' own date lies in the month of their file."),
        Column("pickup_borough", "S", "Borough of the pick-up; null without a known zone."),
        Column("pickup_zone", "S", "Name of the pick-up's zone; null without a known zone."),
        Column("dropoff_borough", "S", "Borough of the drop-off; null without a known zone."),
        Column("dropoff_zone", "S", "Name of the drop-off's zone; null without a known zone."),
        Column("payment", "S", "The type of payment in words; null for a code that the TLC does not list."),
        Column("month", "DATE", "First day of the month: all trips of the files of that month."),
        Column("company", "S", "yellow, green, fhv, or a company's licence, such as HV0003; null where it is missing."),
        Column("company_name", "S", "The company in words; null for a licence that the TLC does not list."),
        Column("share", "F", "The company's part, 0 to 1, of the trips that are loaded of the month."),
        Column("datasets", "I", "Number of datasets that are loaded of the month: shares compare no others."),
    )
}
"""The columns that no mart has."""


@dataclass(frozen=True)
class View(Table):
    """One view. No two rows agree in all columns before the first number of rows or trips, and in the file's month."""

    @property
    def sql(self) -> str:
        """Its SQL in DuckDB's dialect, over the names of this module's docstring."""
        return resources.files("taxi_platform.marts").joinpath("sql", "views", f"{self.name}.sql").read_text("utf-8")

    @property
    def marts(self) -> tuple[str, ...]:
        """The marts that it reads."""
        return tuple(mart for mart in MARTS if f"all_{mart}" in self.sql)

    def marts_of(self, dataset: Dataset) -> tuple[str, ...]:
        """Those of the marts that a dataset has."""
        return tuple(mart for mart in self.marts if mart in mart_names(dataset))


def _view(name: str, description: str, columns: str) -> View:
    return View(name, tuple(_column(column) for column in columns.split()), description)


def _column(name: str) -> Column:
    known = {column.name: column for column in PROVENANCE} | OWN
    if name in known:
        return known[name]
    letter, description, _ = KEYS.get(name) or MEASURES[name]
    return Column(name, letter, description)


SUMS = "trips passengers miles seconds fare_amount tip_amount tolls_amount total_amount"
VIEWS = {
    view.name: view
    for view in (
        _view(
            "trips_by_day",
            "Trips by day of the pick-up.",
            f"dataset pickup_date in_month {SUMS} file_month file_version",
        ),
        _view(
            "daily_zones",
            "Trips by day and zone of the pick-up.",
            f"dataset pickup_date in_month pickup_location_id pickup_borough pickup_zone {SUMS} file_month "
            "file_version",
        ),
        _view(
            "hours",
            "Trips by hour of the pick-up.",
            "dataset pickup_hour in_month trips total_amount file_month file_version",
        ),
        _view(
            "zone_pairs",
            "Trips by the zones of pick-up and drop-off.",
            "dataset pickup_location_id pickup_borough pickup_zone dropoff_location_id dropoff_borough dropoff_zone "
            "trips miles seconds total_amount file_month file_version",
        ),
        _view(
            "payments",
            "Trips by day of the pick-up and type of payment; yellow and green.",
            "dataset pickup_date in_month payment_type payment trips tipped_trips tip_amount total_amount "
            "file_month file_version",
        ),
        _view(
            "quality",
            "What the cleaning of each month found.",
            "dataset measure name rows file_month file_version",
        ),
        _view(
            "market_share",
            "Each company's share of a month's trips, among the datasets that are loaded of the month.",
            "month dataset company company_name trips share datasets",
        ),
    )
}
"""Name → view."""


@cache
def labels() -> Mapping[str, Mapping[str | int, str]]:
    """What codes mean: `payment_types` by number, `companies` by dataset or licence."""
    text = resources.files("taxi_platform.marts").joinpath("labels.toml").read_text("utf-8")
    document = tomllib.loads(text)
    payment_types = {int(code): label for code, label in document["payment_types"].items()}
    return {"payment_types": payment_types, "companies": document["companies"]}


def view_version(view: View, datasets: Sequence[Dataset]) -> str:
    """8 hex digits of a hash over all that the view's SELECT is written from; writing all takes 0.1 s, each month."""
    return _version(view, tuple(datasets))


@cache
def _version(view: View, datasets: tuple[Dataset, ...]) -> str:
    marts = [(str(dataset), mart_version(dataset)) for dataset in datasets]
    content = repr((VIEWS_VERSION, view.sql, view.description, view.columns, marts, labels()))
    return hashlib.sha256(content.encode()).hexdigest()[:8]
