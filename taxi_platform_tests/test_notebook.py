"""`examples/first_look.py`: its numbers are those of the trips, it runs as a script, and it waits for no load."""

import json
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
import vl_convert

from taxi_platform import load_trips
from taxi_platform.ingestion import steps
from taxi_platform.lake import open_lake
from taxi_platform.sources import open_source
from taxi_platform.trips.engine import Engine
from taxi_platform.trips.months import DatasetMonth
from taxi_platform_tests.support.lake_marts import add_marts

NOTEBOOK = Path(__file__).parents[1] / "examples" / "first_look.py"
CSV = "Dispatching_base_num,Pickup_date\nB00013,2015-01-01 00:30:00\nB00013,2015-01-02 01:22:00\n"


def bring(home, dataset, month, source="sample://?rows=400"):
    lake, dataset_month = open_lake((home / "lake").as_uri()), DatasetMonth.parse(dataset, month)
    steps.fetch(open_source(source), lake, dataset_month, home)
    steps.clean(lake, dataset_month, home, Engine("512MB", 1))
    add_marts(lake, dataset_month, home)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The home that the settings name, with nothing in it."""
    monkeypatch.setenv("TAXI_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def run_notebook():
    """What its cells define."""
    namespace = {"__name__": "first_look", "__file__": str(NOTEBOOK)}
    exec(compile(NOTEBOOK.read_text("utf-8"), str(NOTEBOOK), "exec"), namespace)
    _, defined = namespace["app"].run()
    return defined


def rows_of(chart):
    """The rows that a chart draws, as JSON has them: of decimals and Arrow's dates there is none."""
    (rows,) = json.loads(chart.to_json())["datasets"].values()
    return rows


def test_charts_and_map_have_the_numbers_of_the_trips(home):
    bring(home, "green", "2021-01")
    bring(home, "green", "2021-02")
    defined = run_notebook()
    trips, newest = load_trips("green", "2021-01", "2021-02"), load_trips("green", "2021-02")
    assert sum(row["trips"] for row in rows_of(defined["by_day"])) == len(trips) - outside(trips)
    by_hour = {}
    for row in rows_of(defined["by_hour"]):
        by_hour[row["hour"]] = by_hour.get(row["hour"], 0) + row["trips"]
    assert by_hour == newest["pickup_datetime"].dt.hour.value_counts().to_dict()
    zones = newest["pickup_location_id"].value_counts().to_dict()
    assert dict(zip(defined["pickups"]["pickup_location_id"], defined["pickups"]["trips"], strict=True)) == zones
    assert len(defined["busiest"]) == min(10, len(zones))
    drawn = vl_convert.vegalite_to_svg(defined["zone_map"].to_dict())
    assert drawn.count("<path") > 200


def outside(trips):
    """How many trips are stamped outside of their file's month."""
    return int((trips["pickup_datetime"].dt.strftime("%Y-%m") != trips["file_month"].astype(str).str[:7]).sum())


def test_without_any_month_and_without_zones_it_says_so(home, tmp_path):
    assert "by_day" not in run_notebook()
    (tmp_path / "fhv_2015-01.csv").write_text(CSV)
    bring(home, "fhv", "2015-01", f"file://{tmp_path}/{{dataset}}_{{month}}.csv")
    defined = run_notebook()
    assert [row["trips"] for row in rows_of(defined["by_day"])] == [1, 1]
    assert "zone_map" not in defined


def test_as_a_script_it_waits_for_no_load(home):
    bring(home, "green", "2021-01")
    with duckdb.connect(str(home / "warehouse.duckdb")):  # as a load holds it
        done = subprocess.run([sys.executable, NOTEBOOK], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
