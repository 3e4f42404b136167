"""What every warehouse does alike: the same tests for each kind."""

import dataclasses
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pyarrow.parquet as pq
import pytest

from taxi_platform.ingestion import steps
from taxi_platform.ingestion.load import zones_are_loaded
from taxi_platform.lake import open_lake
from taxi_platform.sources import open_source
from taxi_platform.trips.engine import Engine
from taxi_platform.trips.errors import IntegrityError, WarehouseError
from taxi_platform.trips.known import taxi_zones
from taxi_platform.trips.months import Dataset, DatasetMonth, Month
from taxi_platform.warehouse import open_warehouse
from taxi_platform.warehouse.base import CleanFiles, StoredRows, rejected_table, trips_table, zones_table
from taxi_platform.warehouse.fingerprint import parquet_fingerprint

from .conftest import Backend, Months

GREEN = trips_table(Dataset.GREEN)
GREEN_REJECTED = rejected_table(Dataset.GREEN)


def rows_of(files: CleanFiles) -> tuple[int, int]:
    return pq.read_metadata(files.trips).num_rows, pq.read_metadata(files.rejected).num_rows


def is_loaded(backend: Backend, files: CleanFiles) -> bool:
    return backend.warehouse.is_loaded(files.dataset_month, files.file_version, *rows_of(files))


def load_from_another_process(address: str, files: CleanFiles) -> int:
    return open_warehouse(address).replace_month(files).rows


def test_an_empty_warehouse_has_no_months(backend: Backend, months: Months):
    files = months("green", "2020-04")
    assert backend.warehouse.loaded_months("green_trips") == {}
    assert backend.warehouse.loaded_month("green_trips", files.dataset_month) is None
    assert not is_loaded(backend, files)


def test_the_first_load_creates_both_tables_with_exactly_the_files_rows(backend: Backend, months: Months):
    files = months("green", "2020-04")
    trips, rejected = rows_of(files)
    result = backend.warehouse.replace_month(files)
    assert (result.rows, result.rejected_rows) == (trips, rejected) == (499, 1)
    assert backend.warehouse.loaded_months("green_trips") == {"2020-04": StoredRows(499, (files.file_version,))}
    assert backend.warehouse.loaded_month("green_rejected_trips", files.dataset_month).rows == 1
    assert is_loaded(backend, files)


@pytest.mark.parametrize("dataset", Dataset)
def test_the_content_is_the_files_in_every_engine(backend: Backend, months: Months, dataset: Dataset):
    files = months(dataset, "2021-01")
    result = backend.warehouse.replace_month(files)
    assert backend.warehouse.verify_month(files) == result
    assert (result.rows, result.rejected_rows) == rows_of(files)


def test_values_arrive_one_by_one_as_they_are_in_the_file(backend: Backend, months: Months):
    files = months("green", "2020-04")
    backend.warehouse.replace_month(files)
    names = ", ".join(column.name for column in GREEN.columns)
    arrived = backend.execute(f"SELECT {names} FROM {backend.qualified('green_trips')}")
    expected = pq.read_table(files.trips, columns=[column.name for column in GREEN.columns])
    assert sorted(arrived, key=repr) == sorted(zip(*expected.to_pydict().values(), strict=True), key=repr)


def test_a_replay_leaves_the_same_rows(backend: Backend, months: Months):
    files = months("green", "2020-04")
    first = backend.warehouse.replace_month(files)
    assert backend.warehouse.replace_month(files) == first
    assert backend.warehouse.loaded_months("green_trips") == {"2020-04": StoredRows(499, (files.file_version,))}
    assert is_loaded(backend, files)


def test_another_version_replaces_the_month_and_the_older_one_can_come_back(backend: Backend, months: Months):
    older, newer = months("green", "2020-04"), months("green", "2020-04", 700)
    for files, rows in ((older, 499), (newer, 699), (older, 499)):
        backend.warehouse.replace_month(files)
        assert backend.warehouse.loaded_months("green_trips") == {"2020-04": StoredRows(rows, (files.file_version,))}
    assert is_loaded(backend, older)
    assert not is_loaded(backend, newer)


