"""Parquet files with wrong bytes, other files' footers, columns of any type and name, and more of everything."""

from __future__ import annotations

import io
import struct
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from taxi_platform.trips.contract import contract_of
from taxi_platform.trips.months import Dataset, DatasetMonth
from taxi_platform_tests.support.cleaning_cases import parquet
from taxi_platform_tests.support.eras import Era, eras, write_era
from taxi_platform_tests.support.fuzz_targets import HOSTILE, check_fetched, cleaned, mutated
from taxi_platform_tests.trips.test_cleaning_properties import NAMES, VALUES, Refusal

ERAS = [era for era in eras() if era.format == "parquet"]
TOKENS = [b"\0", b"\xff", b"\xff" * 8, b"\x7f" + b"\xff" * 3, b"\x80" * 9 + b"\x01", b"PAR1", b"PARE", b"\x15", b"\x0c"]
PUBLISHED = [pa.null(), pa.int32(), pa.int64(), pa.float64(), pa.timestamp("us"), pa.string(), pa.large_string()]
"""The types of the TLC's files."""
FLOATS = [0.0, -0.0, 1.5, 1e308, 5e-324, float("nan"), float("inf"), 2.0**53 + 2]
TEXTS = ["", " ", "\0", "é", "x" * 3000, '"', "'", "NULL", *VALUES]


def parquet_round(random: Random, folder: Path) -> str:
    path, rows = folder / "input", None
    if random.random() < 0.5:
        dataset = random.choice(list(Dataset))
        month, table = f"{dataset} {dataset.first_month}", _table(dataset, random)
        data, rows = _written(table, random), len(table)
    else:
        era = random.choice(ERAS)
        month, data = f"{era.dataset} {era.first}", _damaged(era_bytes(era), random)
    path.write_bytes(data)
    counted = check_fetched(DatasetMonth.parse(*month.split()), path, folder / "fetched")
    ended = cleaned(month, data, folder / "cleaned")
    if rows is not None:
        assert ended == cleaned(month, data, folder / "cleaned otherwise", in_batches=False)
    if isinstance(ended, Refusal):
        return ended.kind
    _, rejected, report = ended
    assert report.rows_read == counted
    assert rows in (counted, None)
    return "cleaned, some rejected" if rejected else "cleaned"


@cache
def era_bytes(era: Era) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return parquet(pq.read_table(write_era(era, Path(folder))).slice(0, 30))


def _damaged(data: bytes, random: Random) -> bytes:
    footer = len(data) - 8 - struct.unpack("<I", data[-8:-4])[0]
    match random.choice(["footer", "footer", "pages", "pages", "anywhere", "length", "cut", "splice"]):
        case "footer":
            return data[:footer] + mutated(data[footer:-8], random, TOKENS, random.choice([1, 1, 3])) + data[-8:]
        case "pages":
            return data[:4] + mutated(data[4:footer], random, TOKENS, random.choice([1, 1, 3])) + data[footer:]
        case "anywhere":
            return mutated(data, random, TOKENS, random.choice([1, 2, 8]))
        case "length":
            length = random.choice([0, 1, len(data), 2**31, 2**32 - 1, random.randrange(len(data))])
            return data[:-8] + struct.pack("<I", length) + data[-4:]
        case "cut":
            return data[: random.randrange(len(data))] + random.choice([b"", data[-8:], data[footer:]])
        case _:
            other = era_bytes(random.choice(ERAS))
            start = len(other) - 8 - struct.unpack("<I", other[-8:-4])[0]
            return data[:footer] + other[start:]


def _written(table: pa.Table, random: Random) -> bytes:
    sink = io.BytesIO()
    options = {
        "compression": random.choice(["none", "snappy", "gzip", "zstd", "lz4", "brotli"]),
        "row_group_size": random.choice([None, 1, 7]),
        "version": random.choice(["1.0", "2.4", "2.6"]),
        "use_dictionary": random.random() < 0.5,
        "data_page_version": random.choice(["1.0", "2.0"]),
        "write_statistics": random.random() < 0.5,
        "store_schema": random.random() < 0.5,
        "use_deprecated_int96_timestamps": random.random() < 0.2,
    }
    try:
        pq.write_table(table, sink, **options)
    except pa.ArrowException:  # a time beyond what the format can hold
        return _written(table.select(["pickup_datetime"]), random)
    return sink.getvalue()


