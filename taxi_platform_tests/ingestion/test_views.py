"""`trips.duckdb`: what it shows, and that nobody who reads it blocks a load or is blocked by one."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest

from taxi_platform.ingestion import steps
from taxi_platform.ingestion.views import FOLDER, SEEN, refresh_views, views_path
from taxi_platform.lake import open_lake
from taxi_platform.sources import open_source
from taxi_platform.trips.contract import contract_of
from taxi_platform.trips.engine import Engine
from taxi_platform.trips.errors import LakeError
from taxi_platform.trips.months import Dataset, DatasetMonth
from taxi_platform_tests.support.lake_marts import add_marts
from taxi_platform_tests.support.system import small_file_system

READER = """
import sys, duckdb
path, done = sys.argv[1:]
con = duckdb.connect(path, read_only=True)
print("reading", flush=True)
reads = 0
while not __import__("os").path.exists(done):
    query = "SELECT count(DISTINCT file_version), count(*) FROM green_trips"
    try:
        versions = con.execute(query).fetchall()
    except duckdb.Error as error:  # DuckDB opened the file once before the replacement and once after it
        assert "Invalid data" in str(error), error
        versions = con.execute(query).fetchall()
    assert versions in ([(1, 299)], [(1, 298)]), versions
    reads += 1
