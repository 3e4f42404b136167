"""Homes made by earlier versions open unchanged. `scripts/make_kept_home.py` made them and lists what they hold."""

import json
import os
import subprocess
import tarfile
from collections import Counter
from pathlib import Path

import dagster as dg
import duckdb
import pyarrow.parquet as pq
import pytest

from taxi_platform.assets.names import PARTITION_TAG, RANGE_END_TAG, RANGE_START_TAG
from taxi_platform.notifications.outbox import Outbox
from taxi_platform.runs.instance import open_instance
from taxi_platform.settings import load_settings
from taxi_platform_tests.support.system import TAXI

KEPT = Path(__file__).parents[1] / "kept"
HOMES = {"d32961b": "marts due", "447be77": "loaded"}
"""The commit that made a home → the status of its months today; the first had no marts."""
ROWS = {"2020-01": (299, 1), "2020-02": (299, 1), "2020-04": (299, 1), "2020-05": (284, 16), "2020-06": (199, 1)}
"""Month → rows in `green_trips` and in `green_rejected_trips`."""
RESTORED = ["affef7a2f94c", "fbc33ff28a80", "affef7a2f94c"]
"""The raw versions of 2020-06 in order: fetched, republished, and the first one restored."""
SUCCESS, FAILURE = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE


@pytest.fixture(params=HOMES)
def commit(request):
    return request.param


@pytest.fixture
def home(commit, tmp_path, monkeypatch):
    with tarfile.open(KEPT / f"home_{commit}.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.setenv("TAXI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TAXI_DATASETS", "green")
    monkeypatch.setenv("TAXI_SOURCE_URL", "sample://?rows=300")
    return tmp_path / "home"


def taxi(*arguments):
    """The command's JSON."""
    ended = subprocess.run([TAXI, *arguments, "--json"], env=os.environ, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def table_rows(home, table):
    """Month → number of rows."""
    with duckdb.connect(home / "warehouse.duckdb", read_only=True) as con:
        return dict(con.sql(f"SELECT strftime(file_month, '%Y-%m'), count(*) FROM {table} GROUP BY 1").fetchall())


def test_every_month_has_its_status_rows_and_raw_versions(home, commit):
    months = {month["month"]: month for month in taxi("status") if month["month"] in ROWS}
    assert {month: (entry["rows"], entry["rows_rejected"]) for month, entry in months.items()} == ROWS
    stages = {month: entry["stage"] for month, entry in months.items()}
    # 2020-05 was cleaned with a reject rule that TAXI_REJECT does not name.
    assert stages == {month: "outdated" if month == "2020-05" else HOMES[commit] for month in ROWS}
    assert table_rows(home, "green_trips") == {month: rows for month, (rows, _) in ROWS.items()}
    assert table_rows(home, "green_rejected_trips") == {month: rejected for month, (_, rejected) in ROWS.items()}
    listed = subprocess.run([TAXI, "versions", "green", "2020-06"], capture_output=True, text=True, timeout=300)
    assert [line.split()[0] for line in listed.stdout.splitlines()[1:]] == RESTORED


def test_a_month_shows_why_it_failed_also_where_its_run_had_a_range_instead_of_a_partition(home, commit):
    with open_instance(load_settings()) as instance:
        [run] = instance.get_runs(dg.RunsFilter(statuses=[FAILURE]))
    tags = {"d32961b": {RANGE_START_TAG, RANGE_END_TAG}, "447be77": {PARTITION_TAG}}[commit]
    assert {tag for tag in (RANGE_START_TAG, RANGE_END_TAG, PARTITION_TAG) if run.tags.get(tag) == "2020-03"} == tags
    [month] = [entry for entry in taxi("status") if entry["month"] == "2020-03"]
    assert month["stage"] == "failed"
    assert "HTML" in month["problem"]


@pytest.mark.fault(98)
def test_a_month_that_is_loaded_is_unchanged_but_for_its_marts(home, commit):
    clean = home / "lake" / "clean" / "green" / "month=2020-06" / "trips.parquet"
    before = clean.read_bytes()
    for status in ("marts built" if HOMES[commit] == "marts due" else "unchanged", "unchanged"):
        results = taxi("ingest", "green", "2020-06")
        assert [(month["month"], month["status"]) for month in results] == [("2020-06", status)]
    assert clean.read_bytes() == before
    assert table_rows(home, "green_trips")["2020-06"] == ROWS["2020-06"][0]
    with duckdb.connect(home / "warehouse.duckdb", read_only=True) as con:
        marts = con.sql("SELECT sum(trips) FROM green_hours WHERE file_month = DATE '2020-06-01'").fetchall()
    assert marts == [(ROWS["2020-06"][0],)]


def test_a_month_that_is_cleaned_again_has_the_same_rows_and_is_unchanged_afterwards(home):
    """Another version of DuckDB writes the same rows in other bytes: no reason to clean or load a month again."""
    clean = home / "lake" / "clean" / "green" / "month=2020-01" / "trips.parquet"
    rows, content = pq.read_table(clean), clean.read_bytes()
    assert [month["status"] for month in taxi("ingest", "green", "2020-01", "--force")] == ["loaded"]
    assert clean.read_bytes() != content
    assert pq.read_table(clean).equals(rows)
    assert [month["status"] for month in taxi("ingest", "green", "2020-01")] == ["unchanged"]
    assert [problem for month in taxi("audit", "green", "2020-01") for problem in month["problems"]] == []


def test_runs_backfills_and_pending_notifications_are_read(home):
    with open_instance(load_settings()) as instance:
        runs = [(run.job_name, run.status) for run in instance.get_runs()]
        backfills = [backfill.status.value for backfill in instance.get_backfills()]
        months = instance.get_materialized_partitions(dg.AssetKey(["green", "trips"]))
    assert Counter(runs) == {("green_ingest", SUCCESS): 5, ("__ASSET_JOB", SUCCESS): 2, ("__ASSET_JOB", FAILURE): 1}
    assert backfills == ["COMPLETED_FAILED", "COMPLETED_SUCCESS"]
    assert months == set(ROWS)
    assert Outbox(home).waiting() == 1
