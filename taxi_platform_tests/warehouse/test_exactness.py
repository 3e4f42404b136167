"""A month is compared by every value of every row, alike in every warehouse: the smallest alterations are seen."""

import dataclasses
import json
import math
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taxi_platform.trips.errors import Conflict, IntegrityError
from taxi_platform.warehouse.base import CleanFiles
from taxi_platform.warehouse.tables import KnownBytes

from .conftest import Backend, Months

Row = dict[str, Any]
MICROSECOND = timedelta(microseconds=1)
UNUSUAL: list[Row] = [
    {"trip_distance": 5e-324, "dropoff_latitude": -1.7976931348623157e308, "tip_amount": Decimal("-0.05")},
    {"trip_distance": 0.1, "dropoff_latitude": 1e20, "tip_amount": Decimal("99999999.99"), "trip_type": None},
    {"trip_distance": 0.1 + 2**-54, "dropoff_latitude": 123456789.12345679, "vendor_id": 2**63 - 1, "trip_type": 0},
    {"trip_distance": -1e-5, "pickup_latitude": -73.98765432101234, "vendor_id": -(2**63), "rate_code_id": 2**53},
    {"pickup_datetime": datetime(1, 1, 1), "dropoff_datetime": datetime(9999, 12, 31, 23, 59, 59, 999999)},
    {"pickup_datetime": datetime(1969, 12, 31, 23, 59, 59, 999999), "dropoff_datetime": None, "trip_distance": -0.0},
    {"request_source": "", "extra_columns": None, "store_and_fwd_flag": "Y"},
    {"request_source": None, "extra_columns": "", "store_and_fwd_flag": "N"},
    {"request_source": "a,1:b", "extra_columns": "c", "store_and_fwd_flag": "0:"},
    {"request_source": "ñ 🚕\n\t'\"\\", "extra_columns": "\u1e9b\u0323", "store_and_fwd_flag": None},
]
"""The first rows' values: the ends of each type's range, what floats cannot tell apart in 15 digits, odd texts."""


def put(row: int, **values: Any) -> Callable[[list[Row]], None]:
    return lambda rows: rows[row].update(values)


def swapped(column: str, first: int = 100, second: int = 0) -> Callable[[list[Row]], None]:
    """Two rows exchange their values of a column: neither its sum nor its extremes change."""

    def swap(rows: list[Row]) -> None:
        other = second or next(i for i in range(first, 400) if rows[i][column] != rows[first][column])
        rows[first][column], rows[other][column] = rows[other][column], rows[first][column]

    return swap


def add(row: int, column: str, step: Any) -> Callable[[list[Row]], None]:
    return lambda rows: rows[row].update({column: rows[row][column] + step})


def both(*alterations: Callable[[list[Row]], None]) -> Callable[[list[Row]], None]:
    return lambda rows: [alter(rows) for alter in alterations] and None


def doubled(rows: list[Row]) -> None:
    rows[100] = dict(rows[101])


OTHER_ROWS = "values stand in other rows"
ALTERATIONS: dict[str, tuple[Callable[[list[Row]], None], str]] = {
    "the last bit of a float": (put(1, trip_distance=math.nextafter(0.1, 1)), "in trip_distance"),
    "the last bit of a large float": (put(2, dropoff_latitude=math.nextafter(123456789.12345679, 0)), "in dropoff_lat"),
    "the smallest float": (put(0, trip_distance=1e-323), "in trip_distance"),
    "a text of the same length": (put(6, store_and_fwd_flag="N"), "in store_and_fwd_flag"),
    "letters that change places": (put(8, request_source="a,1b:"), "in request_source"),
    "another composition of a letter": (put(9, extra_columns="\u017f\u0323\u0307"), "in extra_columns"),
    "a microsecond between the extremes": (add(100, "dropoff_datetime", MICROSECOND), "in dropoff_datetime"),
    "a microsecond before 1970": (add(5, "pickup_datetime", MICROSECOND), "in pickup_datetime"),
    "a cent": (add(100, "fare_amount", Decimal("0.01")), "in fare_amount"),
    "a sign": (put(0, tip_amount=Decimal("0.05")), "in tip_amount"),
    "a cent that moves to another row": (
        both(add(100, "total_amount", Decimal("0.01")), add(101, "total_amount", Decimal("-0.01"))),
        "in total_amount",
    ),
    "an integer beyond a float's": (put(3, rate_code_id=2**53 + 1), "in rate_code_id"),
    "an integer that wraps around": (put(2, vendor_id=-(2**63)), "in vendor_id"),
    "null for an empty text": (put(6, request_source=None), "in request_source"),
    "an empty text for null": (put(7, request_source=""), "in request_source"),
    "null for 0": (put(2, trip_type=None), "in trip_type"),
    "0 for null": (put(1, trip_type=0), "in trip_type"),
    "two floats that swap rows": (swapped("trip_distance"), OTHER_ROWS),
    "two times that swap rows": (swapped("pickup_datetime"), OTHER_ROWS),
    "two texts that swap rows": (swapped("store_and_fwd_flag", 6, 7), OTHER_ROWS),
    "two amounts that swap rows": (swapped("total_amount"), OTHER_ROWS),
    "two columns that swap values": (put(8, request_source="c", extra_columns="a,1:b"), "in request_source, extra_c"),
    "text that moves to the next column": (put(8, request_source="a,1:", extra_columns="bc"), "in request_source, ex"),
    "a row doubled while another is lost": (doubled, "in "),
    "a row lost": (lambda rows: rows.pop(), "499 rows, not 498"),
    "the version of one row": (put(100, file_version="0" * 12), "in file_version"),
}