print(reads)
"""


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home [1]"  # a glob would take it for a pattern


@pytest.fixture
def lake(home):
    lake = open_lake((home / "lake").as_uri())
    for change in lake.plan():
        change.apply()
    return lake


def bring(lake, home, month="2020-04", dataset="green", rows=300, reject=()):
    dataset_month = DatasetMonth.parse(dataset, month)
    steps.fetch(open_source(f"sample://?rows={rows}"), lake, dataset_month, home)
    return steps.clean(lake, dataset_month, home, Engine(), reject)


def escaped(path):
    return str(path).replace("[", "[[]")


def ask(home, query):
    with duckdb.connect(str(views_path(home)), read_only=True) as con:
        return con.execute(query).fetchall()


def test_without_any_month_the_views_are_there_and_empty(lake, home):
    assert refresh_views(lake, home)
    for dataset in Dataset:
        assert ask(home, f"SELECT count(*) FROM {dataset}_trips") == [(0,)]
        assert ask(home, f"SELECT count(*) FROM {dataset}_rejected_trips") == [(0,)]
    assert ask(home, "SELECT zone FROM taxi_zones WHERE location_id = 132") == [("JFK Airport",)]
    formats = "SELECT tags['storage_version'] FROM duckdb_databases() WHERE NOT internal"
    assert ask(home, formats) == [("v1.5.0+",)]  # which DuckDB 1.5 and 2 read


@pytest.mark.fault(32)
def test_a_full_disk_and_a_killed_run_leave_no_temporary_file_of_the_views(lake, tmp_path):
    with small_file_system(tmp_path / "small", 2) as disk:
        filler, failures = disk / "filler", 0
        for room in range(0, 2_000_000, 50_000):
            filler.write_bytes(bytes(shutil.disk_usage(disk).free - room))
            try:
                refresh_views(lake, disk / "home")
                break
            except LakeError as error:
                assert "Cannot " in error.problem
                failures += 1
            finally:
                filler.unlink()
            assert list((disk / "home").glob("**/.*")) == []
        assert failures and views_path(disk / "home").exists()
        killed = disk / "home" / FOLDER / ".trips.duckdb.0a1b2c3d.wal"
        killed.touch()
        assert not refresh_views(lake, disk / "home") and not killed.exists()


def test_the_views_show_the_months_of_the_lake_with_the_columns_of_the_contract(lake, home):
    first, second = bring(lake, home), bring(lake, home, "2020-05")
    refresh_views(lake, home)
    by_month = "SELECT strftime(file_month, '%Y-%m'), count(*) FROM green_trips GROUP BY 1 ORDER BY 1"
    assert ask(home, by_month) == [("2020-04", first.footer.rows), ("2020-05", second.footer.rows)]
    rejected = first.report.rows_rejected + second.report.rows_rejected
    assert ask(home, "SELECT count(*) FROM green_rejected_trips") == [(rejected,)]
    described = ask(home, "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = 'green_trips'")
    assert described == [(c.name, c.duckdb_type) for c in contract_of(Dataset.GREEN).table_columns]


def test_another_month_shows_without_replacing_the_file(lake, home):
    bring(lake, home)
    assert refresh_views(lake, home)
    with duckdb.connect(str(views_path(home)), read_only=True) as con:
        bring(lake, home, "2020-05")
        assert not refresh_views(lake, home)
        assert con.execute("SELECT count(DISTINCT file_month) FROM green_trips").fetchall() == [(2,)]


def test_rejected_rows_that_no_clean_file_names_do_not_show(lake, home):
    cleaned = bring(lake, home)
    source = Path(home / "lake" / "rejected/green/month=2020-04" / f"{cleaned.footer.file_version}.parquet")
    with duckdb.connect() as con:  # as a run leaves it that was killed before its sweep
        con.execute(
            f"COPY (SELECT * REPLACE ('0123456789ab' AS file_version) FROM read_parquet('{escaped(source)}')) "
            f"TO '{source.with_name('0123456789ab.parquet')}' (FORMAT parquet)"
        )
    refresh_views(lake, home)
    versions = ask(home, "SELECT DISTINCT file_version FROM green_rejected_trips")
    assert versions == [(cleaned.footer.file_version,)]


@pytest.mark.fault(91)
def test_marts_of_trips_that_were_replaced_do_not_show(lake, home):
    for month in ("2020-04", "2020-05"):
        bring(lake, home, month)
        add_marts(lake, DatasetMonth.parse("green", month), home)
    refresh_views(lake, home)
    by_month = "SELECT month(file_month), sum(trips) FROM daily_zones GROUP BY ALL ORDER BY ALL"
    assert ask(home, by_month) == [(4, 299), (5, 299)]
    bring(lake, home, "2020-04", reject=["zero_passengers"])
    trips = ask(home, "SELECT count(*) FROM green_trips WHERE file_month = '2020-04-01'")[0][0]
    assert trips < 299 and ask(home, by_month) == [(5, 299)]
    add_marts(lake, DatasetMonth.parse("green", "2020-04"), home)
    assert ask(home, by_month) == [(4, trips), (5, 299)]


def test_months_of_an_older_contract_show_null_for_what_they_do_not_have(lake, home):
    old = bring(lake, home)
    path = home / "lake" / "clean/green/month=2020-04/trips.parquet"
    copy = path.with_name("copy.parquet")
    with duckdb.connect() as con:
        con.execute(
            f"COPY (SELECT * EXCLUDE (cbd_congestion_fee) FROM read_parquet('{escaped(path)}')) "
            f"TO '{copy}' (FORMAT parquet, KV_METADATA {{contract_version: 'older'}})"
        )
    copy.replace(path)
    new = bring(lake, home, "2020-05")
    refresh_views(lake, home)
    assert ask(home, "SELECT count(*), count(cbd_congestion_fee) FROM green_trips")[0][0] == (
        old.footer.rows + new.footer.rows
    )
    assert ask(home, "SELECT count(cbd_congestion_fee) FROM green_trips WHERE file_month = DATE '2020-04-01'") == [(0,)]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"a": 1}', b'{"a": []}', b"\xff"])
def test_what_was_seen_of_the_lake_is_kept_and_may_be_damaged_or_older_than_the_lake(lake, home, damage):
    bring(lake, home)
    refresh_views(lake, home)
    seen = home / FOLDER / SEEN
    (first,) = json.loads(seen.read_text())
    seen.write_bytes(damage)
    new = bring(lake, home, "2020-05")
    (home / "lake" / "clean/green/month=2020-04/trips.parquet").unlink()
    refresh_views(lake, home)
    assert ask(home, "SELECT count(*) FROM green_trips") == [(new.footer.rows,)]
    assert first not in json.loads(seen.read_text())


def test_a_file_that_somebody_holds_open_for_writing_is_replaced_all_the_same(lake, home, monkeypatch):
    bring(lake, home)
    refresh_views(lake, home)
    monkeypatch.setattr("taxi_platform.ingestion.views._seen_scripts", {})  # as in another process
    code = "import duckdb, sys; con = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(views_path(home))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as notebook:
        assert notebook.stdout.readline() == "open\n"
        assert refresh_views(lake, home)
        assert ask(home, "SELECT count(DISTINCT file_month) FROM green_trips") == [(1,)]
        notebook.stdin.close()


@pytest.mark.fault(56)
def test_a_reader_beside_a_load_sees_the_old_month_or_the_new_one(lake, home, tmp_path):
    bring(lake, home)
    refresh_views(lake, home)
    done = tmp_path / "done"
    with subprocess.Popen(
        [sys.executable, "-c", READER, str(views_path(home)), str(done)], stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdout.readline() == "reading\n"
        for number in range(8):  # the other version of the month each time
            time.sleep(1.1)  # DuckDB tells files apart by their modification time in seconds
            bring(lake, home, reject=("zero_passengers",) if number % 2 else ())
            refresh_views(lake, home)
        done.touch()
        assert int(reader.stdout.readline()) > 8
        assert reader.wait(300) == 0
