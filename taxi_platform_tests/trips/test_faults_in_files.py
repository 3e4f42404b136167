"""What damaged and hostile files must come to. The numbers are those of the faults the platform answers."""

import gzip
import io
import json
import re
import resource
import zlib
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taxi_platform.trips import csv_reading
from taxi_platform.trips.errors import ContractError, NotData, TaxiError
from taxi_platform.trips.records import MAX_LINE_BYTES
from taxi_platform_tests.support.cleaning_cases import GREEN, HEADS, TRIP, clean, green, parquet

BAD = TRIP.replace("1.68", "far")
TABLE = pa.table({"lpep_pickup_datetime": [datetime(2020, 4, 7)] * 3, "total_amount": [1.0, 2.0, 3.0]})
PARQUET = parquet(TABLE)
BOTH = pytest.mark.parametrize("careful", [False, True], ids=["fast", "careful"])


def refused(data: bytes, error: type[TaxiError], says: str, tmp_path, rows: int | None = None) -> None:
    """Cleaning ends in this error, whatever was counted when the file was fetched."""
    with pytest.raises(error, match=says):
        clean(data, folder=tmp_path, rows=rows, force=False)


@pytest.mark.fault(1, 2, 5, 6, 11)
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: data[:-9], "truncated"),
        (lambda data: data[: len(data) // 2], "truncated"),
        (lambda data: data[:-8] + bytes([data[-8] ^ 1]) + data[-7:], "corrupt"),
        (lambda data: data[:200] + bytes([data[200] ^ 255]) + data[201:], "corrupt|UTF-8|column names"),
        (lambda data: data + b"garbage", "followed by other bytes"),
        (lambda data: b"<html>busy</html>", "HTML"),
        (lambda data: gzip.compress(b"<!DOCTYPE html><p>busy"), "HTML"),
        (lambda data: b"", "empty"),
        (lambda data: gzip.compress(b""), "empty"),
        (lambda data: GREEN.encode("utf-16"), "UTF-16"),
        (lambda data: b"\n\r\n", "blank"),
    ],
)
def test_a_damaged_archive_a_page_an_empty_file_and_utf_16_are_refused(damage, says, tmp_path):
    """Faults 1, 2, 3, 5, 6, 11; also when the rows were counted in a better copy of the file."""
    data = damage(gzip.compress(green(*[f"total_amount={n}" for n in range(500)])))
    refused(data, NotData, says, tmp_path)
    refused(data, NotData, f"{says}|does not begin", tmp_path, rows=500)


@pytest.mark.fault(3)
def test_all_members_of_a_gzip_file_are_cleaned(tmp_path):
    """Fault 3."""
    whole = green(TRIP, "total_amount=1", BAD)
    made = clean(gzip.compress(whole[:150]) + gzip.compress(whole[150:]))
    assert (len(made.trips), made.faults) == (2, [("invalid_value", "trip_distance", 4)])