def _table(dataset: Dataset, random: Random) -> pa.Table:
    """A few columns of the contract, of any type, beside some of any name."""
    rows = random.choice([1, 3, 40])
    known = [name for column in contract_of(dataset).columns for name in (column.name, *column.aliases)]
    names = random.sample(known, 5) + [random.choice([*NAMES, *HOSTILE, "a\0b"]) for _ in range(random.randint(0, 3))]
    names += [f"c{number}" for number in range(random.choice([0] * 20 + [900, 1001]))]
    kinds = PUBLISHED if random.random() < 0.5 else None
    columns = {"pickup_datetime": pa.array([datetime(2020, 4, 7)] * rows, pa.timestamp("us"))}
    if len(names) > 500:
        return pa.table(columns | {name: pa.array([1] * rows) for name in names})
    return pa.table(columns | {name: _column(random, rows, kinds) for name in names})


def _column(random: Random, rows: int, kinds: Sequence[pa.DataType] | None) -> pa.Array:
    kind = random.choice(kinds) if kinds else _type(random, depth=random.choice([0, 0, 0, 1, 3]))
    nulls = random.choice([0, 0.3, 1])
    values = [None if random.random() < nulls else _value(kind, random) for _ in range(rows)]
    array = pa.array(values, kind)
    return array.dictionary_encode() if not kinds and pa.types.is_string(kind) and random.random() < 0.3 else array


def _type(random: Random, depth: int) -> pa.DataType:
    if depth:
        inner = _type(random, depth - 1)
        return random.choice(
            [
                pa.list_(inner),
                pa.struct([("a", inner), (random.choice([*HOSTILE[:9], "b"]), pa.string())]),
                pa.map_(pa.string(), inner),
                pa.list_(inner, 2),
            ]
        )
    whole = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
    times = [pa.timestamp(unit, zone) for unit in ("s", "ms", "us", "ns") for zone in (None, "UTC", "America/New_York")]
    others = [pa.date32(), pa.date64(), pa.time32("ms"), pa.time64("us"), pa.duration("us"), pa.bool_(), pa.null()]
    texts = [pa.string(), pa.large_string(), pa.binary(), pa.binary(16)]
    numbers = [
        pa.float16(),
        pa.float32(),
        pa.float64(),
        *(pa.decimal128(*size) for size in ((1, 0), (10, 2), (38, 20))),
    ]
    return random.choice(random.choice([whole, times, others, texts, [*numbers, pa.decimal256(76, 10)]]))


def _value(kind: pa.DataType, random: Random) -> Any:
    is_ = pa.types
    if is_.is_struct(kind):
        return {kind.field(i).name: _value(kind.field(i).type, random) for i in range(kind.num_fields)}
    if is_.is_map(kind):
        return [(str(key), _value(kind.item_type, random)) for key in range(random.randint(0, 2))]
    if is_.is_list(kind) or is_.is_fixed_size_list(kind):
        return [_value(kind.value_type, random) for _ in range(2)]
    if is_.is_integer(kind):
        low = 0 if is_.is_unsigned_integer(kind) else -(2 ** (kind.bit_width - 1))
        high = 2**kind.bit_width + low - 1
        return random.choice([0, 1, 2, 99, low, high, random.randint(low, high)])
    if is_.is_floating(kind):
        return random.choice(FLOATS if kind.bit_width == 64 else [1.0, 2.5, float("nan")])
    if is_.is_decimal(kind):
        return Decimal(random.choice([0, 1, -1, 10 ** (kind.precision - kind.scale) - 1]))
    if is_.is_boolean(kind):
        return random.random() < 0.5
    if is_.is_fixed_size_binary(kind):
        return random.randbytes(kind.byte_width)
    if is_.is_binary(kind):
        return random.choice([b"", b"1", b"Y", b"\xff", b"a\0b"])
    if is_.is_string(kind) or is_.is_large_string(kind):
        return random.choice(TEXTS)
    if is_.is_date64(kind):
        return datetime(random.randint(1, 9999), 4, 7)
    if is_.is_timestamp(kind):
        if random.random() < 0.5:
            return datetime(2020, 4, 7, tzinfo=UTC if kind.tz else None)
        return random.randint(-(2**62), 2**62)
    if is_.is_date32(kind):
        return random.choice([0, 18359, -(2**31), 2**31 - 1])
    return None if is_.is_null(kind) else random.choice([0, 1, 86_399_999])
