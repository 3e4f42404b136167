"""Files without ETag and Last-Modified: the sensor and `taxi ingest` notice other bytes of the same length."""

import json

import duckdb
import pytest

from taxi_platform.lake.months import LakeMonth
from taxi_platform.runs.ingest import ingest_month
from taxi_platform.runs.result import IngestStatus
from taxi_platform.settings import load_settings
from taxi_platform_tests.automation.test_schedules import daemon  # noqa: F401
from taxi_platform_tests.ingestion.test_survey import CSV, GREEN, Place, fetched_long_ago
from taxi_platform_tests.support.web_server import Page, serving
from taxi_platform_tests.test_cli import taxi

FIRST, REPUBLISHED = (CSV.format(fare=fare).encode() for fare in ("10.00", "12.50"))
PATH = "/green_2020-04.csv.gz"


def fares(home):
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as con:
        return [float(fare) for (fare,) in con.execute("SELECT fare_amount FROM green_trips").fetchall()]


@pytest.mark.fault(54)
def test_the_sensor_asks_for_a_comparison_after_a_month_and_its_run_loads_the_other_bytes(daemon):  # noqa: F811
    house = Place(load_settings().home)
    page = daemon.web.pages[PATH] = Page(FIRST)
    assert ingest_month(daemon.instance, daemon.definitions, GREEN).status == IngestStatus.LOADED
    page.body = REPUBLISHED
    assert daemon.sensor()[0] == []
    fetched_long_ago(house)
    assert daemon.sensor()[0] == [GREEN.month]
    assert ingest_month(daemon.instance, daemon.definitions, GREEN).status == IngestStatus.LOADED
    assert fares(house.home) == [12.5]
    assert len(LakeMonth(house.lake, GREEN).versions()[0]) == 2
    assert daemon.sensor()[0] == []
    fetched_long_ago(house)
    assert daemon.sensor()[0] == [GREEN.month]
    assert ingest_month(daemon.instance, daemon.definitions, GREEN).status == IngestStatus.UNCHANGED
    assert daemon.sensor()[0] == []  # the comparison that found the same bytes holds for the next month


@pytest.mark.slow
@pytest.mark.fault(54)
def test_ingest_without_months_compares_after_a_month_and_loads_the_other_bytes(tmp_path):
    house = Place(tmp_path / "home")
    with serving() as web:
        page = web.pages[PATH] = Page(FIRST)

        def ingest():
            source = {"TAXI_SOURCE_URL": web.url + "/{dataset}_{month}.csv.gz", "TAXI_DATASETS": "green"}
            status, out, err = taxi("ingest", "--json", "--jobs", "1", TAXI_SINCE="2020-04", **source)
            assert status == 0, err
            return [(month["month"], month["status"]) for month in json.loads(out)]

        assert ingest() == [("2020-04", "loaded")]
        page.body = REPUBLISHED
        assert ingest() == []
        fetched_long_ago(house)
        assert ingest() == [("2020-04", "loaded")]
        assert fares(house.home) == [12.5]
        assert ingest() == []