@pytest.mark.fault(4)
def test_a_gzip_file_of_one_gib_of_zeros_is_refused_at_once_in_bounded_memory(tmp_path):
    """Fault 4."""
    deflate = zlib.compressobj(9, wbits=31)
    block = deflate.compress(green(*[TRIP] * 10)) + deflate.compress(bytes(1 << 20))
    bomb = block + b"".join(deflate.compress(bytes(1 << 20)) for _ in range(200)) + deflate.flush()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(bomb, NotData, "decompression bomb", tmp_path, rows=1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150 << 10


@pytest.mark.fault(3)
def test_zeros_between_gzip_members_which_duckdb_cannot_read_cost_no_row():
    """A plain file, so that DuckDB reads the archive itself."""
    whole = green(TRIP, "total_amount=1", BAD)
    made = clean(gzip.compress(whole[:150]) + b"\0" + gzip.compress(whole[150:]))
    assert (len(made.trips), made.faults) == (2, [("invalid_value", "trip_distance", 4)])


@pytest.mark.fault(7)
@pytest.mark.parametrize("data", [green(), parquet(TABLE.slice(0, 0))], ids=["csv", "parquet"])
def test_a_header_without_rows_is_refused_and_says_how_to_insist(data, tmp_path):
    """Fault 7."""
    refused(data, NotData, "no rows.*--force", tmp_path)


@pytest.mark.fault(8)
@BOTH
def test_columns_in_another_order_are_found_by_name(careful):
    """Fault 8."""
    order = [7, 3, 1, 9, 0, 8, 2, 6, 5, 4]
    turn = lambda line: ",".join(line.split(",")[i] for i in order)  # noqa: E731
    made, straight = clean(green(turn(TRIP), header=turn(GREEN)), careful=careful), clean(green(TRIP))
    assert made.trips[0] | {"file_version": 0} == straight.trips[0] | {"file_version": 0}


@pytest.mark.fault(8, 10)
@pytest.mark.parametrize("as_parquet", [False, True], ids=["csv", "parquet"])
def test_a_file_without_pickup_times_is_refused_with_the_names_found(as_parquet, tmp_path):
    """Faults 8 and 10."""
    data = parquet(TABLE.rename_columns(["when", "total"])) if as_parquet else b"when,total\n1,2\n"
    refused(data, ContractError, "lpep_pickup_datetime, found 'when', 'total'", tmp_path)


@pytest.mark.fault(9)
def test_the_column_of_june_2026_is_known_and_an_unknown_one_is_kept():
    """Fault 9."""
    data = green(f"{TRIP},HV0003,7", header=f"{GREEN},request_source,tomorrow")
    wide = TABLE.append_column("request_source", pa.array(["HV0003"] * 3)).append_column("tomorrow", pa.array([7] * 3))
    for made in (clean(data, "green 2026-06"), clean(wide, "green 2026-06")):
        assert made.trips[0]["request_source"] == "HV0003" and made.extra[0] == {"tomorrow": "7"}
        assert made.report.unknown_columns == ("tomorrow",)


@pytest.mark.fault(10)
@BOTH
def test_missing_columns_are_null_and_reported(careful):
    """Fault 10."""
    made = clean(b"lpep_pickup_datetime\n2020-04-07 00:00:00\n", careful=careful)
    assert {name for name, value in made.trips[0].items() if value is not None} == {
        *("pickup_datetime", "file_month", "file_version")
    }
    assert "trip_distance" in made.report.missing_columns and len(made.report.missing_columns) == 25


@pytest.mark.fault(11, 12)
@BOTH
@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"\xef\xbb\xbf" + data,
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: data.replace(b"\n", b"\r"),
        lambda data: data.rstrip(b"\n"),
        lambda data: data.replace(b"\n", b"\r\n").rstrip(b"\r\n"),
        lambda data: data + b"\n\n",
        lambda data: data.replace(b"\n", b"\n\r\n", 1),
        lambda data: gzip.compress(data),
        lambda data: gzip.compress(b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n")),
    ],
    ids=[
        "bom",
        "crlf",
        "cr",
        "no last newline",
        "crlf, no last",
        "blank lines",
        "blank after header",
        "gzip",
        "gzip bom",
    ],
)
def test_line_ends_and_marks_do_not_change_the_rows(change, careful):
    """Faults 11 and 12."""
    plain = green(TRIP, BAD, "total_amount=1", 'store_and_fwd_flag="Y"')
    made, expected = clean(change(plain), careful=careful), clean(plain)
    for rows, known in [(made.trips, expected.trips), (made.rejected, expected.rejected)]:
        assert [row | {"file_version": 0, "line": 0} for row in rows] == [
            row | {"file_version": 0, "line": 0} for row in known
        ]


FHV = b"dispatching_base_num,pickup_datetime,Affiliated_base_number\n"


