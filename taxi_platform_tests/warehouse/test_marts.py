"""The marts of a month: equal in lake and every warehouse, and to pandas; replaced, repaired and built side by side.

The BigQuery emulator is itself sqlglot on DuckDB: it shows that the query is well formed and that the job replaces the
month, not that BigQuery adds up the same. That is shown by the same tests with the marker `real_gcp`.
"""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from taxi_platform.ingestion import steps
from taxi_platform.ingestion.marts import build_marts, marts_in_lake
from taxi_platform.lake import open_lake
from taxi_platform.lake.base import Lake
from taxi_platform.lake.months import LakeMonth
from taxi_platform.marts.tables import mart_names, mart_table, mart_tables, mart_version
from taxi_platform.sources import open_source
from taxi_platform.trips.engine import Engine
from taxi_platform.trips.errors import Conflict, IntegrityError, WarehouseError
from taxi_platform.trips.months import Dataset, DatasetMonth, Month
from taxi_platform.warehouse import open_warehouse
from taxi_platform.warehouse.base import Warehouse
from taxi_platform.warehouse.bigquery import BigQuerySession
from taxi_platform_tests.support.expected_marts import comparable, expected_marts
from taxi_platform_tests.support.system import shared_file

from .conftest import Backend, Months

APRIL = DatasetMonth.parse("green", "2020-04")
YELLOW = (
    "VendorID,tpep_pickup_datetime,tpep_dropoff_datetime,passenger_count,trip_distance,PULocationID,DOLocationID,"
    "payment_type,fare_amount,tip_amount,tolls_amount,total_amount\n"
)
ODD_TRIPS = [
    "1,2021-01-01 00:59:59,2021-01-01 01:00:00,1,2.675,1,2,1,10.00,0.01,0,10.01",
    "1,2021-01-01 00:00:00,2021-01-01 00:20:00.999999,0,0.005,1,2,2,10.00,0,0,10.00",
    "1,2021-01-01 00:00:00.7,2021-01-01 00:00:01.2,,1.005,1,2,,,,,",
    "1,2021-01-31 23:59:59,2021-01-31 23:00:00,2,-3.335,264,,1,-5.00,-1.00,0,-6.00",
    "1,2008-12-31 12:00:00,2009-01-01 12:00:00,1,0.1,,,1,0.1,0.1,0.1,0.3",
    "1,2021-01-15 12:00:00,,1,15331800.9,265,264,3,99999999.99,0,0,99999999.99",
    "1,2021-01-15 12:00:00,,1,100000000,265,264,3,99999999.99,0,0,99999999.99",
    "1,2021-01-15 12:00:00,,1,999999999999999999999999,265,264,3,99999999.99,0,0,99999999.99",
]
"""Floats that no decimal equals, half hundredths, fractions of a second, times outside the month, nulls, extremes."""


class House:
    """A lake and a warehouse, and a month's way into both."""

    def __init__(self, home: Path, warehouse: Warehouse) -> None:
        self.home, self.warehouse = home, warehouse
        self.lake: Lake = open_lake((home / "lake").as_uri())

    def load(self, dataset_month: DatasetMonth, url: str = "sample://?rows=300") -> None:
        steps.fetch(open_source(url), self.lake, dataset_month, self.home)
        steps.clean(self.lake, dataset_month, self.home, Engine(threads=1), force=True)
        steps.load(self.lake, self.warehouse, dataset_month, self.home)

    def build(self, dataset_month: DatasetMonth, **options):
        return build_marts(self.lake, self.warehouse, dataset_month, self.home, **options)

    def trips(self, dataset_month: DatasetMonth) -> pd.DataFrame:
        month = LakeMonth(self.lake, dataset_month)
        with self.lake.open(month.clean_key) as file:
            return pq.read_table(file).to_pandas(date_as_object=False)

    def lake_rows(self, dataset_month: DatasetMonth, name: str):
        (key,) = self.lake.list(f"marts/{dataset_month.dataset}/{name}/month={dataset_month.month}/")
        with self.lake.open(key) as file:
            columns = pq.read_table(file).to_pydict()
        return list(zip(*columns.values(), strict=True))


@pytest.fixture
def house(tmp_path, backend: Backend) -> House:
    return House(tmp_path, backend.warehouse)


