"""The views over the marts: the same rows in every warehouse, by hand-made marts whose answers are known."""

import dataclasses
import datetime
import re
from collections import Counter
from decimal import Decimal
from urllib.parse import quote

import pyarrow.parquet as pq
import pytest

from taxi_platform.ingestion.mart_views import create_views, try_create_views
from taxi_platform.marts.tables import mart_names, mart_table
from taxi_platform.marts.views import VIEWS
from taxi_platform.trips.casting import literal
from taxi_platform.trips.contract import Column
from taxi_platform.trips.errors import WarehouseError
from taxi_platform.trips.known import taxi_zones
from taxi_platform.trips.months import Dataset
from taxi_platform.warehouse import open_warehouse
from taxi_platform.warehouse.base import zones_table
from taxi_platform_tests.support.querying_page import QUERIES

JANUARY, VERSION = datetime.date(2021, 1, 1), "0123456789ab"
DAY = datetime.date(2021, 1, 15)
IN_FEBRUARY = datetime.date(2021, 2, 1)
MONEY = Decimal("12.50")
NUMBER = Column("answer", "I", "")


def when(day, hour):
    return datetime.datetime.combine(day, datetime.time(hour))


ROWS = {
    "yellow_daily_zones": [
        (DAY, 132, 3, 4, Decimal("30.25"), 3600, MONEY, MONEY, MONEY, MONEY),
        (DAY, 264, 1, None, None, None, MONEY, MONEY, MONEY, MONEY),
        (DAY, 999, 1, 1, Decimal("1.00"), -60, MONEY, MONEY, MONEY, MONEY),
        (DAY, None, 2, 2, Decimal("2.00"), 120, MONEY, MONEY, MONEY, MONEY),
        (IN_FEBRUARY, 132, 1, 1, Decimal("0.01"), 1, MONEY, MONEY, MONEY, MONEY),
    ],
    "fhv_daily_zones": [(DAY, 132, 5, None, None, 7200, None, None, None, None)],
    "yellow_hours": [(when(DAY, 8), 7, MONEY), (when(IN_FEBRUARY, 0), 1, MONEY)],
    "fhv_hours": [(when(DAY, 9), 4, None)],
    "fhvhv_hours": [(when(DAY, 9), 12, MONEY)],
    "yellow_zone_pairs": [(132, 1, 2, Decimal("20.00"), 60, MONEY), (None, 265, 1, None, None, None)],
    "yellow_payments": [(DAY, 1, 5, 4, MONEY, MONEY), (DAY, None, 2, 0, None, MONEY), (DAY, 7, 1, 0, None, MONEY)],
    "fhvhv_companies": [("HV0003", 8), ("HV0005", 3), (None, 1)],
    "yellow_quality": [("read", "", 9), ("clean", "", 8), ("rejected", "invalid_value", 1)],
}
"""Table → rows of January 2021, without file month and version."""

OF_FILE = (JANUARY, VERSION)
EXPECTED = {
    "trips_by_day": [
        ("fhv", DAY, True, 5, None, None, 7200, None, None, None, None, *OF_FILE),
        ("yellow", DAY, True, 7, 7, Decimal("33.25"), 3660, *[4 * MONEY] * 4, *OF_FILE),
        ("yellow", IN_FEBRUARY, False, 1, 1, Decimal("0.01"), 1, *[MONEY] * 4, *OF_FILE),
    ],
    "hours": [
        ("fhv", when(DAY, 9), True, 4, None, *OF_FILE),
        ("fhvhv", when(DAY, 9), True, 12, MONEY, *OF_FILE),
        ("yellow", when(DAY, 8), True, 7, MONEY, *OF_FILE),
        ("yellow", when(IN_FEBRUARY, 0), False, 1, MONEY, *OF_FILE),
    ],
    "zone_pairs": [
        (
            *("yellow", 132, "Queens", "JFK Airport", 1, "EWR", "Newark Airport"),
            *(2, Decimal("20.00"), 60, MONEY, *OF_FILE),
        ),
        ("yellow", None, None, None, 265, "N/A", "Outside of NYC", 1, None, None, None, *OF_FILE),
    ],
    "payments": [
        ("yellow", DAY, True, 1, "credit card", 5, 4, MONEY, MONEY, *OF_FILE),
        ("yellow", DAY, True, 7, None, 1, 0, None, MONEY, *OF_FILE),
        ("yellow", DAY, True, None, None, 2, 0, None, MONEY, *OF_FILE),
    ],
    "quality": [
        ("yellow", "clean", "", 8, *OF_FILE),
        ("yellow", "read", "", 9, *OF_FILE),
        ("yellow", "rejected", "invalid_value", 1, *OF_FILE),
    ],
    "market_share": [
        (JANUARY, "fhv", "fhv", "Other for-hire vehicles", 4, 4 / 24, 3),
        (JANUARY, "fhvhv", "HV0003", "Uber", 8, 8 / 24, 3),
        (JANUARY, "fhvhv", "HV0005", "Lyft", 3, 3 / 24, 3),
        (JANUARY, "fhvhv", None, None, 1, 1 / 24, 3),
        (JANUARY, "yellow", "yellow", "Yellow taxis", 8, 8 / 24, 3),
    ],
}


