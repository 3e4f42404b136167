"""Whatever happens to a file: every row is accounted for, and both ways of reading find the same.

`HYPOTHESIS_PROFILE=long` looks for longer.
"""

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from taxi_platform.sources.sample.writing import write_sample
from taxi_platform.trips.contract import Contract, contract_of
from taxi_platform.trips.errors import TaxiError
from taxi_platform.trips.months import Dataset, DatasetMonth
from taxi_platform_tests.support.cleaning_cases import GREEN, HEADS, TRIP, clean, green, parquet

EXAMPLES = {"ci": 20, "long": 4000}[os.environ.get("HYPOTHESIS_PROFILE", "ci")]
searching = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    database=None,
    derandomize=EXAMPLES < 99,
)

NUMBERS = ["1.5", "1.0", "-0", "1_0", "1e2", "+1", ".5", "5.", "nan", "inf", "1e308", "1.005", "99999999.995", "0x1F"]
TIMES = ["20-04-01 00:00:00", "infinity", "epoch", "2020-04-01  1:2:3", "2020-04-01T00:00:00", "2020-04-01 24:00:00"]
ZONED = [
    "2020-04-01 00:00:00Z",
    "2020-04-01 00:00:00.1234567",
    "1900-01-01 00:00:00",
    "0000-00-00 00:00:00",
    "\v2020-04-01",
]
CODES = ["Y", "y", " N", '"Y"', '"y "', "0", "CMT", "DDS", "Credit", "No Charge ", "NULL", "\\N"]
QUOTES = ['"a" ', ' "a"', 'a"b', '"a""b"', '"a', 'a"', '""', '"', '"x" "y"', '"a,b"', '"1,234.5"', '"a\nb"', '"a\r\nb"']
SPACES = ["", " ", '" "', "\t", "1\t", " 2020-04-01 00:00:00 ", "\r", "a\rb", "\ufeffa", "é", "1,", "x" * 3000]
VALUES = [*NUMBERS, *TIMES, *ZONED, *CODES, *QUOTES, *SPACES]
BYTES = [
    b"\0",
    b"\xff",
    b"\xed\xa0\x80",
    b"\r",
    b"\n",
    b"\r\n",
    b'"',
    b",",
    b" ",
    b"\xef\xbb\xbf",
    b"\n\n",
    b"\x1a",
    b"\x85",
]
NAMES = ["", "VendorID", "pickup_datetime", '"q ""x"""', "o'x", "__index_level_0__", "reason", "line", "source", "f0"]


@st.composite
def months(draw) -> tuple[str, bytes]:
    """A real month's first lines: columns dropped, repeated, moved, renamed or added, values and bytes damaged."""
    month = draw(st.sampled_from(sorted(HEADS)))
    header, *rest = HEADS[month].split("\n")
    blank = [line for line in rest if not line.strip()][:-1]
    rows = [line.rstrip("\r").split(",") for line in rest if line.strip()] * draw(st.sampled_from([1, 1, 3]))
    names = header.rstrip("\r").split(",")
    order = list(range(len(names)))
    match draw(st.sampled_from(["", "", "", "", "drop", "repeat", "move", "rename", "add"])):
        case "drop":
            order.pop(draw(st.sampled_from(order)))
        case "repeat":
            order.append(draw(st.sampled_from(order)))
        case "move":
            order = draw(st.permutations(order))
        case "rename":
            names[draw(st.sampled_from(order))] = draw(st.sampled_from(NAMES))
        case "add":
            order.append(len(names))
            names.append(draw(st.sampled_from(NAMES)))
            rows = [[*row[: len(names) - 1], "v", *row[len(names) - 1 :]] for row in rows]
    rows = [[row[i] for i in order] + row[len(names) :] for row in rows]
    for row in draw(st.lists(st.sampled_from(rows), max_size=4)):
        match draw(st.sampled_from(["value", "value", "value", "cut", "widen", "empty"])):
            case "value" if row:
                row[draw(st.integers(0, len(row) - 1))] = draw(st.sampled_from(VALUES))
            case "cut":
                del row[draw(st.integers(0, len(row))) :]
            case "widen":
                row.append(draw(st.sampled_from(["", '""', " ", "x"])))
            case "empty":
                row[:] = [""] * len(row)
    end = draw(st.sampled_from(["\n", "\r\n"]))
    lines = [",".join(names[i] for i in order), *blank, *(",".join(row) for row in rows)]
    data = (end.join(lines) + draw(st.sampled_from([end, end, ""]))).encode()
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at, to = sorted(draw(st.tuples(*[st.integers(0, len(data))] * 2)))
        data = (
            data[:at]
            + draw(st.sampled_from([*BYTES, data[at:to] * 2, b""]))
            + data[draw(st.sampled_from([at, at, to])) :]
        )
    return month, data.replace(b"\n", b"\r") if draw(st.integers(0, 19)) == 19 else data