def stored(backend: Backend, dataset: Dataset, name: str, month: str | None = None):
    """A mart's rows in the warehouse as its Parquet file has them, but for their order."""
    quote = "`{}`" if "`" in backend.qualified("x") else '"{}"'
    table = mart_table(dataset, name)
    columns = ", ".join(quote.format(column.name) for column in table.columns)
    where = f" WHERE file_month = DATE '{month}-01'" if month else ""
    return [tuple(row) for row in backend.execute(f"SELECT {columns} FROM {backend.qualified(table.name)}{where}")]


def check_equal(house: House, backend: Backend, dataset_month: DatasetMonth, trips: pd.DataFrame) -> None:
    """Lake, warehouse and pandas have the same rows, and each row its month and version."""
    built = house.build(dataset_month)
    expected = expected_marts(trips, dataset_month.dataset)
    assert {*expected, "quality"} == set(mart_names(dataset_month.dataset)) == set(built.rows)
    provenance = (dataset_month.month.first_day, built.file_version)
    for name, rows in expected.items():
        in_lake, in_warehouse = house.lake_rows(dataset_month, name), stored(backend, dataset_month.dataset, name)
        assert comparable(in_warehouse) == comparable(in_lake)
        assert {row[-2:] for row in in_lake} <= {provenance}
        assert comparable([row[:-2] for row in in_lake]) == rows, name
        assert built.rows[name] == len(rows)
    assert house.build(dataset_month).unchanged


@pytest.mark.parametrize(
    ("dataset", "month"),
    [("yellow", "2021-01"), ("green", "2020-04"), ("fhv", "2021-01"), ("fhvhv", "2024-01")],
)
def test_rows_are_equal_in_lake_warehouse_and_pandas(house: House, backend: Backend, dataset, month):
    dataset_month = DatasetMonth.parse(dataset, month)
    house.load(dataset_month)
    check_equal(house, backend, dataset_month, house.trips(dataset_month))


@pytest.mark.fault(92)
def test_odd_values_add_up_to_the_same_everywhere(house: House, backend: Backend, tmp_path):
    dataset_month = DatasetMonth.parse("yellow", "2021-01")
    (tmp_path / "yellow_2021-01.csv").write_text(YELLOW + "\n".join(ODD_TRIPS) + "\n")
    house.load(dataset_month, f"file://{tmp_path}/{{dataset}}_{{month}}.csv")
    trips = house.trips(dataset_month)
    assert len(trips) == len(ODD_TRIPS)
    check_equal(house, backend, dataset_month, trips)
    by_zone = {row[:2]: row[2:] for row in expected_marts(trips, "yellow")["daily_zones"]}
    assert by_zone[date(2021, 1, 1), 1][:4] == (3, 1, 268 + 1 + 100, 1 + 1200 + 1)  # 1.005 * 100 is below 100.5
    assert by_zone[date(2008, 12, 31), None][:4] == (1, 1, 10, 86400)
    assert by_zone[date(2021, 1, 15), 265][2:5] == (1533180090, None, 3 * 9999999999)


@pytest.mark.fault(93)
def test_a_month_before_zones_has_one_row_without_a_zone_a_day_and_one_pair(house: House, backend: Backend):
    dataset_month = DatasetMonth.parse("yellow", "2009-01")
    house.load(dataset_month)
    check_equal(house, backend, dataset_month, house.trips(dataset_month))
    ((pickup, dropoff, trips, *_),) = stored(backend, Dataset.YELLOW, "zone_pairs")
    assert (pickup, dropoff, trips) == (None, None, len(house.trips(dataset_month)))
    assert {row[1] for row in stored(backend, Dataset.YELLOW, "daily_zones")} == {None}


@pytest.mark.fault(94)
def test_an_empty_month_has_empty_marts_and_its_quality(house: House, backend: Backend, tmp_path):
    (tmp_path / "green_2020-04.csv").write_text("lpep_pickup_datetime,PULocationID\n")
    house.load(APRIL, f"file://{tmp_path}/{{dataset}}_{{month}}.csv")
    built = house.build(APRIL)
    quality = _quality(backend)
    assert {("read", "", 0), ("clean", "", 0)} <= quality
    assert built.rows == {"daily_zones": 0, "hours": 0, "zone_pairs": 0, "payments": 0, "quality": len(quality)}
    assert stored(backend, Dataset.GREEN, "hours") == []
    assert house.build(APRIL).unchanged


def _quality(backend: Backend) -> set:
    return {row[:3] for row in stored(backend, Dataset.GREEN, "quality")}


