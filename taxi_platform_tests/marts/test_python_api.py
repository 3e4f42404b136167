"""Months as data frames: the values, what is refused, and what is not imported."""

import datetime
import doctest
import shutil
import subprocess
import sys
from contextlib import contextmanager
from decimal import Decimal

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from taxi_platform import load_mart, load_rejected, load_trips, months, zone_shapes
from taxi_platform.ingestion import steps
from taxi_platform.lake import open_lake
from taxi_platform.marts.views import VIEWS
from taxi_platform.settings import load_settings
from taxi_platform.sources import open_source
from taxi_platform.trips.contract import contract_of
from taxi_platform.trips.engine import Engine
from taxi_platform.trips.errors import IntegrityError, LakeError, UserError
from taxi_platform.trips.months import Dataset, DatasetMonth
from taxi_platform_tests.support.lake_marts import add_marts

COLUMNS = [column.name for column in contract_of(Dataset.GREEN).table_columns]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A home whose lake has 400 rows of green in each of 2021-01 and 2021-02, one of them rejected, and their marts."""
    home = tmp_path_factory.mktemp("made")
    lake, source = open_lake((home / "lake").as_uri()), open_source("sample://?rows=400", [Dataset.GREEN])
    for month in ("2021-01", "2021-02"):
        dataset_month = DatasetMonth.parse("green", month)
        steps.fetch(source, lake, dataset_month, home)
        steps.clean(lake, dataset_month, home, Engine("512MB", 1))
        add_marts(lake, dataset_month, home)
    return home


@pytest.fixture
def lake(made, monkeypatch, tmp_path):
    """A copy of that lake, which the settings name."""
    home = tmp_path / "ho me [1]*"
    shutil.copytree(made, home)
    monkeypatch.setenv("TAXI_HOME", str(home))
    return open_lake(load_settings().lake_url)


def stored(lake, month):
    return pq.read_table(lake.open(f"clean/green/month={month}/trips.parquet"))


def test_a_range_has_every_trip_of_its_months_in_order_with_exact_types(lake):
    trips = load_trips("green", "2021-01", "2021-02")
    expected = pa.concat_tables([stored(lake, "2021-01"), stored(lake, "2021-02")])
    assert months("green") == ["2021-01", "2021-02"]
    assert list(trips.columns) == COLUMNS
    assert len(trips) == 798
    assert pa.Table.from_pandas(trips, preserve_index=False).cast(expected.schema).equals(expected)
    assert trips.dtypes["passenger_count"] == pd.ArrowDtype(pa.int64())
    assert isinstance(trips["fare_amount"].iloc[0], Decimal)


@pytest.mark.parametrize("form", ["pandas", "arrow", "duckdb"])
def test_every_form_has_the_columns_and_rows_that_were_asked_for(lake, form):
    result = load_trips(
        "green", "2021-01", columns=["total_amount", "trip_distance"], where="passenger_count > 1", as_=form
    )
    file = stored(lake, "2021-01")
    expected = file.filter(pc.greater(file["passenger_count"], 1)).select(["total_amount", "trip_distance"])
    if form == "pandas":
        result = pa.Table.from_pandas(result, preserve_index=False)
    elif form == "duckdb":
        result = result.to_arrow_table()
    assert 0 < expected.num_rows < file.num_rows
    assert result.cast(expected.schema).equals(expected)


def test_rejected_rows_come_with_their_reason_and_text(lake):
    rejected = load_rejected("green", "2021-01", "2021-02")
    assert len(rejected) == 2
    assert list(rejected["file_month"]) == [datetime.date(2021, 1, 1), datetime.date(2021, 2, 1)]
    assert rejected["text"].str.len().min() > 0
    assert set(rejected["reason"]) <= {"too_few_fields", "too_many_fields", "invalid_value"}


def test_a_column_that_an_older_contract_lacks_is_null(lake):
    key = "clean/green/month=2021-01/trips.parquet"
    older = stored(lake, "2021-01").drop_columns(["cbd_congestion_fee"])
    sink = pa.BufferOutputStream()
    pq.write_table(older, sink)
    lake.write(key, sink.getvalue().to_pybytes())
    trips = load_trips("green", "2021-01", "2021-02", columns=["cbd_congestion_fee", "total_amount"])
    assert trips["cbd_congestion_fee"].isna().all()
    assert trips["total_amount"].notna().sum() == 798


def test_a_mart_has_the_sums_of_its_months_with_the_names_of_zones(lake):
    trips = load_trips("green", "2021-01", "2021-02")
    zones = load_mart("daily_zones", "2021-01", "2021-02", dataset="green")
    assert [zones["trips"].sum(), zones["total_amount"].sum()] == [798, trips["total_amount"].sum()]
    counted = trips.groupby([trips["pickup_datetime"].dt.date, "pickup_location_id"]).size()
    by_zone = zones.groupby(["pickup_date", "pickup_location_id"])["trips"].sum()
    assert by_zone.to_dict() == counted.to_dict()
    assert set(zones.loc[zones["pickup_location_id"] == 74, "pickup_zone"]) == {"East Harlem North"}
    assert zones.dtypes["in_month"] == pd.ArrowDtype(pa.bool_())
    assert load_mart("daily_zones").equals(zones)


def test_a_mart_comes_in_the_columns_rows_order_and_form_that_were_asked_for(lake):
    shares = load_mart("market_share", columns=["company_name", "share", "trips"], as_="arrow")
    assert shares.to_pylist() == [{"company_name": "Green taxis", "share": 1.0, "trips": 399}] * 2
    paid = load_mart("payments", "2021-01", where="payment_type = 1", columns=["payment"], as_="duckdb")
    assert set(paid.fetchall()) == {("credit card",)}
    days = load_mart("trips_by_day", "2021-02")
    assert list(days["pickup_date"]) == sorted(days["pickup_date"])
    assert set(days["file_month"]) == {datetime.date(2021, 2, 1)}


@pytest.mark.parametrize("name", VIEWS)
def test_every_mart_has_its_columns_also_where_no_month_is_loaded(monkeypatch, tmp_path, name):
    monkeypatch.setenv("TAXI_HOME", str(tmp_path))
    for dataset in (None, "fhvhv"):
        if dataset and name == "payments":
            continue
        mart = load_mart(name, dataset=dataset)
        assert list(mart.columns) == [column.name for column in VIEWS[name].columns]
        assert len(mart) == 0


@pytest.mark.fault(101)
@pytest.mark.parametrize("change", ["missing", "older"])
def test_marts_that_are_missing_or_older_than_their_trips_are_refused(lake, change):
    january = DatasetMonth.parse("green", "2021-01")
    if change == "missing":
        (key,) = lake.list("marts/green/hours/month=2021-01/")
        lake.delete(key)
    else:
        steps.clean(lake, january, load_settings().home, Engine("512MB", 1), ["zero_passengers"])
    with pytest.raises(
        UserError, match=r"Without marts of their present trips .*: green 2021-01\. .* taxi ingest green 2021-01"
    ):
        load_mart("trips_by_day", "2021-01", "2021-02")
    assert load_mart("trips_by_day", "2021-02")["trips"].sum() == 399


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "hour"}, "Did you mean hours?"),
        ({"name": "x"}, "Choose from trips_by_day, daily_zones"),
        ({"dataset": "blue"}, "'blue' is not a dataset"),
        ({"first": "2021-01", "last": "2021-04"}, "green 2021-03, 2021-04. Load the months first"),
        ({"first": "2021-01", "dataset": "yellow"}, "yellow 2021-01. Load the months first"),
        ({"first": "2012-01"}, "2012-01 of any dataset"),
        ({"last": "2021-01"}, "Name the first month"),
        ({"name": "payments", "dataset": "fhv"}, "fhv has no payments"),
        ({"columns": ["trip"]}, "Did you mean trips?"),
        ({"where": "true; DROP TABLE hours"}, "where cannot be evaluated"),
        ({"where": "SELECT 1"}, "where cannot be evaluated"),
        ({"max_bytes": 1000}, "would take"),
    ],
)
def test_mistakes_about_marts_are_named(lake, arguments, message):
    with pytest.raises(UserError) as caught:
        load_mart(**({"name": "hours"} | arguments))
    assert message in str(caught.value)


def test_a_month_whose_clean_file_is_missing_is_named(lake):
    lake.delete("clean/green/month=2021-01/trips.parquet")
    for load in (load_trips, load_rejected):
        with pytest.raises(UserError, match=r"Not in the lake .*: green 2021-01\. Load the months first"):
            load("green", "2021-01", "2021-02")


@pytest.mark.parametrize("function", [load_trips, load_rejected, load_mart])
def test_the_examples_of_the_docstrings_run(lake, function):
    examples = doctest.DocTestParser().get_examples(function.__doc__)
    assert len(examples) >= 1
    for example in examples:
        # The lake of this test has green months alone.
        source = example.source.replace('"yellow"', '"green"').replace("2021-03", "2021-02")
        exec(source, {"load_trips": load_trips, "load_rejected": load_rejected, "load_mart": load_mart})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "blue"}, "'blue' is not a dataset"),
        ({"first": "2021-1"}, "'2021-1' is not a month"),
        ({"last": "2020-12"}, "2020-12 is before 2021-01"),
        ({"last": "2021-04"}, "green 2021-03, 2021-04. Load the months first"),
        ({"columns": ["fare_amonut"]}, "Did you mean fare_amount?"),
        ({"columns": "fare_amount"}, "columns is not a list of names"),
        ({"columns": ["fare_amount", "fare_amount"]}, "named twice"),
        ({"as_": "csv"}, "as_ takes one of pandas, arrow, polars, duckdb"),
        ({"where": "SELECT 1"}, "where cannot be evaluated"),
        ({"where": "true; DROP TABLE trips"}, "where cannot be evaluated"),
        ({"where": "true) UNION ALL (SELECT 1"}, "where cannot be evaluated"),
        ({"where": "fare > 1"}, '"fare" not found'),
        ({"where": "store_and_fwd_flag > 1"}, "where cannot be evaluated"),
        ({"max_bytes": 50_000}, "399 rows of 29 columns would take 0.1 MB of memory"),
    ],
)
def test_mistakes_are_named(lake, arguments, message):
    with pytest.raises(UserError) as caught:
        load_trips(**({"dataset": "green", "first": "2021-01"} | arguments))
    assert message in str(caught.value)


def test_a_filter_counts_towards_the_limit(lake):
    few = load_trips("green", "2021-01", where="trip_distance > 10", max_bytes=50_000)
    assert 0 < len(few) < 200


def test_a_damaged_file_is_named_instead_of_read(lake):
    lake.write("clean/green/month=2021-01/trips.parquet", b"PAR1 not a Parquet file PAR1")
    with pytest.raises(IntegrityError, match="cannot be read"):
        load_trips("green", "2021-01")


def test_a_file_that_is_removed_before_it_is_read_is_named(lake, monkeypatch):
    local_copy = type(lake).local_copy

    @contextmanager
    def removed_by_another_run(lake, key, folder):
        with local_copy(lake, key, folder) as path:
            path.unlink(missing_ok=True)
            yield path

    monkeypatch.setattr(type(lake), "local_copy", removed_by_another_run)
    with pytest.raises(LakeError, match="is missing"):
        load_rejected("green", "2021-01")


def test_the_package_imports_its_python_api_only_when_it_is_used():
    code = (
        "import sys, taxi_platform\n"
        "assert 'duckdb' not in sys.modules\n"
        "taxi_platform.load_trips\n"
        "print(*{'dagster', 'pandas', 'pyarrow', 'google'} & set(sys.modules))"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.split() == []


def test_the_first_month_of_a_process_waits_for_nothing_that_reading_does_not_need(lake):
    code = (
        "import sys, taxi_platform\n"
        "print(len(taxi_platform.load_trips('green', '2021-01', as_='arrow')))\n"
        "from taxi_platform.trips.contract import contract_of\n"
        "print(contract_of.cache_info().currsize, *{'filelock', 'tenacity', 'sqlglot', 'pandas'} & set(sys.modules))"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.split() == ["399", "1"]


def test_shapes_name_the_zones_that_have_one():
    shapes = zone_shapes()["objects"]["zones"]["geometries"]
    named = {shape["properties"]["location_id"] for shape in shapes}
    assert named == set(range(1, 264)) - {57, 104, 105}