@pytest.fixture
def unusual(months: Months, tmp_path: Path) -> CleanFiles:
    """A month of April whose first rows are unusual."""
    files = months("green", "2020-04")
    table = pq.read_table(files.trips)
    rows = table.to_pylist()
    for row, values in zip(rows, UNUSUAL, strict=False):
        row.update(values)
    return rewritten(files, rows, tmp_path / "unusual.parquet")


def rewritten(files: CleanFiles, rows: list[Row], path: Path) -> CleanFiles:
    pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(files.trips)), path)
    return dataclasses.replace(files, trips=path, trips_uri=path.as_uri())


def ask_once(monkeypatch: pytest.MonkeyPatch, backend: Backend) -> None:
    """Remember what each query answers: the BigQuery emulator takes a second for one, and the table stays the same."""
    with backend.warehouse.session("read") as session:
        kind, execute, answers = type(session), type(session).execute, {}

    def remembered(self, statement: str) -> list[tuple[Any, ...]]:
        if not statement.startswith("SELECT"):
            return execute(self, statement)
        if statement not in answers:
            answers[statement] = execute(self, statement)
        return answers[statement]

    monkeypatch.setattr(kind, "execute", remembered)


@pytest.mark.fault(69)
def test_every_alteration_of_one_value_is_seen(backend: Backend, unusual: CleanFiles, tmp_path: Path, monkeypatch):
    backend.warehouse.replace_month(unusual)
    ask_once(monkeypatch, backend)
    backend.warehouse.verify_month(unusual)
    stored = pq.read_table(unusual.trips).to_pylist()
    for name, (alter, difference) in ALTERATIONS.items():
        rows = [dict(row) for row in stored]
        alter(rows)
        with pytest.raises(IntegrityError) as caught:
            backend.warehouse.verify_month(rewritten(unusual, rows, tmp_path / "altered.parquet"))
            pytest.fail(f"{name} was not seen")
        assert f"green_trips differs from its file of green 2020-04 ({difference}" in caught.value.problem, name


def test_rows_in_another_order_are_the_same_month(backend: Backend, unusual: CleanFiles, tmp_path: Path):
    backend.warehouse.replace_month(unusual)
    rows = pq.read_table(unusual.trips).to_pylist()
    backend.warehouse.verify_month(rewritten(unusual, rows[::-1], tmp_path / "reversed.parquet"))


@pytest.mark.fault(69)
@pytest.mark.parametrize("table", ["green_trips", "green_rejected_trips"])
def test_a_table_altered_by_hand_is_seen_and_loaded_again(backend: Backend, months: Months, table: str):
    files = months("green", "2020-04")
    backend.warehouse.replace_month(files)
    (row,) = backend.execute(f"SELECT min(file_version) FROM {backend.qualified(table)}")
    column, value = ("store_and_fwd_flag", "'?'") if table == "green_trips" else ("text", "'?'")
    backend.execute(f"UPDATE {backend.qualified(table)} SET {column} = {value} WHERE file_version = '{row[0]}'")
    with pytest.raises(IntegrityError, match=rf"{table} differs .*\(in {column}\)\. Run taxi ingest green 2020-04"):
        backend.warehouse.verify_month(files)
    backend.warehouse.replace_month(files)
    backend.warehouse.verify_month(files)