@dataclass(frozen=True)
class Refusal:
    """The error that a cleaning ended in, comparable."""

    kind: str
    problem: str
    remedy: str


ARROW_TYPES = {
    "D": pa.timestamp("us"),
    "I": pa.int64(),
    "F": pa.float64(),
    "M": pa.decimal128(10, 2),
    "S": pa.string(),
    "DATE": pa.date32(),
}


def schema_of(contract: Contract) -> pa.Schema:
    return pa.schema([(column.name, ARROW_TYPES[column.type]) for column in contract.table_columns])


def found(month: str, data: bytes, careful: bool, folder: Path | None = None, in_batches: bool = True) -> object:
    """What a cleaning ends in, comparable; rows in no order, as recovered ones come last."""
    try:
        made = clean(data, month, careful=careful, in_batches=in_batches, folder=folder)
    except TaxiError as error:
        return Refusal(type(error).__name__, error.problem, error.remedy)
    assert made.report.rows_read == len(made.trips) + len(made.rejected)
    assert made.table.schema.equals(schema_of(contract_of(Dataset.parse(made.report.dataset))))
    return sorted(map(repr, made.trips)), sorted(map(repr, made.rejected)), made.report


def trips(*rows: str, end: bytes = b"\n") -> tuple[str, bytes]:
    return "green 2020-04", green(*rows).replace(b"\n", end)


@pytest.mark.fault(14, 15)
@searching
@given(months())
@example(trips("lpep_pickup_datetime=infinity", "lpep_dropoff_datetime=20-04-01 00:00:00", TRIP))
@example(trips("lpep_pickup_datetime=2020-04-07  0:1:2", "lpep_pickup_datetime=\v2020-04-07 00:00:00", TRIP))
@example(trips(f"{TRIP}\r{TRIP}", "lpep_pickup_datetime=", TRIP.replace("N", "Y") + "\r"))
@example(("fhv 2020-04", b"dispatching_base_num,pickup_datetime\n\xef\xbb\xbfB1,2020-04-07 00:00:00\n"))
@example(("fhv 2020-04", b"pickup_datetime,__index_level_0__\n2020-04-07 00:00:00,\xff\n2020-04-08 00:00:00,\n"))
@example(
    ("fhv 2020-04", b"pickup_datetime,affiliated_base_number\n2020-04-07 00:00:00,B1\r\r\n2020-04-08 00:00:00,B\n")
)
@example(("green 2020-04", green(f"{TRIP},1.0", f"{TRIP},2", header=f"{GREEN},vendor_id")))
@example(("yellow 2014-01", HEADS["yellow 2014-01"].replace("2014-01-09 20:59:46,", "5.,").encode() + b'",NULL,x'))
@example(("fhv 2020-04", b"base,pickup_datetime\n\r,2020-04-07 00:00:00\n"))
@example(trips("trip_distance=far", TRIP, "trip_distance= ", f"{TRIP},", f"{TRIP},x", end=b"\r\n"))
def test_the_fast_and_the_careful_reader_find_the_same_and_account_for_every_row(month_and_data):
    month, data = month_and_data
    assert found(month, data, careful=False) == found(month, data, careful=True)