def test_december_and_january_do_not_touch_each_other(backend: Backend, months: Months):
    december, january = months("green", "2019-12", 300), months("green", "2020-01", 400)
    backend.warehouse.replace_month(december)
    backend.warehouse.replace_month(january)
    backend.warehouse.replace_month(months("green", "2020-01", 450))
    backend.warehouse.verify_month(december)
    assert {month: stored.rows for month, stored in backend.warehouse.loaded_months("green_trips").items()} == {
        "2019-12": 299,
        "2020-01": 449,
    }


def test_a_month_without_rows_empties_its_partition_only(backend: Backend, months: Months):
    backend.warehouse.replace_month(months("green", "2020-03", 300))
    backend.warehouse.replace_month(months("green", "2020-04"))
    empty = months("green", "2020-04", 0)
    assert backend.warehouse.replace_month(empty).rows == 0
    assert list(backend.warehouse.loaded_months("green_trips")) == ["2020-03"]
    assert is_loaded(backend, empty)


def test_a_table_dropped_by_hand_is_loaded_again(backend: Backend, months: Months):
    files = months("green", "2020-04")
    backend.warehouse.replace_month(files)
    backend.execute(f"DROP TABLE {backend.qualified('green_rejected_trips')}")
    assert backend.warehouse.loaded_month("green_rejected_trips", files.dataset_month) is None
    assert not is_loaded(backend, files)
    backend.warehouse.replace_month(files)
    assert is_loaded(backend, files)


@pytest.mark.fault(39)
def test_rows_deleted_by_hand_are_noticed(backend: Backend, months: Months):
    files = months("green", "2020-04")
    backend.warehouse.replace_month(files)
    backend.execute(f"DELETE FROM {backend.qualified('green_trips')} WHERE pickup_location_id > 100")
    assert not is_loaded(backend, files)


def test_a_damaged_file_leaves_the_old_month_in_both_tables(backend: Backend, months: Months, tmp_path):
    old, new = months("green", "2020-04"), months("green", "2020-04", 700)
    backend.warehouse.replace_month(old)
    damaged = tmp_path / "rejected.parquet"
    damaged.write_bytes(new.rejected.read_bytes()[:-20] + bytes(20))
    with pytest.raises(IntegrityError, match=r"rejected\.parquet cannot be read"):
        backend.warehouse.replace_month(dataclasses.replace(new, rejected=damaged))
    assert is_loaded(backend, old)


@pytest.mark.fault(39)
def test_a_month_that_differs_from_its_file_after_loading_is_rolled_back(backend: Backend, months: Months, monkeypatch):
    old, new = months("green", "2020-04"), months("green", "2020-04", 700)
    backend.warehouse.replace_month(old)

    def other_fingerprint(dialect, groups, path):
        fingerprint = parquet_fingerprint(dialect, groups, path)
        return dataclasses.replace(fingerprint, rows=fingerprint.rows + 1) if path == new.rejected else fingerprint

    monkeypatch.setattr("taxi_platform.warehouse.fingerprint.parquet_fingerprint", other_fingerprint)
    with pytest.raises(IntegrityError, match=r"green_rejected_trips differs from its file .*\(1 rows, not 2"):
        backend.warehouse.replace_month(new)
    assert is_loaded(backend, old)


def test_columns_that_the_contract_has_gained_are_added(backend: Backend, months: Months):
    march, april = months("green", "2020-03", 300), months("green", "2020-04")
    backend.warehouse.replace_month(march)
    backend.execute(f"ALTER TABLE {backend.qualified('green_trips')} DROP COLUMN ehail_fee")
    backend.execute(f"ALTER TABLE {backend.qualified('green_trips')} DROP COLUMN trip_type")
    backend.warehouse.replace_month(april)
    assert is_loaded(backend, march)
    backend.warehouse.verify_month(april)
    assert backend.execute(
        f"SELECT count(trip_type) FROM {backend.qualified('green_trips')} WHERE file_month = DATE '2020-03-01'"
    ) == [(0,)]


