"""The values of synthetic trips, drawn in the shares of real months (`shares.toml`), before they are printed.

Values are named as in the contracts. Money and miles are whole hundredths (`HUNDREDTHS`), times are whole seconds of
New York's wall clock, coordinates are degrees.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from taxi_platform.trips.months import FIRST_MONTHS, Dataset, DatasetMonth, Month

Values = np.ndarray[Any, np.dtype[Any]]

MILES = {"trip_distance", "trip_miles"}
TAXI_FEES = {"extra", "mta_tax", "improvement_surcharge", "congestion_surcharge", "airport_fee", "cbd_congestion_fee"}
TAXI_MONEY = {"fare_amount", "tip_amount", "tolls_amount", "total_amount"} | TAXI_FEES
HUNDREDTHS = MILES | TAXI_MONEY | {"base_passenger_fare", "tolls", "bcf", "sales_tax", "tips", "driver_pay"}
NULL_BLOCK = {
    "passenger_count",
    "rate_code_id",
    "store_and_fwd_flag",
    "congestion_surcharge",
    "airport_fee",
    "trip_type",
}
PARQUET_SINCE = Month(2021, 8)  # since then the null block's rows have a vendor, and in yellow payment type 0
VTS_UNTIL = Month(2014, 12)  # vendor 2, then called VTS, gave whole minutes and no store-and-forward flag
AIRPORTS = (132, 138)  # JFK and LaGuardia
DAY = 86_400


@cache
def _file(name: str) -> dict[str, Any]:
    return tomllib.loads(files("taxi_platform.sources.sample").joinpath(name).read_text(encoding="utf-8"))


def table(name: str, dataset_month: DatasetMonth) -> dict[str, Any]:
    """A data file's values for a month: the dataset's entries up to that month, later ones overriding earlier ones."""
    document = _file(name)
    values = {key: value for key, value in document.items() if key not in FIRST_MONTHS}
    for entry in document[dataset_month.dataset]:
        if entry["first"] <= str(dataset_month.month):
            values |= entry
    return values


@dataclass
class Trips:
    """Columns of equal length; `nulls` holds a mask for each column that is not always filled."""

    values: dict[str, Values]
    nulls: dict[str, Values] = field(default_factory=dict)

    def take(self, rows: Values) -> Trips:
        return Trips(
            {name: column[rows] for name, column in self.values.items()},
            {name: mask[rows] for name, mask in self.nulls.items()},
        )


class Dice:
    """Draws `size` random values at a time, in the shares that a name refers to."""

    def __init__(self, rng: np.random.Generator, shares: dict[str, Any], size: int) -> None:
        self.rng, self.shares, self.size = rng, shares, size

    def between(self, low: float, high: float) -> Values:
        return low + (high - low) * self.rng.random(self.size)

    def chance(self, share: str) -> Values:
        return self.rng.random(self.size) < self.shares[share]

    def pick(self, share: str) -> Values:
        """Keys of a table of weights, each as often as its weight says."""
        keys = np.array([int(key) if key.isdigit() else key for key in self.shares[share]])
        steps = np.cumsum(list(self.shares[share].values()))
        return keys[np.searchsorted(steps / steps[-1], self.rng.random(self.size), side="right")]

    def zones(self, share: str) -> Values:
        """Location ids: the named zones in their shares, the rest of 1..263 evenly."""
        named = sum(self.shares[share].values())
        other = np.floor(self.between(1, 264)).astype(np.int64)
        return np.where(self.rng.random(self.size) < named, self.pick(share), other)

    def spread(self, share: str, rank: Values) -> Values:
        """Values at these ranks (0..1) of a long-tailed distribution: straight lines between logarithms."""
        return np.exp(np.interp(rank, self.shares["points"], np.log(self.shares[share])))

    def journey(self, longest: Values | bool = False) -> tuple[Values, Values]:
        """Miles in hundredths and seconds, the longer the slower with some scatter; the masked are the longest."""
        rank, share = self.rng.random(self.size), np.mean(longest)
        rank = np.where(longest, 1 - share + 0.9 * share * rank, rank * (1 - share))
        scattered = np.abs(rank + self.between(-0.15, 0.15))
        seconds = self.spread("seconds", np.where(scattered > 1, 2 - scattered, scattered)).astype(np.int64)
        if "miles" not in self.shares:
            return np.zeros(self.size, np.int64), seconds
        return _hundredths(self.spread("miles", rank)), seconds

    def pickups(self, month: Month, start: int, rows: int) -> Values:
        """Times over the whole month by hour of day and weekday, for the rows from `start` on; nearly in order."""
        first, end = np.datetime64(month.first_day, "h"), np.datetime64(month.plus(1).first_day, "h")
        hours = np.arange(first, end)
        weights = np.array(self.shares["hours"])[_hour(hours)] * np.array(self.shares["weekdays"])[_weekday(hours)]
        edges = np.concatenate(([0.0], np.cumsum(weights))) / weights.sum()
        position = (start + np.arange(self.size) + self.rng.random(self.size)) / rows
        seconds = np.floor(np.interp(position, edges, np.arange(len(edges)) * 3600)).astype(np.int64)
        return first.astype("datetime64[s]") + np.minimum(seconds, len(hours) * 3600 - 1)


def _hour(times: Values) -> Values:
    return times.astype("datetime64[h]").astype(np.int64) % 24


def _weekday(times: Values) -> Values:
    """0 for Monday; 1970-01-01 was a Thursday."""
    return (times.astype("datetime64[D]").astype(np.int64) + 3) % 7


def _hundredths(amount: Values) -> Values:
    return np.rint(amount * 100).astype(np.int64)


def _minutes(times: Values, where: Values) -> Values:
    return np.where(where, times.astype("datetime64[m]").astype("datetime64[s]"), times)


def draw(rng: np.random.Generator, dataset_month: DatasetMonth, start: int, size: int, rows: int) -> Trips:
    """`size` of the month's `rows` trips, from row number `start` on."""
    dice = Dice(rng, table("shares.toml", dataset_month), size)
    pickup = dice.pickups(dataset_month.month, start, rows)
    match dataset_month.dataset:
        case Dataset.FHV:
            return _fhv(dice, pickup)
        case Dataset.FHVHV:
            return _fhvhv(dice, pickup)
        case _:
            return _taxi(dice, dataset_month, pickup)