@pytest.mark.fault(13, 15, 16)
@BOTH
@pytest.mark.parametrize(
    ("line", "fault", "text"),
    [
        (b"B\xe9,2020-04-07 00:00:00,B1", ("invalid_encoding", None, 3), "B\\xe9,2020-04-07 00:00:00,B1"),
        (
            b"B1,2020-04-07 00:00:00,\xed\xa0\x80",
            ("invalid_encoding", None, 3),
            "B1,2020-04-07 00:00:00,\\xed\\xa0\\x80",
        ),
        (b"B\x001,2020-04-07 00:00:00,B1", ("nul_byte", None, 3), "B\\x001,2020-04-07 00:00:00,B1"),
        (b"B1,2020-04-07 00:00:00", ("too_few_fields", None, 3), "B1,2020-04-07 00:00:00"),
        (b"B1,2020-04-07 00:00:00,B1,x", ("too_many_fields", None, 3), "B1,2020-04-07 00:00:00,B1,x"),
        (b'"B1,2020-04-07 00:00:00,B1', None, '"B1'),
        (b'"B1" ,2020-04-07 00:00:00,B1', None, '"B1" '),
        (b'"B1" "2",2020-04-07 00:00:00,B1', None, '"B1" "2"'),
        (b' "B1",2020-04-07 00:00:00,B1', None, ' "B1"'),
        (b'"B ""1"", 2",2020-04-07 00:00:00,B1', None, 'B "1", 2'),
        (b'"B\n1",2020-04-07 00:00:00,B1', None, "B\n1"),
        (b"\xef\xbb\xbfB1,2020-04-07 00:00:00,B1,", None, "\ufeffB1"),
    ],
)
def test_an_unreadable_line_is_rejected_alone_and_an_unusual_one_is_read_literally(line, fault, text, careful):
    """Faults 13, 14, 15, 16."""
    made = clean(
        FHV + b"B0,2020-04-07 00:00:00,\n" + line + b"\nB9,2020-04-08 00:00:00,B9\n", "fhv 2020-04", careful=careful
    )
    assert made.faults == ([fault] if fault else [])
    assert [row["text"] for row in made.rejected] == ([text] if fault else [])
    assert made.column("dispatching_base_num") == (["B0", "B9"] if fault else ["B0", text, "B9"])


@pytest.mark.fault(16)
def test_a_byte_order_mark_or_a_null_inside_reads_the_same_on_both_paths():
    """Faults 11 and 16: DuckDB would take a mark away at the start of the first row too."""
    data = FHV + b"\xef\xbb\xbfB1,2020-04-07 00:00:00,\n"
    assert clean(data, "fhv 2020-04").column("dispatching_base_num") == ["\ufeffB1"]
    made = clean(pa.table({"pickup_datetime": TABLE[0], "dispatching_base_num": ["a", "b\0", "c"]}), "fhv 2020-04")
    assert made.column("dispatching_base_num") == ["a", "c"]
    assert (
        json.loads(made.rejected[0]["text"])["dispatching_base_num"] == "b\0" and "\0" not in made.rejected[0]["text"]
    )


def test_trailing_fields_without_names_are_dropped_where_empty():
    """Fault 15, as yellow 2016-07 and green 2013-08 have them."""
    made = clean(HEADS["yellow 2016-07"].replace(",,\r\n", ",7,\r\n", 1).encode(), "yellow 2016-07")
    assert (made.faults, len(made.trips)) == ([("too_many_fields", None, 2)], 3)