def test_a_column_of_another_type_is_refused_by_name(backend: Backend, months: Months):
    march, april = months("green", "2020-03", 300), months("green", "2020-04")
    backend.warehouse.replace_month(march)
    backend.execute(f"ALTER TABLE {backend.qualified('green_trips')} ALTER COLUMN passenger_count TYPE INTEGER")
    with pytest.raises(WarehouseError, match=r"(?i)green_trips\.passenger_count .* is integer, not bigint\. .*drop"):
        backend.warehouse.replace_month(april)
    assert is_loaded(backend, march)


def test_six_months_at_once_all_arrive(backend: Backend, months: Months):
    all_files = [months("green", str(Month(2020, 1).plus(i)), 200 + i) for i in range(6)]
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(backend.warehouse.replace_month, all_files))
    assert [result.rows for result in results] == [199, 200, 201, 202, 203, 204]
    assert all(is_loaded(backend, files) for files in all_files)
    assert len(backend.warehouse.loaded_months("green_trips")) == 6


@pytest.mark.fault(35)
def test_two_versions_of_a_month_loaded_at_once_never_mix(backend: Backend, months: Months):
    versions = [months("green", "2020-04"), months("green", "2020-04", 700)]
    # New processes, so that nothing of this one's memory helps them to take turns.
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        loads = [pool.submit(load_from_another_process, backend.address, versions[i % 2]) for i in range(4)]
        seen = set()
        while not all(load.done() for load in loads):
            loaded = backend.warehouse.loaded_month("green_trips", versions[0].dataset_month)
            seen.add((loaded.rows, loaded.file_versions) if loaded else None)
            time.sleep(0.02)
    assert [load.result() for load in loads] == [499, 699] * 2
    whole = {(499, (versions[0].file_version,)), (699, (versions[1].file_version,))}
    assert seen <= whole | {None}
    assert sum(is_loaded(backend, files) for files in versions) == 1


def test_a_reference_table_is_replaced_whole(backend):
    table = zones_table()
    backend.warehouse.replace_reference(table, taxi_zones()[:3])
    backend.warehouse.replace_reference(table, taxi_zones())
    query = f"SELECT count(*), count(service_zone), max(location_id) FROM {backend.qualified(table.name)}"
    assert [tuple(row) for row in backend.execute(query)] == [(265, 265, 265)]


@pytest.mark.fault(57)
def test_every_load_brings_the_zones_that_are_missing_or_incomplete(backend: Backend, tmp_path):
    lake, home, dataset_month = (
        open_lake((tmp_path / "lake").as_uri()),
        tmp_path,
        DatasetMonth.parse("green", "2020-04"),
    )
    steps.fetch(open_source("sample://?rows=300"), lake, dataset_month, home)
    steps.clean(lake, dataset_month, home, Engine(threads=1))
    assert not zones_are_loaded(backend.warehouse)
    assert not steps.load(lake, backend.warehouse, dataset_month, home).unchanged
    assert zones_are_loaded(backend.warehouse)
    zones = backend.qualified("taxi_zones")
    for damage in (f"DELETE FROM {zones} WHERE location_id > 0", f"DROP TABLE {zones}"):
        backend.execute(damage)
        assert not zones_are_loaded(backend.warehouse)
        assert steps.load(lake, backend.warehouse, dataset_month, home).unchanged  # the month; the zones are loaded
        rows = backend.execute(f"SELECT zone FROM {zones} WHERE location_id = 132")
        assert [tuple(row) for row in rows] == [("JFK Airport",)]
        assert zones_are_loaded(backend.warehouse)


def test_a_plan_is_needed_until_it_was_applied(backend: Backend):
    tables = [zones_table(), GREEN, GREEN_REJECTED]
    planned = list(backend.warehouse.plan(tables))
    assert all(change.needed for change in planned[-3:])
    for change in planned:
        if change.needed:
            change.apply()
    assert not any(change.needed for change in backend.warehouse.plan(tables))