def test_the_busiest_rows_are_those_with_the_highest_counts_also_where_nothing_changed(duckdb_backend, tmp_path):
    house = House(tmp_path, duckdb_backend.warehouse)
    house.load(APRIL)
    for built in (house.build(APRIL), house.build(APRIL)):
        for name in mart_names(APRIL.dataset):
            (key,) = house.lake.list(f"marts/green/{name}/month=2020-04/")
            with house.lake.open(key) as file:
                table = pq.read_table(file)
            count = "trips" if "trips" in table.column_names else "rows"
            assert built.busiest[name] == table.sort_by([(count, "descending")]).slice(0, 8).to_pylist()
    assert built.unchanged


def test_quality_says_what_the_cleaning_reported(house: House, backend: Backend):
    house.load(APRIL, "sample://?rows=300")
    house.build(APRIL)
    _, report = steps.published(house.lake, APRIL)
    assert _quality(backend) == {
        ("read", "", 300),
        ("clean", "", 299),
        *(("rejected", reason, rows) for reason, rows in report.rejected_by_reason.items()),
        *(("suspicious", rule, rows) for rule, rows in report.suspicious.items()),
    }
    assert report.rejected_by_reason and sum(report.suspicious.values())


def test_a_newer_version_replaces_the_month_alone_and_leaves_nothing_of_the_old(house: House, backend: Backend):
    march = DatasetMonth.parse("green", "2020-03")
    for dataset_month in (march, APRIL):
        house.load(dataset_month)
        house.build(dataset_month)
    before = stored(backend, Dataset.GREEN, "hours", "2020-03")
    house.load(APRIL, "sample://?rows=200")
    built = house.build(APRIL)
    assert not built.unchanged
    for name in mart_names(Dataset.GREEN):
        assert {row[-1] for row in stored(backend, Dataset.GREEN, name, "2020-04")} == {built.file_version}
    assert sorted(stored(backend, Dataset.GREEN, "hours", "2020-03")) == sorted(before)
    assert marts_in_lake(house.lake, Dataset.GREEN)[APRIL.month] == (built.file_version, mart_version(Dataset.GREEN))
    assert len(house.lake.list("marts/green/")) == 2 * len(mart_names(Dataset.GREEN))
    hours = [row[:-2] for row in stored(backend, Dataset.GREEN, "hours", "2020-04")]
    assert comparable(hours) == expected_marts(house.trips(APRIL), "green")["hours"]


@pytest.mark.fault(95)
def test_a_mart_changed_or_dropped_by_hand_is_made_again(house: House, backend: Backend):
    house.load(APRIL)
    house.build(APRIL)
    right = comparable(stored(backend, Dataset.GREEN, "zone_pairs"))
    pairs, hours = (backend.qualified(f"green_{name}") for name in ("zone_pairs", "hours"))
    for damage in (
        f"UPDATE {pairs} SET trips = trips + 1 WHERE pickup_location_id > 0",
        f"DELETE FROM {hours} WHERE trips > 0",
        f"DROP TABLE {pairs}",
    ):
        backend.execute(damage)
        said: list[str] = []
        assert not house.build(APRIL, say=said.append).unchanged
        assert any("The marts are made again." in sentence for sentence in said)
        assert comparable(stored(backend, Dataset.GREEN, "zone_pairs")) == right
    assert house.build(APRIL).unchanged


@pytest.mark.fault(96)
def test_trips_of_another_version_in_the_warehouse_are_a_conflict_and_change_nothing(
    house: House, backend: Backend, monkeypatch
):
    house.load(APRIL)
    before = house.build(APRIL)
    steps.fetch(open_source("sample://?rows=200"), house.lake, APRIL, house.home)
    steps.clean(house.lake, APRIL, house.home, Engine(threads=1))  # and not loaded
    monkeypatch.setattr(build_marts.retry, "stop", lambda _: True)
    with pytest.raises(Conflict, match="green_trips holds version"):
        house.build(APRIL)
    assert marts_in_lake(house.lake, Dataset.GREEN)[APRIL.month][0] == before.file_version
    if "bigquery" not in house.warehouse.url:  # whose first table was replaced before it was compared
        assert {row[-1] for row in stored(backend, Dataset.GREEN, "hours")} == {before.file_version}


