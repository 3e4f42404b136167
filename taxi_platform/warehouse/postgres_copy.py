"""Converts Parquet to PostgreSQL's binary COPY format: a third less work for the server than CSV, and exact values.

Fields are encoded by column, not by value: 1.4 million yellow rows (430 MB) take 3 s of one core.
https://www.postgresql.org/docs/current/sql-copy.html describes the format, each type's `…_recv` function its values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from taxi_platform.trips.contract import Column

BATCH_ROWS = 16_384  # about 5 MB encoded; one batch is encoded while the one before is sent
HEADER, TRAILER = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"
NULL = pa.scalar(b"\xff\xff\xff\xff", pa.large_binary())  # a length of -1
EPOCH_DAYS = 10_957  # PostgreSQL counts from 2000-01-01, Arrow from 1970-01-01
MICROSECONDS_A_DAY = 86_400_000_000
# Three digits to the base 10,000 hold DECIMAL(10,2); the server strips leading zeros.
NUMERIC = [("digits", ">i2"), ("weight", ">i2"), ("sign", ">u2"), ("scale", ">i2"), ("value", ">i2", 3)]
NEGATIVE = 0x4000
ENCODINGS: dict[str, Any] = {"I": ">i8", "F": ">f8", "D": ">i8", "DATE": ">i4", "M": NUMERIC}
"""Letter of a fixed-width `ColumnType` → numpy's layout of one value in the COPY format."""


def binary_copy(path: Path, columns: Sequence[Column]) -> Iterator[memoryview | bytes]:
    """The file's rows, these columns in this order, as the bytes that `COPY … FROM STDIN (FORMAT binary)` takes."""
    yield HEADER
    with pq.ParquetFile(path) as file, ThreadPoolExecutor(1) as ahead:
        batches = file.iter_batches(BATCH_ROWS, columns=[column.name for column in columns], use_threads=False)
        encoded = (_rows(batch, columns) for batch in batches)
        following = ahead.submit(next, encoded, None)
        while (rows := following.result()) is not None:
            following = ahead.submit(next, encoded, None)
            yield memoryview(rows)
    yield TRAILER


def _rows(batch: pa.RecordBatch, columns: Sequence[Column]) -> pa.Buffer:
    count = pa.scalar(len(columns).to_bytes(2, "big"), pa.large_binary())
    fields = [part for column in columns for part in _fields(column, batch.column(column.name))]
    return pc.binary_join_element_wise(count, *fields, pa.scalar(b"", pa.large_binary())).buffers()[2]


def _fields(column: Column, values: pa.Array) -> list[pa.Array | pa.Scalar]:
    """Length and value of each row's field, as one or two arrays to be joined; a scalar applies to all rows."""
    if values.null_count == len(values):
        return [NULL]
    if column.type == "S":
        lengths = pc.fill_null(pc.binary_length(values), -1).to_numpy().astype(">i4")
        return [_binary(lengths), pc.fill_null(values.cast(pa.large_binary()), b"")]
    field = np.empty(len(values), [("length", ">i4"), ("value", ENCODINGS[column.type])])
    field["length"] = field.dtype.itemsize - 4
    if column.type == "M":
        _encode_cents(field["value"], _numbers(values, pa.int64())[::2])  # cents fit the lower half of the 128 bits
    elif column.type == "D":
        field["value"] = _numbers(values, pa.int64()) - EPOCH_DAYS * MICROSECONDS_A_DAY
    elif column.type == "DATE":
        field["value"] = _numbers(values, pa.int32()) - EPOCH_DAYS
    else:
        field["value"] = _numbers(values, values.type)
    encoded = _binary(field)
    return [pc.if_else(values.is_valid(), encoded, NULL) if values.null_count else encoded]


def _encode_cents(field: np.ndarray, cents: np.ndarray) -> None:
    field["digits"], field["weight"], field["scale"] = 3, 1, 2
    field["sign"] = np.where(cents < 0, NEGATIVE, 0)
    whole, rest = np.divmod(np.abs(cents), 100)
    field["value"][:, 0], field["value"][:, 1] = np.divmod(whole, 10_000)
    field["value"][:, 2] = rest * 100


def _numbers(values: pa.Array, as_type: pa.DataType) -> np.ndarray:
    """The array's values as stored in memory; the value under a null is arbitrary."""
    width = values.type.bit_width // as_type.bit_width
    numbers = np.frombuffer(values.buffers()[1], as_type.to_pandas_dtype())
    return numbers[values.offset * width : (values.offset + len(values)) * width]


def _binary(fields: np.ndarray) -> pa.Array:
    width = fields.dtype.itemsize
    array = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(fields), [None, pa.py_buffer(fields)])
    return array.cast(pa.large_binary())
