"""What only DuckDB does: one file, which one program at a time may write."""

import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock, Timeout

from taxi_platform.trips.errors import WarehouseBusy, WarehouseError
from taxi_platform.trips.known import taxi_zones
from taxi_platform.warehouse.base import zones_table
from taxi_platform.warehouse.duckdb import STORAGE_VERSION, DuckDBWarehouse
from taxi_platform_tests.support.system import wait_for

from .conftest import Months


@contextmanager
def held_open(path: Path):
    """Another process that has the file open for writing; `communicate` lets it close the file and end."""
    code = f"import duckdb, sys; con = duckdb.connect({str(path)!r}); print('open', flush=True); sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as process:
        try:
            assert process.stdout.readline() == "open\n"
            yield process
        finally:
            process.kill()


@pytest.mark.fault(42)
def test_a_file_held_by_another_program_is_tried_again_and_the_program_is_named(months: Months, tmp_path, monkeypatch):
    attempts = []
    monkeypatch.setattr("taxi_platform.warehouse.duckdb.wait_logger", lambda *arguments: attempts.append)
    files, warehouse = months("green", "2020-04"), DuckDBWarehouse(tmp_path / "warehouse.duckdb", wait_seconds=2)
    with held_open(warehouse.path) as holder:
        with pytest.raises(WarehouseBusy, match=rf"holds .*warehouse\.duckdb open.*{holder.pid}.* Close it there"):
            warehouse.replace_month(files)
        assert holder.poll() is None
    assert attempts[-1].attempt_number > 1


@pytest.mark.fault(42)
def test_a_file_that_is_closed_within_the_wait_is_loaded(months: Months, tmp_path):
    files, warehouse = months("green", "2020-04"), DuckDBWarehouse(tmp_path / "warehouse.duckdb", wait_seconds=60)
    lock = FileLock(warehouse.path.with_name("warehouse.duckdb.lock"))

    def load_waits():
        """Whether the load has come to opening the file, which it does under its lock."""
        try:
            with lock.acquire(timeout=0):
                return False
        except Timeout:
            return True

    with held_open(warehouse.path) as holder, ThreadPoolExecutor(1) as pool:
        load = pool.submit(warehouse.replace_month, files)
        wait_for(load_waits)
        assert not load.done()
        holder.communicate()
        assert load.result(60).rows == 499


def test_the_file_is_free_for_others_after_a_load(months: Months, tmp_path):
    warehouse = DuckDBWarehouse(tmp_path / "warehouse.duckdb")
    warehouse.replace_month(months("green", "2020-04"))
    with held_open(warehouse.path) as other:
        assert other.poll() is None


def test_the_file_is_free_for_others_after_a_failure_and_what_was_not_committed_is_gone(tmp_path):
    warehouse = DuckDBWarehouse(tmp_path / "warehouse.duckdb")
    with warehouse.session("load") as session:
        session.execute("CREATE TABLE numbers AS SELECT 1")
    with pytest.raises(WarehouseError, match=r"failed: .*not a number"), warehouse.session("load") as session:
        session.execute("BEGIN")
        session.execute("INSERT INTO numbers VALUES (2)")
        session.execute("SELECT error('not a number')")
    with held_open(warehouse.path) as other:
        other.communicate()
    with warehouse.session("read") as session:
        assert session.execute("FROM numbers") == [(1,)]


@pytest.mark.parametrize("name", ["memory", "temp.duckdb", "system.db", 'it\'s "it".duckdb', "warehouse"])
def test_the_file_may_have_any_name_and_its_views_are_for_every_program(tmp_path, name):
    warehouse = DuckDBWarehouse(tmp_path / name)
    with warehouse.session("load") as session:
        session.execute("CREATE TABLE numbers AS SELECT 1 AS number")
        session.execute("CREATE VIEW doubled AS SELECT number * 2 FROM numbers")
        assert session.relations() == {"numbers": None, "doubled": None}
    shutil.copy(warehouse.path, tmp_path / "copy.duckdb")
    with duckdb.connect(str(tmp_path / "copy.duckdb")) as con:
        assert con.execute("FROM doubled").fetchall() == [(2,)]


def test_what_spills_does_so_again_after_another_process_has_removed_the_folder(tmp_path):
    warehouse = DuckDBWarehouse(tmp_path / "warehouse.duckdb", memory_limit="60MB")
    for _ in range(2):
        with warehouse.session("load") as session:
            session.execute("CREATE TEMP TABLE sorted AS SELECT random() FROM range(6000000) ORDER BY 1")
            assert list(tmp_path.glob("warehouse.duckdb.tmp/*"))
            session.execute("DROP TABLE sorted")
        shutil.rmtree(tmp_path / "warehouse.duckdb.tmp", ignore_errors=True)


