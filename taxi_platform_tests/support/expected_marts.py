"""A month's marts computed in pandas from its trips, independently of the SQL: what every engine must come to."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

Rows = list[tuple[Any, ...]]

TOTAL_OF_HIGH_VOLUME = (
    *("tolls", "bcf", "sales_tax", "congestion_surcharge", "airport_fee", "tips", "cbd_congestion_fee"),
)
SAME_IN_HIGH_VOLUME = {
    "trip_miles": "trip_distance",
    "base_passenger_fare": "fare_amount",
    "tips": "tip_amount",
    "tolls": "tolls_amount",
}
MONEY = ("fare_amount", "tip_amount", "tolls_amount", "total_amount")


def expected_marts(trips: pd.DataFrame, dataset: str) -> dict[str, Rows]:
    """Mart → its rows, sorted, without the columns for provenance; money and miles as whole hundredths.

    `trips` has the canonical columns that are used; columns that it lacks count as null.
    """
    trips = trips.copy()
    if dataset == "fhvhv":
        parts = [_cents(trips, name).fillna(0) for name in TOTAL_OF_HIGH_VOLUME]
        total = sum(parts, _cents(trips, "base_passenger_fare"))
        trips = trips.rename(columns=SAME_IN_HIGH_VOLUME)
        trips["total_amount"] = [None if pd.isna(cents) else Decimal(int(cents)) / 100 for cents in total]
    measured = pd.DataFrame(
        {
            "pickup_date": trips["pickup_datetime"].dt.date,
            "pickup_hour": trips["pickup_datetime"].dt.floor("h"),
            "trips": 1,
            "passengers": _integers(trips, "passenger_count"),
            "miles": _hundredths(trips),
            "seconds": _seconds(trips),
            **{name: _cents(trips, name) for name in MONEY},
            "tipped_trips": (_cents(trips, "tip_amount") > 0).fillna(False).astype("int64"),
            **{name: _integers(trips, name) for name in ("pickup_location_id", "dropoff_location_id", "payment_type")},
        }
    )
    sums = ["trips", "passengers", "miles", "seconds", *MONEY]
    marts = {
        "daily_zones": _grouped(measured, ["pickup_date", "pickup_location_id"], sums),
        "hours": _grouped(measured, ["pickup_hour"], ["trips", "total_amount"]),
        "zone_pairs": _grouped(
            measured, ["pickup_location_id", "dropoff_location_id"], ["trips", "miles", "seconds", "total_amount"]
        ),
    }
    if dataset in ("yellow", "green"):
        columns = ["trips", "tipped_trips", "tip_amount", "total_amount"]
        marts["payments"] = _grouped(measured, ["pickup_date", "payment_type"], columns)
    return marts


def comparable(rows: Rows) -> Rows:
    """Rows of a warehouse or of a Parquet file, as `expected_marts` gives them."""
    return sorted((tuple(map(_value, row)) for row in rows), key=repr)


def _grouped(trips: pd.DataFrame, keys: list[str], sums: list[str]) -> Rows:
    if trips.empty:
        return []
    grouped = trips.groupby(keys, dropna=False)[sums].sum(min_count=1).reset_index()
    return comparable(list(grouped.itertuples(index=False, name=None)))


def _value(value: Any) -> Any:
    if value is None or value is pd.NaT or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return None
    if isinstance(value, Decimal):
        assert value * 100 % 1 == 0
        return int(value * 100)
    if isinstance(value, pd.Timestamp):
        return value.to_pydatetime()
    return int(value) if isinstance(value, int | np.integer | float) else value


def _column(trips: pd.DataFrame, name: str) -> pd.Series:
    return trips[name] if name in trips else pd.Series(None, index=trips.index, dtype=object)


def _integers(trips: pd.DataFrame, name: str) -> pd.Series:
    return pd.to_numeric(_column(trips, name)).astype("Int64")


def _cents(trips: pd.DataFrame, name: str) -> pd.Series:
    """Money as whole cents, from decimals or from the floats and texts of published files."""
    values = [None if pd.isna(value) else int(Decimal(str(value)) * 100) for value in _column(trips, name)]
    return pd.Series(values, index=trips.index, dtype="Int64")


def _hundredths(trips: pd.DataFrame) -> pd.Series:
    miles = pd.to_numeric(_column(trips, "trip_distance")).astype(float)
    return np.floor(miles.where(miles.abs() < 1e8) * 100 + 0.5).astype("Int64")


def _seconds(trips: pd.DataFrame) -> pd.Series:
    if "dropoff_datetime" not in trips:
        return pd.Series(None, index=trips.index, dtype="Int64")
    between = trips["dropoff_datetime"].dt.floor("s") - trips["pickup_datetime"].dt.floor("s")
    return between.dt.total_seconds().astype("Int64")
