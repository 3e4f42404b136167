"""Texts that DuckDB's cast takes for numbers, and we do not."""

import gzip
from datetime import datetime

import pyarrow as pa
import pytest

from taxi_platform.trips.records import RecordCounter
from taxi_platform_tests.support.cleaning_cases import TRIP, clean, green, parquet

ODD = ["1_000", "1_0.5", "+-1", "1e1_0", "1_000.00"]
COLUMNS = ["trip_distance", "total_amount", "passenger_count"]
"""A float, money, and a whole number."""


@pytest.mark.fault(63)
@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("reader", ["plain scan", "scan of an unpacked copy", "careful", "parquet"])
def test_a_number_with_underscores_or_two_signs_is_rejected_by_every_reader(reader, column):
    values = ["1000", *ODD, "+1", "-1"]
    if reader == "parquet":
        times = [datetime(2020, 4, 7)] * len(values)
        data = parquet(pa.table({"lpep_pickup_datetime": times, column: values}))
    else:
        data = green(*(f"{column}={value}" for value in values))
        if reader == "scan of an unpacked copy":
            data = gzip.compress(data.replace(b"\n", b"\r\n", 1) + b"\n")
    made = clean(data, careful=reader == "careful")
    assert list(map(float, made.column(column))) == [1000, 1, -1]
    assert [row["reason"] for row in made.rejected] == ["invalid_value"] * len(ODD)
    assert [row["column_name"] for row in made.rejected] == [column] * len(ODD)
    assert all(odd in row["text"] for odd, row in zip(ODD, made.rejected, strict=True))


@pytest.mark.fault(63)
def test_a_code_with_underscores_is_no_number_and_kept_as_text():
    made = clean(
        b"Trip_Pickup_DateTime,Payment_Type\n2009-01-04 02:52:00,1_0\n2009-01-04 02:52:00,1\n", "yellow 2009-01"
    )
    assert made.column("payment_type") == [None, 1]
    assert made.extra == [{"Payment_Type": "1_0"}, None]


def test_names_with_underscores_leave_a_file_plain_wherever_chunks_end():
    text = b"tpep_pickup_datetime,a_b\r\n2020-01-01 00:00:00,1\r\n"
    for size in (1, 7, 1000):
        for data, plain in ((text, True), (text + b"x,1_0\r\n", False), (text + b"x,+1\r\n", False)):
            counter = RecordCounter()
            for start in range(0, len(data), size):
                counter.feed(data[start : start + size])
            counter.finish()
            assert counter.plain is plain


def test_a_file_without_odd_numbers_is_still_scanned_fast():
    assert not clean(green(TRIP, TRIP)).careful
    assert not clean(gzip.compress(green("trip_distance=+1", TRIP))).careful