@pytest.mark.fault(17)
def test_a_line_of_50_mb_costs_one_row_and_little_memory():
    """Fault 17."""
    long = b"2,2020-04-07 00:44:02," + b"x" * 50_000_000
    data = green(TRIP, "total_amount=1") + long + b"\n" + TRIP.encode() + b"\n"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    made = clean(data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150 << 10
    assert (len(made.trips), made.faults) == (3, [("line_too_long", None, 4)])
    assert made.rejected[0]["text"] == long[:1000].decode() + "…"


@BOTH
@pytest.mark.parametrize("over", [0, 1])
def test_the_longest_line_is_kept_and_one_byte_more_is_not(over, careful):
    """Fault 17: DuckDB's own limit is another."""
    rest = b",2020-04-07 00:00:00,"
    line = b"B" * (MAX_LINE_BYTES - len(rest) + over) + rest
    made = clean(FHV + line + b"\nB9,2020-04-08 00:00:00,B9\n", "fhv 2020-04", careful=careful)
    assert made.faults == [("line_too_long", None, 2)] * over and len(made.trips) == 2 - over


@BOTH
@pytest.mark.parametrize("size", [8_000, 9_990, 10_000, 12_000, 70_000])
def test_the_text_of_a_rejected_line_is_the_whole_line(size, careful):
    """Fault 17: DuckDB would cut it at 10,000 characters, in a plain file even where the fault is behind that."""
    line = b"B" * size + b",2020-04-07 00:00:00,B1,one too many"
    data = FHV + b"B0,2020-04-07 00:00:00,\n" + line + b"\nB9,2020-04-08 00:00:00,B9\n"
    made = clean(data, "fhv 2020-04", careful=careful)
    assert made.faults == [("too_many_fields", None, 3)]
    assert made.rejected[0]["text"] == line.decode()


def test_long_lines_are_read_in_batches_of_bounded_size(monkeypatch):
    """Fault 17."""
    monkeypatch.setattr(csv_reading, "BATCH_BYTES", 1000)
    batches = list(csv_reading.batches(((n, b"x" * 400) for n in range(10)), 1))
    assert [len(rows) for rows, _ in batches] == [3, 3, 3, 1]


@pytest.mark.fault(18, 19)
@pytest.mark.parametrize("as_parquet", [False, True], ids=["csv", "parquet"])
def test_repeated_rows_and_those_of_other_months_are_kept_and_counted(as_parquet):
    """Faults 18 and 19."""
    times = ["2020-04-07 00:00:00", "2020-04-07 00:00:00", "2001-01-01 00:00:00", "2098-09-11 00:00:00"]
    if as_parquet:
        data = parquet(pa.table({"lpep_pickup_datetime": list(map(datetime.fromisoformat, times))}))
    else:
        data = green(*(f"lpep_pickup_datetime={time};lpep_dropoff_datetime=" for time in times))
    made = clean(data)
    assert list(map(str, made.column("pickup_datetime"))) == times
    assert {rule: made.report.suspicious[rule] for rule in ("exact_duplicate", "outside_month")} == {
        "exact_duplicate": 1,
        "outside_month": 2,
    }
    assert made.report.trips_per_day == {"2020-04-07": 2}


@pytest.mark.fault(20)
@pytest.mark.parametrize("as_parquet", [False, True], ids=["csv", "parquet"])
def test_numbers_that_overflow_are_rejected_and_negative_fares_are_not(as_parquet):
    """Fault 20."""
    values = [-9.3, 1e308, float("nan"), 1e8, -99999999.99, float("inf")]
    if as_parquet:
        data = parquet(pa.table({"lpep_pickup_datetime": [datetime(2020, 4, 7)] * 6, "total_amount": values}))
    else:
        data = green(*(f"total_amount={value!r}" for value in values))
    made = clean(data)
    assert list(map(float, made.column("total_amount"))) == [-9.3, -99999999.99]
    assert [row["column_name"] for row in made.rejected] == ["total_amount"] * 4
    assert made.report.suspicious["negative_total"] == 2


@pytest.mark.fault(21)
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: data[:-9], "footer"),
        (lambda data: data[:-1] + b"X", "footer"),
        (lambda data: data[:4] + data[-200:], "damaged|footer"),
        (lambda data: data[:30] + bytes(60) + data[90:], "damaged"),
        (lambda data: b"PAR1", "footer|damaged"),
    ],
)
def test_a_damaged_parquet_file_is_refused(damage, says, tmp_path):
    """Fault 21."""
    data = parquet(TABLE, use_dictionary=False, compression="zstd")
    refused(damage(data), NotData, says, tmp_path)
    refused(damage(data), NotData, "footer|damaged", tmp_path, rows=3)


def test_a_parquet_file_of_text_that_is_no_utf_8_is_refused(tmp_path):
    """Fault 13."""
    broken = pa.table({"pickup_datetime": TABLE[0], "dispatching_base_num": pa.array([b"a", b"\xff", b"c"])})
    with pytest.raises(NotData, match="bytes are not text: 'dispatching_base_num'"):
        clean(broken, "fhv 2020-04", folder=tmp_path)