def _taxi(dice: Dice, dataset_month: DatasetMonth, pickup: Values) -> Trips:
    month, yellow = dataset_month.month, dataset_month.dataset is Dataset.YELLOW
    vts = yellow and month <= VTS_UNTIL
    vendor, payment, rate = dice.pick("vendors"), dice.pick("payments"), dice.pick("rates")
    block, far = dice.chance("null_block"), dice.chance("far")
    if dice.shares["null_block"]:
        block |= far  # 95–100 % of the absurd distances are in the null block
    reversal, twin = _twins(dice, block)
    payment[:-1] = np.where(reversal[1:], dice.pick("reversal_payments")[:-1], payment[:-1])
    miles, seconds = dice.journey(rate == 2)
    values = {
        "vendor_id": vendor,
        "vendor_and_payment": vendor * 10 + payment,
        "passenger_count": dice.pick("passengers"),
        "trip_distance": miles,
        "rate_code_id": rate,
        "store_and_fwd_flag": dice.pick("flags"),
        "pickup_location_id": dice.zones("pickup_zones"),
        "dropoff_location_id": dice.zones("dropoff_zones"),
        "payment_type": np.where(block, 0, payment),
        "trip_type": np.where(rate == 5, 2, 1),
        "request_source": dice.pick("request_sources"),
        "pickup_datetime": pickup,
    }
    values |= _taxi_money(dice, yellow, values, seconds, block)
    values["trip_distance"] = np.where(dice.chance("zero_distance"), 0, values["trip_distance"])
    absurd = _hundredths(10 ** dice.between(2.1, 5.35))  # up to 224,000 miles
    values["trip_distance"] = np.where(far, absurd, values["trip_distance"])

    seconds = np.where(dice.chance("long_day"), dice.between(DAY - 3600, DAY).astype(np.int64), seconds)
    seconds = np.where(dice.chance("backwards"), -dice.between(1, 3600).astype(np.int64), seconds)
    pickup = pickup - np.where(dice.chance("strays"), dice.between(2, 400).astype(np.int64) * DAY, 0)
    rounded = block | (vts & (vendor == 2))
    values["pickup_datetime"] = pickup = _minutes(pickup, rounded)
    values["dropoff_datetime"] = pickup + np.where(rounded, seconds // 60 * 60, seconds)

    nowhere = dice.chance("no_coordinates")
    for name in ("pickup_longitude", "pickup_latitude", "dropoff_longitude", "dropoff_latitude"):
        degrees = dice.between(*dice.shares[name.partition("_")[2]])
        values[name] = np.where(nowhere, 0.0, np.round(degrees, 6))

    nulls = dict.fromkeys(NULL_BLOCK, block)
    nulls["store_and_fwd_flag"] = block | (vts & (vendor != 1)) | dice.chance("flag_missing")
    nulls["request_source"] = ~block
    if month < PARQUET_SINCE:
        nulls["vendor_id"] = block
    if month < PARQUET_SINCE or not yellow:
        nulls["payment_type"] = block
    for fee, name in (("congestion_fee", "congestion_surcharge"), ("mta_tax", "mta_tax")):
        if not dice.shares[fee]:  # a fee that did not exist yet is an empty field
            nulls[name] = np.ones(dice.size, bool)
    trips = Trips(values, nulls).take(np.arange(dice.size) - twin)
    for name in TAXI_MONEY:
        trips.values[name] = np.where(reversal, -trips.values[name], trips.values[name])
    return trips


def _twins(dice: Dice, block: Values) -> tuple[Values, Values]:
    """Masks of the rows that reverse the charge of the row before, and of all that repeat the row before."""
    reversal, duplicate = dice.chance("reversals"), dice.chance("duplicates")
    reversal[1:] &= ~block[:-1]  # negative totals hardly occur there
    drawn = reversal | duplicate
    twin = drawn & ~np.roll(drawn, 1)
    twin[:1] = False
    return reversal & twin, twin


def _taxi_money(dice: Dice, yellow: bool, trip: dict[str, Values], seconds: Values, block: Values) -> dict[str, Values]:
    """Fares and surcharges; the total is their sum but for what vendor 1 counts twice."""
    shares, miles, pickup = dice.shares, trip["trip_distance"], trip["pickup_datetime"]
    start, per_mile, per_minute, step, jfk = shares["tariff"]
    metered = start + per_mile * miles / 100 + per_minute * seconds / 60
    fare = np.where(block, metered, start + np.rint((metered - start) / step) * step)
    fare = np.where((trip["rate_code_id"] == 2) & ~block, jfk, fare).astype(np.int64)
    hour, (night, rush) = _hour(pickup), shares["extras"]
    rush_hour = (hour >= 16) & (_weekday(pickup) < 5)
    extra = np.where((hour >= 20) | (hour < 6), night, np.where(rush_hour, rush, 0))
    tip = np.where(trip["payment_type"] == 1, fare * dice.pick("tip_percents") / 100, 0)
    money = {
        "fare_amount": fare,
        "extra": np.where(block, 0, extra),
        "mta_tax": np.where(block, 0, shares["mta_tax"]),
        "tip_amount": np.rint(tip).astype(np.int64),
        "tolls_amount": np.where((miles > 500) & dice.chance("tolled"), shares["toll"], 0),
        "improvement_surcharge": np.full(dice.size, shares["improvement_surcharge"]),
        "congestion_surcharge": np.where(dice.chance("congested") & ~block, shares["congestion_fee"], 0),
        "airport_fee": np.where(np.isin(trip["pickup_location_id"], AIRPORTS) & ~block, shares["airport_fee"], 0),
        "cbd_congestion_fee": np.where(dice.chance("cbd"), shares["cbd_fee"], 0),
    }
    money["total_amount"] = np.add.reduce(list(money.values()))
    if yellow:  # since 2019-02 vendor 1 puts the congestion surcharge into `extra` as well
        money["extra"] = money["extra"] + np.where(trip["vendor_id"] == 1, money["congestion_surcharge"], 0)
    return money


def _fhv(dice: Dice, pickup: Values) -> Trips:
    seconds = np.where(dice.chance("long_day"), 23 * 3600, dice.journey()[1])
    pickup, base = _minutes(pickup, dice.chance("whole_minutes")), dice.pick("bases")
    return Trips(
        {
            "dispatching_base_num": base,
            "affiliated_base_number": base,
            "pickup_datetime": pickup,
            "dropoff_datetime": pickup + seconds,
            "pickup_location_id": dice.zones("pickup_zones"),
            "dropoff_location_id": dice.zones("dropoff_zones"),
            "sr_flag": np.ones(dice.size, np.int64),
        },
        {
            "affiliated_base_number": dice.chance("no_affiliate"),
            "dropoff_datetime": dice.chance("no_dropoff"),
            "pickup_location_id": dice.chance("no_pickup_zone"),
            "dropoff_location_id": dice.chance("no_dropoff_zone"),
            "sr_flag": ~dice.chance("shared"),
        },
    )


def _fhvhv(dice: Dice, pickup: Values) -> Trips:
    shares = dice.shares
    license_num = dice.pick("licenses")
    uber = license_num == "HV0003"
    base = np.select([license_num == key for key in shares["bases"]], list(shares["bases"].values()), "")
    miles, seconds = dice.journey()
    far = dice.chance("far")
    shared = np.where(dice.chance("shared"), "Y", "N")
    zone, destination = dice.zones("pickup_zones"), dice.zones("dropoff_zones")
    # a fit to 2020-04: median 3.01 miles, 11.6 minutes, 12.55; black car fund 2.75 %, sales tax 8.875 %
    fare = np.rint(250 + 175 * miles / 100 + 40 * seconds / 60).astype(np.int64)
    fare = np.where(dice.chance("refunds"), -18, fare)
    wait, boarding = dice.between(60, 600).astype(np.int64), dice.between(5, 120).astype(np.int64)
    return Trips(
        {
            "hvfhs_license_num": license_num,
            "dispatching_base_num": base,
            "originating_base_num": base,
            "request_datetime": pickup - wait - boarding,
            "on_scene_datetime": pickup - boarding,
            "pickup_datetime": pickup,
            "dropoff_datetime": pickup + seconds,
            "pickup_location_id": zone,
            "dropoff_location_id": destination,
            "trip_miles": np.where(far, miles + 15_000, miles),
            "trip_time": seconds,
            "base_passenger_fare": fare,
            "tolls": np.where((miles > 500) & dice.chance("tolled"), shares["toll"], 0),
            "bcf": np.rint(fare * 0.0275).astype(np.int64),
            "sales_tax": np.rint(fare * 0.08875).astype(np.int64),
            "congestion_surcharge": np.where(dice.chance("congested"), shares["congestion_fee"], 0),
            "airport_fee": np.where(np.isin(zone, AIRPORTS) | np.isin(destination, AIRPORTS), shares["airport_fee"], 0),
            "tips": np.where(dice.chance("tipped"), np.rint(fare * 0.2), 0).astype(np.int64),
            "driver_pay": np.rint(fare * 0.78).astype(np.int64),
            "shared_request_flag": shared,
            "shared_match_flag": np.where(dice.between(0, 1) < 0.5, shared, "N"),
            "access_a_ride_flag": np.where(uber, " ", "N"),
            "wav_request_flag": np.full(dice.size, "N"),
            "wav_match_flag": np.where(dice.chance("wheelchair"), "Y", "N"),
            "cbd_congestion_fee": np.where(dice.chance("cbd"), shares["cbd_fee"], 0),
            "sr_flag": np.ones(dice.size, np.int64),
        },
        {"originating_base_num": ~uber, "on_scene_datetime": ~uber, "sr_flag": shared == "N"},
    )