@pytest.mark.fault(70)
def test_a_month_in_another_version_is_a_conflict_and_a_row_in_another_is_damage(backend: Backend, months: Months):
    older, newer = months("green", "2020-04"), months("green", "2020-04", 700)
    backend.warehouse.replace_month(newer)
    with pytest.raises(Conflict, match=re.escape(f"holds version {newer.file_version} of green 2020-04, the lake")):
        backend.warehouse.verify_month(older)
    table = backend.qualified("green_trips")
    (first,) = backend.execute(f"SELECT min(pickup_datetime) FROM {table}")
    backend.execute(f"UPDATE {table} SET file_version = '{older.file_version}' WHERE pickup_datetime = '{first[0]}'")
    with pytest.raises(IntegrityError, match=r"green_trips differs .*\(in file_version\)"):
        backend.warehouse.verify_month(newer)


@pytest.mark.fault(35)
def test_a_month_that_other_runs_replace_and_bring_back_meanwhile_is_not_damaged(
    backend: Backend, months: Months, monkeypatch
):
    """Its rows are read while another version is in the table, and their version is asked after that is gone again."""
    older, newer = months("green", "2020-04"), months("green", "2020-04", 700)
    backend.warehouse.replace_month(older)
    with backend.warehouse.session("read") as session:
        kind, execute, earlier = type(session), type(session).execute, {}

    def remembered(self, statement: str) -> list[tuple[Any, ...]]:
        return earlier.setdefault(statement, execute(self, statement))

    with monkeypatch.context() as patch:
        patch.setattr(kind, "execute", remembered)
        backend.warehouse.verify_month(older)
    backend.warehouse.replace_month(newer)
    monkeypatch.setattr(kind, "execute", lambda self, sql: earlier.pop(sql) if sql in earlier else execute(self, sql))
    backend.warehouse.verify_month(newer)
    assert not earlier


@pytest.mark.fault(69)
def test_a_column_that_was_dropped_by_hand_is_named(backend: Backend, months: Months):
    files = months("green", "2020-04")
    backend.warehouse.replace_month(files)
    backend.execute(f"ALTER TABLE {backend.qualified('green_trips')} DROP COLUMN trip_type")
    with pytest.raises(IntegrityError, match=r"green_trips has lost trip_type\. Run taxi ingest green 2020-04"):
        backend.warehouse.verify_month(files)


@pytest.mark.fault(152)
def test_a_kept_fingerprint_is_that_of_equal_bytes_and_a_damaged_one_is_made_again(
    backend: Backend, months: Months, tmp_path: Path
):
    files = dataclasses.replace(months("green", "2020-04"), known_trips=KnownBytes("a" * 64, tmp_path / "kept"))
    first = backend.warehouse.replace_month(files)
    elsewhere = dataclasses.replace(files, trips=tmp_path / "missing.parquet")
    assert backend.warehouse.verify_month(elsewhere) == first  # without the file
    with pytest.raises(IntegrityError, match=r"missing\.parquet cannot be read"):
        backend.warehouse.verify_month(
            dataclasses.replace(elsewhere, known_trips=KnownBytes("b" * 64, tmp_path / "kept"))
        )
    kept = tmp_path / "kept" / "green_trips-2020-04.json"
    content = kept.read_text()
    (way,) = json.loads(content)["fingerprints"]
    for damaged in (content.replace("[499, ", "[498, "), content[:-9], "[]", content.replace("[499, ", '["", ')):
        kept.write_text(damaged)
        assert backend.warehouse.verify_month(files) == first
        assert kept.read_text() == content
    kept.write_text(content.replace("[499, ", "[498, ").replace(way, "0" * 64))  # as another version of DuckDB keeps it
    assert backend.warehouse.verify_month(files) == first
    backend.execute(f"UPDATE {backend.qualified('green_trips')} SET vendor_id = 3 WHERE vendor_id = 2")
    with pytest.raises(IntegrityError, match=r"green_trips differs from its file of green 2020-04 \(in vendor_id\)"):
        backend.warehouse.verify_month(files)