def test_the_file_has_the_format_that_duckdb_1_5_opens_too(months: Months, tmp_path):
    warehouse = DuckDBWarehouse(tmp_path / "warehouse.duckdb")
    warehouse.replace_month(months("green", "2020-04"))
    with duckdb.connect(str(warehouse.path), read_only=True) as con:
        formats = con.execute("SELECT tags['storage_version'] FROM duckdb_databases() WHERE NOT internal").fetchall()
    assert formats == [(f"{STORAGE_VERSION}+",)] == [("v1.5.0+",)]


def test_the_next_write_leaves_a_month_as_it_was_stored_whatever_the_row_groups_of_its_file(months: Months, tmp_path):
    files, path = months("green", "2020-04"), tmp_path / "trips.parquet"
    pq.write_table(pa.concat_tables([pq.read_table(files.trips)] * 1200), path, row_group_size=124_511)
    warehouse = DuckDBWarehouse(tmp_path / "warehouse.duckdb")

    def stored():
        """The rows of each row group of the table, and the blocks of the file that hold them."""
        with warehouse.session("read") as session:
            return session.execute(
                "SELECT row_group_id, sum(count), list(block_id ORDER BY segment_id) "
                "FROM pragma_storage_info('green_trips') "
                "WHERE column_name = 'vendor_id' AND segment_type <> 'VALIDITY' GROUP BY ALL ORDER BY 1"
            )

    assert warehouse.replace_month(dataclasses.replace(files, trips=path)).rows == 1200 * 499
    before = stored()
    warehouse.replace_reference(zones_table(), taxi_zones())
    assert stored() == before
    assert sum(rows for _, rows, _ in before) == 1200 * 499


def test_a_table_that_is_missing_leaves_the_transaction_usable(tmp_path):
    """DuckDB 2 ends a transaction in which a table was asked for that does not exist."""
    with DuckDBWarehouse(tmp_path / "warehouse.duckdb").session("load") as session, session._committed():
        assert session.columns(zones_table()) == {}
        assert session.execute("SELECT 1") == [(1,)]


def test_a_folder_that_cannot_be_written_is_a_clear_error(months: Months):
    files, user = months("green", "2020-04"), os.geteuid()
    with tempfile.TemporaryDirectory() as folder:
        files = dataclasses.replace(
            files, **{name: Path(shutil.copy(getattr(files, name), folder)) for name in ("trips", "rejected")}
        )
        Path(folder).chmod(0o555)
        if user == 0:
            os.seteuid(65534)  # permissions do not bind root
        try:
            with pytest.raises(WarehouseError, match=r"Cannot write .*warehouse\.duckdb.*TAXI_WAREHOUSE_URL"):
                DuckDBWarehouse(Path(folder) / "warehouse.duckdb").replace_month(files)
        finally:
            os.seteuid(user)


def test_a_folder_in_place_of_the_file_is_named_with_the_setting_to_correct(months: Months, tmp_path):
    with pytest.raises(WarehouseError, match=rf"^{tmp_path} failed: .*Is a directory\. .* set TAXI_WAREHOUSE_URL to "):
        DuckDBWarehouse(tmp_path).replace_month(months("green", "2020-04"))


def test_a_file_that_cannot_be_looked_for_is_a_clear_error(tmp_path):
    warehouse = DuckDBWarehouse(tmp_path / ("x" * 300))
    with pytest.raises(WarehouseError, match=r"Cannot read .*File name too long.* TAXI_WAREHOUSE_URL"):
        warehouse.loaded_months("green_trips")


def test_the_query_to_paste_works_from_a_folder_with_spaces(tmp_path):
    file = tmp_path / "my data" / "warehouse.duckdb"
    file.parent.mkdir()
    with duckdb.connect(str(file)) as con:
        con.execute("CREATE TABLE green_trips AS SELECT DATE '2020-04-01' AS file_month FROM range(3)")
    query = DuckDBWarehouse(file).example_query("green_trips")
    shown = subprocess.run(query, shell=True, capture_output=True, text=True, check=True).stdout
    assert "2020-04-01" in shown
    assert "3" in shown


@pytest.mark.fault(82)
def test_a_wait_for_another_program_is_logged_with_its_process_id(tmp_path, caplog):
    path = tmp_path / "warehouse.duckdb"
    with ThreadPoolExecutor(1) as pool, held_open(path) as other:
        rows = pool.submit(DuckDBWarehouse(path, wait_seconds=120).row_count, zones_table())
        wait_for(lambda: f"Waiting for {path}, held by" in caplog.text)
        assert f"(PID {other.pid})" in caplog.text
        other.communicate("")
        assert rows.result(60) == 0
