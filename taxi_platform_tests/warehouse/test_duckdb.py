"""What only DuckDB does: one file, which one program at a time may write."""

import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest

from taxi_platform.trips.errors import WarehouseBusy, WarehouseError
from taxi_platform.warehouse.duckdb import DuckDBWarehouse

from .conftest import Months


@contextmanager
def held_open(path, seconds: float):
    """Another process that has the file open for writing for so long."""
    wait = f"print('open', flush=True); time.sleep({seconds})"
    program = f"import duckdb, time; con = duckdb.connect({str(path)!r}); {wait}"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "open\n"
            yield process
        finally:
            process.kill()


@pytest.mark.fault(42)
def test_a_file_held_by_another_program_is_waited_for_and_then_named(months: Months, tmp_path):
    warehouse = DuckDBWarehouse(tmp_path / "warehouse.duckdb", wait_seconds=0.5)
    with held_open(warehouse.path, 60) as holder:
        started = time.monotonic()
        with pytest.raises(WarehouseBusy, match=rf"holds .*warehouse\.duckdb open.*{holder.pid}.* Close it there"):
            warehouse.replace_month(months("green", "2020-04"))
        assert 0.4 < time.monotonic() - started < 8


@pytest.mark.fault(42)
def test_a_file_that_is_closed_within_the_wait_is_loaded(months: Months, tmp_path):
    warehouse = DuckDBWarehouse(tmp_path / "warehouse.duckdb", wait_seconds=20)
    with held_open(warehouse.path, 1):
        assert warehouse.replace_month(months("green", "2020-04")).rows == 499


def test_the_file_is_free_for_others_after_a_load(months: Months, tmp_path):
    warehouse = DuckDBWarehouse(tmp_path / "warehouse.duckdb")
    warehouse.replace_month(months("green", "2020-04"))
    with held_open(warehouse.path, 60) as other:
        assert other.poll() is None


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs POSIX permissions")
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