def test_two_months_of_a_dataset_built_at_once_both_arrive(house: House, backend: Backend):
    months = [DatasetMonth(Dataset.GREEN, Month(2020, month)) for month in (3, 4)]
    for dataset_month in months:
        house.load(dataset_month)
    house.warehouse.create_tables(mart_tables(Dataset.GREEN))  # the emulator shows tables that are half created
    with ThreadPoolExecutor(2) as pool:
        built = list(pool.map(house.build, months))
    assert not any(each.unchanged for each in built)
    assert all(house.build(dataset_month).unchanged for dataset_month in months)
    assert set(marts_in_lake(house.lake, Dataset.GREEN)) == {Month(2020, 3), Month(2020, 4)}


def test_a_column_of_another_type_is_refused_by_name(duckdb_backend: Backend, tmp_path):
    house = House(tmp_path, duckdb_backend.warehouse)
    house.load(APRIL)
    duckdb_backend.execute("CREATE TABLE green_hours (trips VARCHAR)")
    with pytest.raises(WarehouseError, match=r"green_hours\.trips in .* is VARCHAR, not BIGINT"):
        house.build(APRIL)


def test_months_in_postgresql_have_no_partitions_of_their_own(postgres_backend: Backend, tmp_path):
    house = House(tmp_path, postgres_backend.warehouse)
    house.load(APRIL)
    house.build(APRIL)
    schema = postgres_backend.qualified("x").partition(".")[0]
    query = (
        "SELECT relkind::text, (SELECT count(*) FROM pg_index WHERE indrelid = c.oid) FROM pg_class c "
        f"WHERE relnamespace = '{schema}'::regnamespace AND relname LIKE 'green%hours%' AND relkind <> 'i'"
    )
    assert postgres_backend.execute(query) == [("r", 1)]


def test_the_check_of_a_run_trusts_what_the_run_compared_as_long_as_nothing_changed(duckdb_backend: Backend, tmp_path):
    house = House(tmp_path, duckdb_backend.warehouse)
    there = (house.lake, house.warehouse, APRIL, house.home)
    house.load(APRIL)
    rows = house.build(APRIL, run="first").rows
    duckdb_backend.execute("UPDATE green_hours SET trips = trips + 1")
    with pytest.raises(IntegrityError):  # marts that the run itself made are read again
        steps.check_marts(*there, "first")
    house.build(APRIL)
    assert house.build(APRIL, run="second").unchanged
    assert steps.check_marts(*there, "second") == rows
    for run, damage in (
        ("another", "UPDATE green_hours SET trips = trips + 1"),
        ("third", "DELETE FROM green_hours WHERE pickup_hour IS NOT NULL"),
    ):
        house.build(APRIL)
        assert house.build(APRIL, run="third").unchanged
        duckdb_backend.execute(damage)
        with pytest.raises(IntegrityError):
            steps.check_marts(*there, run)
    house.build(APRIL)
    assert house.build(APRIL, run="fourth").unchanged
    house.load(APRIL, "sample://?rows=200")  # its clean file is another one now
    with pytest.raises((IntegrityError, Conflict)):
        steps.check_marts(*there, "fourth")


@pytest.mark.bigquery
@pytest.mark.fault(35)
def test_marts_are_made_again_if_other_runs_had_another_version_of_the_trips_there_meanwhile(
    bigquery_backend: Backend, tmp_path, months: Months, monkeypatch
):
    """Only BigQuery shows other runs' months in the middle of a load."""
    house = House(tmp_path, bigquery_backend.warehouse)
    house.load(APRIL)
    insert_month, others = BigQuerySession.insert_month, [months("green", "2020-04", 700)]

    def insert_from_another_version(session, file):
        meanwhile = bool(others)
        if meanwhile:
            house.warehouse.replace_month(others.pop())
        insert_month(session, file)
        if meanwhile:
            steps.load(house.lake, house.warehouse, APRIL, house.home)

    monkeypatch.setattr(BigQuerySession, "insert_month", insert_from_another_version)
    house.build(APRIL)
    assert not others
    for name in ("hours", "quality"):
        assert comparable(stored(bigquery_backend, Dataset.GREEN, name)) == comparable(house.lake_rows(APRIL, name))