@settings(searching, max_examples=EXAMPLES // 5)
@given(
    st.sampled_from(
        ["yellow 2009-01", "yellow 2013-05", "green 2014-08", "fhv 2018-03", "fhvhv 2019-02", "yellow 2026-07"]
    ),
    st.integers(1, 300),
)
def test_synthetic_months_read_the_same_on_both_paths(tmp_path_factory, month, rows):
    path = tmp_path_factory.mktemp("sample") / "month.csv.gz"
    write_sample(DatasetMonth.parse(*month.split()), rows, path)
    data = path.read_bytes()
    assert (first := found(month, data, careful=False)) == found(month, data, careful=True)
    assert isinstance(first, tuple) and first[2].rows_read == rows and 1 <= len(first[1]) <= rows


TABLE = pa.table(
    {
        "VendorID": pa.array([1, 2, None] * 10),
        "lpep_pickup_datetime": [datetime(2020, 4, 7)] * 30,
        "store_and_fwd_flag": ["Y", "N", None] * 10,
        "trip_distance": [0.5, 1.0, 2.0] * 10,
    }
)
PARQUETS = [parquet(TABLE, compression=codec) for codec in ("zstd", "snappy", "gzip", "none")]


@pytest.mark.fault(21)
@settings(searching, max_examples=EXAMPLES * 2)
@given(st.sampled_from(PARQUETS), st.data())
def test_a_parquet_file_with_wrong_bytes_is_read_in_full_or_refused_with_one_clear_error(data, drawn):
    at = drawn.draw(
        st.integers(4, len(data) - 9) | st.integers(len(data) - 3000, len(data) - 9).map(lambda n: max(n, 4))
    )
    patch = drawn.draw(st.binary(min_size=1, max_size=4))
    data = data[:at] + patch + data[at + (len(patch) if drawn.draw(st.booleans()) else 0) :]
    found("green 2020-04", data, careful=False)


KINDS = {
    pa.int8(): st.integers(-128, 127),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.float64(): st.floats() | st.sampled_from([1.0, 2.5]),
    pa.string(): st.sampled_from(
        ["1", "1.5", "Y", "CMT", "2020-04-01 00:00:00", "2020-04-01 00:00:00+01", "", " ", "\0"]
    ),
    pa.timestamp("us"): st.integers(-(2**63) + 1, 2**63 - 1),
    pa.timestamp("ns"): st.integers(-(2**63) + 1, 2**63 - 1),
    pa.timestamp("ms", "UTC"): st.integers(0, 2**40),
    pa.date32(): st.integers(-(10**7), 10**7),
    pa.bool_(): st.booleans(),
    pa.list_(pa.int64()): st.lists(st.integers(0, 9), max_size=2),
    pa.decimal128(38, 2): st.decimals(-(10**35), 10**35, places=2),
    pa.binary(): st.sampled_from([b"1", b"Y", b""]),
    pa.null(): st.none(),
}


@searching
@given(st.data())
def test_a_parquet_column_of_any_type_is_read_or_its_rows_are_rejected(drawn):
    columns = {"lpep_pickup_datetime": pa.array([datetime(2020, 4, 7)] * 3)}
    names = [
        "VendorID",
        "passenger_count",
        "trip_distance",
        "total_amount",
        "store_and_fwd_flag",
        "request_source",
        "new",
    ]
    for name in drawn.draw(st.lists(st.sampled_from([*names, "lpep_pickup_datetime"]), min_size=1, unique=True)):
        kind = drawn.draw(st.sampled_from(list(KINDS)))
        columns[name] = pa.array(drawn.draw(st.lists(st.none() | KINDS[kind], min_size=3, max_size=3)), kind)
    made = found("green 2020-04", parquet(pa.table(columns)), careful=False)
    assert isinstance(made, tuple) and len(made[0]) + len(made[1]) == 3
