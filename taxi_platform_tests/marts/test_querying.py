"""docs/querying.md on `trips.duckdb`, from the page's own text, compared with the same answers computed in pandas."""

import duckdb
import pandas as pd
import pytest

from taxi_platform import load_mart, load_trips
from taxi_platform.ingestion.views import refresh_views, views_path
from taxi_platform.lake import open_lake
from taxi_platform.marts.tables import mart_tables
from taxi_platform.marts.views import VIEWS, labels
from taxi_platform.trips.known import taxi_zones
from taxi_platform.trips.months import Dataset, DatasetMonth
from taxi_platform_tests.support.querying_page import PAGE, QUERIES
from taxi_platform_tests.support.sample_home import make_sample_home

ZONES = pd.DataFrame(taxi_zones(), columns=["pickup_location_id", "borough", "zone", "service_zone"])


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A home with 2021-01 of yellow and fhvhv, their marts, and `trips.duckdb`."""
    home = tmp_path_factory.mktemp("querying")
    make_sample_home(home, [DatasetMonth.parse(dataset, "2021-01") for dataset in (Dataset.YELLOW, Dataset.FHVHV)])
    return home


@pytest.fixture
def answers(home, monkeypatch):
    """The rows of each query of the page."""
    monkeypatch.setenv("TAXI_HOME", str(home))
    with duckdb.connect(str(views_path(home)), read_only=True) as con:
        return [con.execute(query).fetchall() for _, query in QUERIES]


def test_the_page_has_the_four_questions_and_names_every_view():
    text = PAGE.read_text("utf-8")
    assert text.count("```sql") == len(QUERIES) == 4
    assert [name for name in VIEWS if f"| `{name}` |" not in text] == []


def test_the_answers_are_those_that_pandas_finds(answers):
    revenue, busiest, tips, shares = answers
    trips = load_trips("yellow", "2021-01").merge(ZONES, "left", "pickup_location_id")
    day = trips["pickup_datetime"].dt.date
    january = trips[trips["pickup_datetime"].dt.strftime("%Y-%m") == "2021-01"]
    expected = january.groupby([day, "borough"])["total_amount"].sum()
    assert {row[:2]: row[2] for row in revenue if row[1]} == expected.to_dict()

    by_hour = trips.groupby(["zone", "pickup_location_id", trips["pickup_datetime"].dt.hour]).size()
    most = by_hour.groupby(level=1).max()
    assert len(busiest) == len(most) > 50
    assert {(zone, hour, trips) for zone, hour, trips in busiest} <= {
        (zone, hour, trips) for (zone, _, hour), trips in by_hour.items()
    }
    assert sorted(row[2] for row in busiest) == sorted(most)

    grouped = trips.groupby("payment_type")
    paid = {labels()["payment_types"][code]: rows for code, rows in grouped}
    assert {name: (n, tipped, tip) for name, n, tipped, tip in tips if name} == {
        name: (len(rows), (rows["tip_amount"] > 0).sum(), rows["tip_amount"].sum()) for name, rows in paid.items()
    }

    counts = {"fhvhv": len(load_trips("fhvhv", "2021-01")), "yellow": len(trips)}
    assert [(str(month), dataset, n) for month, dataset, n, _ in shares] == [
        ("2021-01-01", dataset, n) for dataset, n in counts.items()
    ]
    assert [share for *_, share in shares] == pytest.approx([n / sum(counts.values()) for n in counts.values()])


def test_the_marts_of_trips_duckdb_are_those_of_python(home, monkeypatch):
    monkeypatch.setenv("TAXI_HOME", str(home))
    with duckdb.connect(str(views_path(home)), read_only=True) as con:
        for name in VIEWS:
            rows = con.execute(f"SELECT * FROM {name} ORDER BY ALL").fetchall()
            assert rows == load_mart(name, as_="duckdb").fetchall()
            assert rows
        described = con.execute("SELECT table_name, column_name, data_type FROM duckdb_columns()").fetchall()
    tables = [*VIEWS.values(), *(table for dataset in Dataset for table in mart_tables(dataset))]
    for table in tables:
        assert [row[1:] for row in described if row[0] == table.name] == [
            (column.name, column.duckdb_type) for column in table.columns
        ]


def test_marts_of_older_trips_or_of_another_version_do_not_show(home, monkeypatch):
    monkeypatch.setenv("TAXI_HOME", str(home))
    lake = open_lake((home / "lake").as_uri())
    (key,) = lake.list("marts/yellow/hours/month=2021-01/")
    folder, name = (home / "lake" / key).parent, key.rpartition("/")[2]
    older = "0123456789ab"
    left_behind = [folder / f"{older}{name[12:]}", folder / f"{name[:12]}-01234567.parquet"]
    before = load_mart("hours")["trips"].sum()
    with duckdb.connect() as con:  # as runs leave them that were killed before their sweep
        stored = f"SELECT * FROM read_parquet('{folder / name}')"
        con.execute(f"COPY ({stored}) TO '{left_behind[1]}' (FORMAT parquet)")
        renamed = f"SELECT * REPLACE ('{older}' AS file_version) FROM ({stored})"
        con.execute(f"COPY ({renamed}) TO '{left_behind[0]}' (FORMAT parquet)")
    refresh_views(lake, home)
    try:
        with duckdb.connect(str(views_path(home)), read_only=True) as con:
            assert con.execute("SELECT sum(trips) FROM hours").fetchone() == (before,)
    finally:
        for path in left_behind:
            path.unlink()