def fill(backend, dataset, name):
    """Insert the table's rows of `ROWS`."""
    table = mart_table(dataset, name)
    with backend.warehouse.session("read") as session:
        types = [session.type_of(column) for column in table.columns]
    rows = [
        ", ".join(
            "NULL" if value is None else f"CAST({literal(str(value))} AS {type_})"
            for value, type_ in zip((*row, *OF_FILE), types, strict=True)
        )
        for row in ROWS.get(table.name, ())
    ]
    if rows:
        backend.execute(f"INSERT INTO {backend.qualified(table.name)} VALUES ({'), ('.join(rows)})")


def read(backend, name):
    return sorted((tuple(row) for row in backend.execute(f"SELECT * FROM {backend.qualified(name)}")), key=repr)


def answers(backend):
    """The rows of each query of docs/querying.md."""
    tables = "|".join([*VIEWS, "yellow_trips", "taxi_zones"])
    qualified = [
        re.sub(rf"(FROM|JOIN) ({tables})\b", lambda m: f"{m[1]} {backend.qualified(m[2])}", query)
        for _, query in QUERIES
    ]
    return [sorted((tuple(row) for row in backend.execute(query)), key=repr) for query in qualified]


def busiest_hours(path):
    """What the page's second query says of a file of trips."""
    names = {number: zone for number, _, zone, _ in taxi_zones()}
    table = pq.read_table(path, columns=["pickup_location_id", "pickup_datetime"]).to_pylist()
    counts = Counter((row["pickup_location_id"], row["pickup_datetime"].hour) for row in table)
    best = {}
    for (zone, hour), trips in counts.items():
        best[zone] = max(best.get(zone, (0, 0)), (trips, -hour))
    return sorted(((names[zone], -hour, trips) for zone, (trips, hour) in best.items() if zone in names), key=repr)


def test_every_warehouse_gives_the_same_rows(backend, months):
    datasets = [Dataset.YELLOW, Dataset.FHV, Dataset.FHVHV]
    assert create_views(backend.warehouse, datasets) == tuple(VIEWS)
    with backend.warehouse.session("create") as session:
        session.replace_rows(zones_table(), taxi_zones())
    for dataset in datasets:
        for name in mart_names(dataset):
            fill(backend, dataset, name)
    for name, rows in EXPECTED.items():
        assert read(backend, name) == sorted(rows, key=repr)
    assert create_views(backend.warehouse, datasets) == ()
    trips = months("yellow", "2021-01")
    backend.warehouse.replace_month(trips)
    assert answers(backend) == [
        [(DAY, "Queens", MONEY), (DAY, "Unknown", MONEY), (DAY, None, 2 * MONEY)],
        busiest_hours(trips.trips),
        [("credit card", 5, 4, MONEY), (None, 3, 0, None)],
        [(JANUARY, "fhv", 4, 4 / 24), (JANUARY, "fhvhv", 12, 12 / 24), (JANUARY, "yellow", 8, 8 / 24)],
    ]