@pytest.mark.fault(97)
def test_a_mart_missing_damaged_or_left_over_in_the_lake_is_made_again(duckdb_backend: Backend, tmp_path):
    house = House(tmp_path, duckdb_backend.warehouse)
    house.load(APRIL)
    right = house.build(APRIL)
    key = f"marts/green/hours/month=2020-04/{right.file_version}-{right.mart_version}.parquet"
    content = house.lake.read(key)[0]
    left_over = key.replace(right.file_version, "0123456789ab")
    for damage in (
        lambda: house.lake.delete(key),
        lambda: house.lake.write(key, content[:-9]),
        lambda: house.lake.write(key, house.lake.read(key.replace("hours", "payments"))[0]),
        lambda: house.lake.write(left_over, content),
        lambda: house.lake.write(left_over.replace("hours", "quality"), content),
    ):
        damage()
        assert not house.build(APRIL).unchanged
        assert house.lake.read(key)[0] == content
        assert house.lake.stat(left_over) is None
        assert list(marts_in_lake(house.lake, Dataset.GREEN).values()) == [(right.file_version, right.mart_version)]
    assert house.build(APRIL).unchanged


def test_months_with_several_versions_or_without_all_marts_do_not_count_as_complete(tmp_path):
    lake, version = open_lake(tmp_path.as_uri()), mart_version(Dataset.FHV)
    for month, names, versions in (
        ("2021-01", mart_names(Dataset.FHV), ["0123456789ab"]),
        ("2021-02", mart_names(Dataset.FHV)[:-1], ["0123456789ab"]),
        ("2021-03", mart_names(Dataset.FHV), ["0123456789ab", "123456789abc"]),
    ):
        for name in names:
            for file_version in versions:
                lake.write(f"marts/fhv/{name}/month={month}/{file_version}-{version}.parquet", b"")
    lake.write("marts/fhv/notes.txt", b"by a person")
    assert marts_in_lake(lake, Dataset.FHV) == {Month(2021, 1): ("0123456789ab", version)}


def test_the_same_trips_give_the_same_bytes(tmp_path):
    contents = []
    for threads in (1, 4):
        home = tmp_path / str(threads)
        home.mkdir()
        house = House(home, open_warehouse(f"duckdb://{home}/warehouse.duckdb"))
        house.load(APRIL, "sample://?rows=5000")
        built = house.build(APRIL, engine=Engine(threads=threads))
        contents.append({name: house.lake.read(uri.partition("/lake/")[2])[0] for name, uri in built.uris.items()})
    assert contents[0] == contents[1]


GREEN = {
    "lpep_pickup_datetime": "pickup_datetime",
    "lpep_dropoff_datetime": "dropoff_datetime",
    "PULocationID": "pickup_location_id",
    "DOLocationID": "dropoff_location_id",
}
PUBLISHED = {
    "yellow_tripdata_2016-01.extract.csv": {
        "tpep_pickup_datetime": "pickup_datetime",
        "tpep_dropoff_datetime": "dropoff_datetime",
    },
    "fhv_tripdata_2020-04.extract.csv": {
        "dropOff_datetime": "dropoff_datetime",
        "PUlocationID": "pickup_location_id",
        "DOlocationID": "dropoff_location_id",
    },
    "green_tripdata_2020-04.csv.gz": GREEN,
    "green_tripdata_2020-11.csv.gz": GREEN,
    "green_tripdata_2024-01.parquet": GREEN,
}
"""Published file → its names of the columns that the marts use, where they are not the canonical ones."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_marts_of_published_files_are_what_pandas_makes_of_them(duckdb_backend: Backend, tmp_path, name):
    path = shared_file(f"files/{name}")
    shutil.copy(path, tmp_path / name)
    stem, _, ending = name.partition(".")
    dataset, _, month = stem.partition("_tripdata_")
    dataset_month = DatasetMonth.parse(dataset, month)
    house = House(tmp_path, duckdb_backend.warehouse)
    house.load(dataset_month, f"file://{tmp_path}/{{dataset}}_tripdata_{{month}}.{ending}")
    check_equal(house, duckdb_backend, dataset_month, published_trips(path, PUBLISHED[name]))


def published_trips(path: Path, names: dict[str, str]) -> pd.DataFrame:
    """The published file as pandas reads it, texts as they stand, under the canonical names."""
    if path.suffix == ".parquet":
        return pd.read_parquet(path).rename(columns=names)
    trips = pd.read_csv(path, dtype=str).rename(columns=names)
    for name in ("pickup_datetime", "dropoff_datetime"):
        trips[name] = pd.to_datetime(trips[name])
    return trips