def test_parquet_in_row_groups_compressed_otherwise_reads_the_same():
    """Fault 21."""
    expected = clean(PARQUET).trips
    for options in ({"compression": "gzip"}, {"compression": "none", "row_group_size": 1}, {"version": "1.0"}):
        made = clean(parquet(TABLE, **options)).trips
        assert [row | {"file_version": 0} for row in made] == [row | {"file_version": 0} for row in expected]
    old = io.BytesIO()
    pq.write_table(TABLE, old, use_deprecated_int96_timestamps=True)
    assert clean(old.getvalue()).column("pickup_datetime") == [datetime(2020, 4, 7)] * 3


@pytest.mark.fault(8, 62)
def test_a_header_that_is_none_is_refused_and_says_why(tmp_path):
    for columns, says in ((1_018, "has 1,018 columns. The limit is 1,000;"), (50_000, "has 50,000 columns.")):
        extra = columns - GREEN.count(",") - 1
        wide = ",".join([GREEN, *(f"c{n}" for n in range(extra))]).encode() + b"\n" + b"," * (columns - 1) + b"\n"
        refused(wide, NotData, re.escape(says), tmp_path)
    long = f"{GREEN},{'x' * (1 << 20)}\n1\n".encode()
    refused(long, NotData, "first line of .* has more than 1,048,576 bytes", tmp_path)
    refused(GREEN.encode() + b",a\0b\n1\n", NotData, "contain NUL bytes", tmp_path)
    refused(b"\xff\xe0,x\n1\n", NotData, "are not UTF-8", tmp_path)


@pytest.mark.fault(62)
def test_a_binary_column_is_named_and_not_called_damage(tmp_path):
    for kind in (pa.binary(), pa.large_binary(), pa.binary(2)):
        column = pa.array([b"\xff\x00"] * len(TABLE), kind)
        for name in ("blob", "VendorID"):
            table = TABLE.drop_columns([name] if name in TABLE.column_names else []).append_column(name, column)
            refused(parquet(table), NotData, f"has binary columns whose bytes are not text: '{name}'", tmp_path)


NAMES = ['"; DROP TABLE staged; --', "'); ATTACH 'x.db'; --", "select", "source", "reason", "", "🚕", "x" * 10_000]


@pytest.mark.parametrize("as_parquet", [False, True], ids=["csv", "parquet"])
def test_a_column_of_any_name_is_kept_under_it(as_parquet):
    """Fault 44."""
    if as_parquet:
        data = parquet(pa.table({"lpep_pickup_datetime": TABLE[0][:1], **{name: [name] for name in NAMES}}))
    else:
        quoted = ",".join('"{}"'.format(name.replace('"', '""')) for name in NAMES)
        data = f"lpep_pickup_datetime,{quoted}\n2020-04-07 00:00:00,{quoted}\n".encode()
    assert clean(data).extra == [{name: name for name in NAMES if name}]
    assert len(clean(data).report.unknown_columns) == len(NAMES)


def test_a_file_without_pickup_times_is_refused_in_a_message_of_bounded_length():
    """Fault 44."""
    with pytest.raises(ContractError) as caught:
        clean(b",".join(b"%d" % n + b"x" * 10_000 for n in range(50)) + b"\n")
    assert len(str(caught.value)) < 1500


def test_statistics_of_a_parquet_file_that_are_not_true_let_no_wrong_value_pass():
    """Fault 21: by them DuckDB would find the test of a time's range needless."""
    times = [datetime(2020, 4, 7, hour) for hour in (0, 1, 2)]
    table = TABLE.append_column("lpep_dropoff_datetime", pa.array(times, pa.timestamp("us")))
    data = parquet(table, use_dictionary=False, compression="none")
    middle = pa.array(times[1:2], pa.timestamp("us")).cast(pa.int64())[0].as_py().to_bytes(8, "little")
    assert data.count(middle) == 1
    made = clean(data.replace(middle, (2**62).to_bytes(8, "little")))
    assert made.column("dropoff_datetime") == [times[0], times[2]]
    assert made.faults == [("invalid_value", "dropoff_datetime", None)]