@pytest.mark.parametrize("backend", ["duckdb", "postgres"], indirect=True)
def test_the_views_cover_the_datasets_of_the_platform_and_are_replaced_when_these_change(backend):
    create_views(backend.warehouse, [Dataset.FHV])
    assert [read(backend, name) for name in VIEWS] == [[]] * 7
    fill(backend, Dataset.FHV, "hours")
    assert read(backend, "market_share") == [(JANUARY, "fhv", "fhv", "Other for-hire vehicles", 4, 1.0, 1)]
    made = create_views(backend.warehouse, [Dataset.FHV, Dataset.YELLOW])
    assert made == tuple(VIEWS)
    fill(backend, Dataset.YELLOW, "hours")
    assert [row[1:6] for row in read(backend, "market_share")] == [
        ("fhv", "fhv", "Other for-hire vehicles", 4, 4 / 12),
        ("yellow", "yellow", "Yellow taxis", 8, 8 / 12),
    ]


@pytest.mark.fault(99)
def test_somebodys_own_table_stays_and_the_other_views_are_made(backend):
    create_views(backend.warehouse, [])
    with backend.warehouse.session("create") as session:
        session.execute(f"DROP VIEW {session.name('hours')}")
        session.execute(f"CREATE TABLE {session.name('hours')} (answer {session.type_of(NUMBER)})")
    backend.execute(f"INSERT INTO {backend.qualified('hours')} VALUES (42)")
    said = []
    try_create_views(backend.warehouse, [Dataset.GREEN], said.append)
    assert len(said) == 1
    assert re.search("not up to date: hours in .*: not made by taxi_platform, .* Rename them", said[0])
    assert read(backend, "hours") == [(42,)]
    with backend.warehouse.session("read") as session:
        versions = session.relations()
    assert {name for name in VIEWS if versions[name] is None} == {"hours"}
    assert "green_hours" in versions


def test_the_columns_have_the_declared_names_types_and_meanings(duckdb_backend):
    create_views(duckdb_backend.warehouse, list(Dataset))
    described = duckdb_backend.execute("SELECT table_name, column_name, data_type, comment FROM duckdb_columns()")
    for view in VIEWS.values():
        assert [row[1:] for row in described if row[0] == view.name] == [
            (column.name, column.duckdb_type, column.description) for column in view.columns
        ]


@pytest.mark.fault(100)
def test_a_user_of_postgresql_without_the_right_to_create_is_told_which_one(postgres_backend):
    create_views(postgres_backend.warehouse, [Dataset.GREEN])
    schema = postgres_backend.qualified("x").split(".")[0]
    postgres_backend.execute(f"GRANT USAGE ON SCHEMA {schema} TO loader")
    login, _, address = postgres_backend.address.partition("@")
    assert login == "postgresql://postgres:"
    address = f"postgresql://loader:{quote('s3cret/word', safe='')}@{address}"
    said = []
    try_create_views(open_warehouse(address), [Dataset.FHV], said.append)
    assert len(said) == 1
    assert f"GRANT CREATE, USAGE ON SCHEMA {schema}" in said[0]
    assert read(postgres_backend, "hours") == []


def test_a_view_of_postgresql_gets_other_columns_unless_other_views_depend_on_it(postgres_backend):
    warehouse = postgres_backend.warehouse
    create_views(warehouse, [Dataset.GREEN])
    older = dataclasses.replace(VIEWS["hours"], columns=())
    with warehouse.session("create") as session:
        session.execute(f"DROP VIEW {session.name('hours')}")
        session.replace_view(older, "SELECT 1 AS older", "0000")
    assert create_views(warehouse, [Dataset.GREEN]) == ("hours",)
    assert read(postgres_backend, "hours") == []
    with warehouse.session("create") as session:
        session.execute(f"DROP VIEW {session.name('hours')}")
        session.replace_view(older, "SELECT 1 AS older", "0000")
        session.execute(f"CREATE VIEW {session.name('own')} AS SELECT * FROM {session.name('hours')}")
    with pytest.raises(WarehouseError, match=r"hours in .* gets other columns, but your own views depend on it"):
        create_views(warehouse, [Dataset.GREEN])
    assert read(postgres_backend, "own") == [(1,)]
