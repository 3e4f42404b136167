"""The cleaner on real files, and every cast, code, rule and Parquet type on small ones."""

import csv
import gzip
import io
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from datetime import date, datetime
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taxi_platform.trips.contract import REJECTED_COLUMNS, contract_of
from taxi_platform.trips.errors import ContractError, IntegrityError, NotData, TooManyRejected
from taxi_platform.trips.months import Dataset
from taxi_platform.trips.report import Report
from taxi_platform_tests.support.cleaning_cases import GREEN, HEADS, TRIP, clean, green, parquet
from taxi_platform_tests.support.system import shared_file

BOTH = pytest.mark.parametrize("careful", [False, True], ids=["fast", "careful"])
CODES = {
    **dict.fromkeys(["credit", "cre", "crd", "cmt"], 1),
    **dict.fromkeys(["cash", "cas", "csh", "vts"], 2),
    **dict.fromkeys(["no charge", "no", "noc"], 3),
    **dict.fromkeys(["dispute", "dis"], 4),
    **dict.fromkeys(["na", "unk"], 5),
    "dds": None,
}
FLAGS = {"0": "N", "1": "Y", "N": "N", "Y": "Y"}
READ = {
    "D": datetime.fromisoformat,
    "I": lambda text: CODES[text.strip().lower()] if text.strip().lower() in CODES else int(float(text)),
    "F": float,
    "M": lambda text: cents(text),
    "S": str,
}


def cents(text: str) -> Decimal:
    return Decimal(text).quantize(Decimal("0.01"), ROUND_HALF_UP)


def plainly(text: str, dataset: str) -> list[dict]:
    """The canonical rows of a healthy file, read with nothing of the cleaner's but the contract's names and types."""
    header, *rows = (row for row in csv.reader(io.StringIO(text)) if row)
    contract = contract_of(Dataset(dataset))
    sources = contract.map_columns(header).sources
    types = {column.name: FLAGS.get if column.codes == "flag" else READ[column.type] for column in contract.columns}
    return [
        {
            name: next((read(row[i]) for i in sources.get(name, ()) if row[i].strip()), None)
            for name, read in types.items()
        }
        for row in rows
    ]


def canonical(rows: list[dict], dataset: str) -> list[dict]:
    names = [column.name for column in contract_of(Dataset(dataset)).columns]
    return [{name: row[name] for name in names} for row in rows]


def test_the_published_green_2020_04_is_clean_to_the_cent():
    path = shared_file("files/green_tripdata_2020-04.csv.gz")
    made = clean(path)
    assert (made.report.rows_read, made.report.rows_clean, made.rejected) == (35612, 35612, [])
    assert not made.careful
    with gzip.open(path, "rt", newline="") as file:
        expected = plainly(file.read(), "green")
    assert canonical(made.trips, "green") == expected
    assert sum(made.column("total_amount")) == sum(row["total_amount"] for row in expected) > 600_000
    assert set(made.column("extra_columns")) == {None}
    assert set(made.column("file_month")) == {date(2020, 4, 1)}
    assert made.report.missing_columns == (
        *("pickup_longitude", "pickup_latitude", "dropoff_longitude", "dropoff_latitude"),
        *("cbd_congestion_fee", "request_source"),
    )
    days = Counter(f"{row['pickup_datetime']:%Y-%m-%d}" for row in expected)
    assert made.report.trips_per_day == {day: n for day, n in sorted(days.items()) if day.startswith("2020-04")}
    assert made.report.suspicious["zero_passengers"] == 132
    assert Report.from_json(made.report.to_json()) == made.report


def test_a_reject_rule_takes_the_course_s_132_rows_out():
    made = clean(shared_file("files/green_tripdata_2020-04.csv.gz"), reject=("zero_passengers",))
    assert (made.report.rows_clean, made.report.rejected_by_reason) == (35480, {"zero_passengers": 132})
    assert "zero_passengers" not in made.report.suspicious
    assert all(row["text"].split(",")[7] == "0" for row in made.rejected)


def test_the_published_green_2020_11_has_88605_clean_rows():
    path = shared_file("files/green_tripdata_2020-11.csv.gz")
    made = clean(path, "green 2020-11")
    with gzip.open(path, "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    assert (made.table.num_rows, made.rejected, made.careful) == (88605, [], False) and len(rows) == 88605
    for column in ("fare_amount", "tip_amount", "total_amount", "congestion_surcharge"):
        expected = sum((cents(row[column]) for row in rows if row[column]), Decimal(0))
        assert sum(filter(None, made.column(column))) == expected


def test_the_published_parquet_2024_01_has_56551_clean_rows():
    path = shared_file("files/green_tripdata_2024-01.parquet")
    made = clean(path, "green 2024-01")
    raw = pq.read_table(path)
    assert (made.table.num_rows, made.rejected) == (56551, [])
    assert made.column("pickup_datetime") == raw["lpep_pickup_datetime"].to_pylist()
    assert made.column("vendor_id") == raw["VendorID"].to_pylist()
    assert made.column("passenger_count") == [n if n is None else int(n) for n in raw["passenger_count"].to_pylist()]
    assert sum(made.column("total_amount")) == sum(cents(repr(total)) for total in raw["total_amount"].to_pylist())
    assert set(made.column("ehail_fee")) == {None}


@pytest.mark.parametrize(
    ("name", "month", "rows"),
    [
        ("fhv_tripdata_2020-04.extract.csv", "fhv 2020-04", 1000),
        ("yellow_tripdata_2016-01.extract.csv", "yellow 2016-01", 0),
    ],
)
def test_the_extracts_read_as_a_plain_reader_reads_them(name, month, rows):
    path = shared_file(f"files/{name}")
    made = clean(path, month)
    dataset = month.split()[0]
    assert canonical(made.trips, dataset) == plainly(path.read_text("utf-8"), dataset)
    assert len(made.trips) == (rows or 1998 + (not path.read_bytes().endswith(b"\n"))) and not made.rejected


def test_all_heads_of_225_real_months_are_clean_but_for_their_cut_last_lines():
    """Months with the same header are cleaned as one file; a head's last line is cut after 1,024 bytes."""
    eras = defaultdict(list)
    for path in sorted(shared_file("heads").iterdir()):
        header, *lines = path.read_bytes().splitlines(keepends=True)
        eras[path.name.split("_")[0], header].append((path.stem[-7:], [line for line in lines if line.strip()]))
    assert sum(map(len, eras.values())) == 225
    for (dataset, header), heads in eras.items():
        width = header.count(b",") + 1
        whole, cut_lines = [], 0
        for _, lines in heads:
            lines[-1] = lines[-1].rstrip(b"\r\n") + b"\r\n"
            cut_lines += (cut := lines[-1].count(b",") + 1 < width)
            whole += lines[: -1 if cut else None]
        made = clean(
            header + b"\r\n" + b"".join(line for _, lines in heads for line in lines), f"{dataset} {heads[0][0]}"
        )
        assert made.report.rejected_by_reason == ({"too_few_fields": cut_lines} if cut_lines else {})
        expected = plainly((header + b"".join(whole)).decode(), dataset)
        assert canonical(made.trips, dataset) == expected, heads[0]
        assert made.report.unknown_columns == ()


@pytest.mark.parametrize("month", HEADS)
def test_an_era_s_first_lines_read_as_a_plain_reader_reads_them(month):
    made = clean(HEADS[month].encode(), month)
    dataset = month.split()[0]
    assert canonical(made.trips, dataset) == plainly(HEADS[month], dataset)
    assert (made.rejected, made.careful) == ([], False)


def test_the_spellings_of_old_years_become_today_s_codes():
    first = clean(HEADS["yellow 2009-01"].encode(), "yellow 2009-01").trips[0]
    assert (first["vendor_id"], first["payment_type"], first["trip_distance"]) == (2, 2, 2.63)
    assert (first["fare_amount"], first["pickup_longitude"]) == (Decimal("8.90"), -73.991957)
    made = clean(HEADS["yellow 2009-01"].replace("VTS", "DDS", 1).encode(), "yellow 2009-01")
    assert made.column("vendor_id")[:2] == [None, 2]
    assert made.extra[:2] == [{"vendor_name": "DDS"}, None]
    assert clean(HEADS["yellow 2012-01"].encode(), "yellow 2012-01").column("vendor_id") == [1] * 4
    base = clean(HEADS["fhv 2018-01"].encode(), "fhv 2018-01")
    assert base.column("dispatching_base_num")[0] == "B02884" and base.extra[0] is None
    assert clean(b"Dispatching_base_num,Pickup_date,locationID\nB1,2015-01-01 00:30:00,7\n", "fhv 2015-01").column(
        "pickup_location_id"
    ) == [7]


@BOTH
def test_what_fits_a_column_is_kept_and_what_does_not_is_rejected_with_its_column(careful):
    """Every row of this file tries one value; a trip of its own number of cents tells the rows apart."""
    tries = [
        ("passenger_count", "1.0", 1),
        ("passenger_count", " 2 ", 2),
        ("passenger_count", "-0", 0),
        ("passenger_count", "9007199254740991", 9007199254740991),
        ("passenger_count", "", None),
        ("passenger_count", "   ", None),
        ("trip_distance", ".50", 0.5),
        ("trip_distance", "2.6299999999999999", 2.63),
        ("trip_distance", "1e3", 1000.0),
        ("total_amount", "2.6299999999999999", Decimal("2.63")),
        ("total_amount", "2.675", Decimal("2.68")),
        ("total_amount", "-2.675", Decimal("-2.68")),
        ("total_amount", "0.00499999999999", Decimal("0.00")),
        ("total_amount", "-99999999.99", Decimal("-99999999.99")),
        ("lpep_pickup_datetime", "2020-04-07T00:44:02", datetime(2020, 4, 7, 0, 44, 2)),
        ("lpep_pickup_datetime", "2020-04-07 00:44:02.123456", datetime(2020, 4, 7, 0, 44, 2, 123456)),
        ("lpep_pickup_datetime", "2020-04-07 00:44:02.500000000", datetime(2020, 4, 7, 0, 44, 2, 500000)),
        ("lpep_pickup_datetime", " 2020-4-7  0:44:2 ", datetime(2020, 4, 7, 0, 44, 2)),
        ("lpep_pickup_datetime", "2020-04-07", datetime(2020, 4, 7)),
        ("lpep_pickup_datetime", "1900-01-01 00:00:00", datetime(1900, 1, 1)),
        ("lpep_pickup_datetime", "2098-09-11 02:23:31", datetime(2098, 9, 11, 2, 23, 31)),
        ("store_and_fwd_flag", "y", "Y"),
        ("store_and_fwd_flag", "0.0", "N"),
        ("store_and_fwd_flag", " ", None),
    ]
    wrong = [
        *(("passenger_count", text) for text in ("1.5", "one", "nan", "1e308", "9007199254740993", "0x1F", "1,5")),
        *(("trip_distance", text) for text in ("nan", "-inf", "1e309", "1e308", "1,234.5", "1.2.3", "1.5 mi")),
        *(("total_amount", text) for text in ("NaN", "1e308", "1,234.5", "100000000", "99999999.995", "$5")),
        *(("lpep_pickup_datetime", f"2020-04-07 00:44:02{zone}") for zone in ("Z", "+00:00", "-04", " UTC")),
        *(("lpep_pickup_datetime", text) for text in ("infinity", "epoch", "20-04-07 00:44:02", "2020-02-30 00:00:00")),
        *(("lpep_dropoff_datetime", text) for text in ("-infinity", "0000-00-00 00:00:00", "12020-04-07 00:00:00")),
        *(("lpep_dropoff_datetime", text) for text in ("0000-01-01 00:00:00", "20200407", "04/07/2020 00:44:02")),
    ]
    quoted = [(name, f'"{text}"' if "," in text else text) for name, text in wrong]
    data = green(*(f"{name}={text}" for name, text, *_ in (*tries, *quoted)))
    made = clean(data, careful=careful)
    mapping = contract_of(Dataset.GREEN).map_columns(GREEN.split(","))
    canonical_name = {GREEN.split(",")[i]: name for name, (i,) in mapping.sources.items()}
    assert [row[canonical_name[name]] for row, (name, _, _) in zip(made.trips, tries, strict=True)] == [
        value for _, _, value in tries
    ]
    lines = data.decode().splitlines()
    assert made.rejected == [
        {
            "file_month": date(2020, 4, 1),
            "file_version": made.report.file_version,
            "reason": "invalid_value",
            "column_name": canonical_name[name],
            "line": line,
            "text": lines[line - 1],
        }
        for line, (name, _) in enumerate(wrong, start=2 + len(tries))
    ]


@BOTH
def test_a_row_without_pickup_time_is_rejected_and_one_without_dropoff_is_not(careful):
    made = clean(green("lpep_pickup_datetime=", "lpep_dropoff_datetime=", "lpep_pickup_datetime=   "), careful=careful)
    assert made.faults == [("no_pickup_time", "pickup_datetime", 2), ("no_pickup_time", "pickup_datetime", 4)]
    assert made.column("dropoff_datetime") == [None]


@pytest.mark.fault(15)
def test_lines_are_counted_from_the_header_over_blank_lines_and_mixed_line_ends():
    bad = "trip_distance=far"
    ended = green(bad, TRIP, bad, TRIP, TRIP, end="\r\n").split(b"\r\n", 1)[1]
    for before, lines in [(b"\n", [2, 4]), (b"\r\n", [2, 4]), (b"\n\r\n", [3, 5]), (b"\n\n\r\n", [4, 6])]:
        made = clean(GREEN.encode() + before + ended)
        assert [row["line"] for row in made.rejected] == lines
        assert {row["text"] for row in made.rejected} == {TRIP.replace("1.68", "far")}
        assert not made.careful


def test_recovered_lines_come_last_and_the_rest_in_the_file_s_order():
    made = clean(green("total_amount=1", "passenger_count= ;total_amount=2", "trip_distance=x", "total_amount=3"))
    assert (made.column("total_amount"), made.careful) == ([1, 3, 2], False)
    assert made.faults == [("invalid_value", "trip_distance", 4)]


def test_few_bad_lines_among_many_are_found_by_the_fast_scan_alone():
    rows = [f"total_amount={cents}" for cents in range(60_000)]
    for line in (0, 2047, 2048, 30_000, 59_999):
        rows[line] = "total_amount=much"
    rows[40_000] = "(60000 rows affected)"
    for end in ("\n", "\r\n"):
        made = clean(green(*rows, end=end))
        assert [line for _, _, line in made.faults] == [2, 2049, 2050, 30_002, 40_002, 60_001]
        assert not made.careful


@BOTH
def test_an_unknown_column_is_kept_as_json_and_named(careful):
    header = f"{GREEN},New Name,o'clock,new name"
    made = clean(green(f"{TRIP},a,,", f"{TRIP},,,", f'{TRIP}," é ""x"" ",5,c', header=header), careful=careful)
    assert made.extra == [{"New Name": "a"}, None, {"New Name": 'é "x"', "o'clock": "5", "new name": "c"}]
    assert made.report.unknown_columns == ("New Name", "o'clock", "new name")


@BOTH
def test_of_two_columns_for_one_place_the_first_non_empty_wins_and_a_different_second_is_kept(careful):
    header = f"{GREEN},vendor_id,PASSENGER_COUNT,pickup_datetime"
    same, other = ",2,1.0,2020-04-07 00:44:02", ",CMT,7.0,2020-04-08 00:00:00"
    first_empty = TRIP.replace("2,", ",", 1)
    made = clean(
        green(TRIP + same, TRIP + other, first_empty + other, f"{TRIP},DDS,x,", header=header), careful=careful
    )
    assert made.column("vendor_id") == [2, 2, 1, 2]
    assert made.extra == [
        None,
        {"vendor_id": "CMT", "PASSENGER_COUNT": "7.0", "pickup_datetime": "2020-04-08 00:00:00"},
        {"PASSENGER_COUNT": "7.0", "pickup_datetime": "2020-04-08 00:00:00"},
        {"vendor_id": "DDS", "PASSENGER_COUNT": "x"},
    ]
    assert made.report.unknown_columns == ()


SUSPECTS = {
    "zero_passengers": ["passenger_count=0"],
    "zero_distance": ["trip_distance=0", "trip_distance=.00;total_amount=1"],
    "long_distance": ["trip_distance=100.01"],
    "negative_total": ["total_amount=-0.01", "total_amount=-9"],
    "dropoff_before_pickup": ["lpep_dropoff_datetime=2020-04-07 00:44:01"],
    "over_24_hours": ["lpep_dropoff_datetime=2020-04-08 00:44:03"],
    "outside_month": [
        f"lpep_pickup_datetime={time};lpep_dropoff_datetime={time}"
        for time in ("2020-03-30 23:59:59", "2020-05-02 00:00:00", "2001-01-01 00:00:00", "2098-09-11 00:00:00")
    ],
    "unknown_zone": ["PULocationID=264", "DOLocationID=264", "PULocationID=0", "DOLocationID=266"],
    "exact_duplicate": [TRIP, TRIP],
}
INNOCENT = [
    TRIP,
    "passenger_count=",
    "trip_distance=100",
    "total_amount=0",
    "lpep_dropoff_datetime=2020-04-07 00:44:02",
    "lpep_dropoff_datetime=2020-04-08 00:44:02",
    "lpep_pickup_datetime=2020-03-31 00:00:00;lpep_dropoff_datetime=2020-03-31 00:00:00",
    "lpep_pickup_datetime=2020-05-01 23:59:59;lpep_dropoff_datetime=2020-05-01 23:59:59",
    "DOLocationID=265;PULocationID=1",
    "PULocationID=;DOLocationID=",
]


def test_every_suspicious_rule_counts_its_rows_and_keeps_them():
    made = clean(green(*INNOCENT, *(row for rows in SUSPECTS.values() for row in rows)))
    assert made.report.suspicious == {rule: len(rows) for rule, rows in SUSPECTS.items()}
    assert made.rejected == []


@pytest.mark.parametrize("as_parquet", [False, True], ids=["csv", "parquet"])
def test_every_suspicious_rule_rejects_its_rows_where_configured(as_parquet):
    data = green(*INNOCENT, *(row for rows in SUSPECTS.values() for row in rows))
    if as_parquet:
        data = typed(data)
    made = clean(data, reject=tuple(SUSPECTS))
    expected = [rule for rule, rows in SUSPECTS.items() for _ in rows]
    assert [row["reason"] for row in made.rejected] == expected
    assert made.report.rejected_by_reason == {rule: len(rows) for rule, rows in SUSPECTS.items()}
    assert len(made.trips) == len(INNOCENT) and made.report.suspicious == {}
    if as_parquet:
        assert json.loads(made.rejected[-1]["text"])["VendorID"] == 2
        assert {row["line"] for row in made.rejected} == {None}
    else:
        assert [row["line"] for row in made.rejected] == list(range(12, 12 + len(expected)))
        assert {row["text"] for row in made.rejected[-2:]} == {TRIP}


def test_of_exact_duplicates_the_first_stays():
    made = clean(green(TRIP, "total_amount=1", TRIP, "total_amount=9.30"), reject=("exact_duplicate",))
    assert (made.column("total_amount"), made.faults) == (
        [Decimal("9.30"), 1],
        [("exact_duplicate", None, line) for line in (4, 5)],
    )


def test_a_file_without_rows_is_refused_unless_forced():
    for data in (green(), parquet(pq.read_table(io.BytesIO(typed(green(TRIP)))).slice(0, 0))):
        with pytest.raises(NotData, match="no rows"):
            clean(data, force=False)
        made = clean(data)
        assert (made.trips, made.rejected, made.report.rows_read) == ([], [], 0)


def test_a_file_that_is_mostly_rejected_is_refused_unless_forced():
    half = ["trip_distance=x", TRIP]
    assert len(clean(green(*half), force=False).rejected) == 1
    with pytest.raises(TooManyRejected, match=r"2 of 3 rows of green 2020-04 .*2 invalid_value trip_distance") as error:
        clean(green(*half, "trip_distance=y"), force=False)
    assert f"The first of them: {TRIP.replace('1.68', 'x')} Nothing" in str(error.value)
    assert len(clean(green(*half, "trip_distance=y")).rejected) == 2


@BOTH
def test_rows_that_were_counted_otherwise_when_fetched_are_not_published(careful):
    with pytest.raises(IntegrityError, match=r"3 rows .* 2 clean"):
        clean(green(TRIP, TRIP), rows=3, careful=careful)


def test_a_file_of_another_dataset_is_refused():
    with pytest.raises(ContractError, match=r"green.*lpep_pickup_datetime.*tpep_pickup_datetime"):
        clean(HEADS["yellow 2019-01"].encode())


@pytest.mark.parametrize("as_parquet", [False, True], ids=["csv", "parquet"])
def test_the_footer_names_what_the_file_was_made_from(as_parquet):
    data = green(TRIP)
    made = clean(typed(data) if as_parquet else data, reject=("zero_distance",))
    footer = {key.decode(): value.decode() for key, value in made.footer.items() if key != b"ARROW:schema"}
    assert footer == {
        "file_version": made.report.file_version,
        "raw_sha256": made.report.raw_sha256,
        "contract_version": contract_of(Dataset.GREEN).version,
        "dataset": "green",
        "month": "2020-04",
        "format_version": "1",
    }
    assert list(made.trips[0]) == [column.name for column in contract_of(Dataset.GREEN).table_columns]
    assert made.trips[0]["file_version"] == made.report.file_version


def test_the_same_file_gives_the_same_bytes(tmp_path):
    rows = [f"total_amount={n};trip_distance={'x' if n % 4_500 == 0 else n}" for n in range(20_000)]
    rows[7] = "store_and_fwd_flag=y"
    data = green(*rows)
    first, second, single = clean(data), clean(data), clean(data, threads=1)
    assert first.content == second.content == single.content
    assert not first.careful and len(first.rejected) == 5
    table = typed(green(*rows[1:4_000], "trip_distance="))
    assert clean(table, reject=("zero_distance",)).content == clean(table, reject=("zero_distance",)).content


def test_blank_flags_and_an_odd_value_among_the_first_lines_leave_the_fast_scan_on():
    # Of high-volume months since 2021-07, three of four lines have a space for access_a_ride_flag.
    rows = ["store_and_fwd_flag= ", "store_and_fwd_flag=Y", "lpep_dropoff_datetime=soon", *[TRIP] * 300]
    fast, careful = clean(green(*rows)), clean(green(*rows), careful=True)
    assert not fast.careful
    assert fast.faults == careful.faults == [("invalid_value", "dropoff_datetime", 4)]
    assert fast.trips == careful.trips
    assert fast.column("store_and_fwd_flag")[:3] == [None, "Y", "N"]
    many_odd = ["lpep_dropoff_datetime=soon"] * 3
    assert clean(green(*many_odd, *rows)).faults == clean(green(*many_odd, *rows), careful=True).faults


@pytest.mark.fault(105)
def test_a_month_of_refused_lines_is_read_with_care_in_bounded_memory(monkeypatch):
    """DuckDB keeps 2 kB for each refused value, beside its memory limit: 44 s and 2.1 GB for a million of them."""
    monkeypatch.setattr("taxi_platform.trips.typed_scan.MAX_REFUSALS", 50)
    made = clean(green(*[TRIP] * 300, *["trip_distance=x;total_amount=x"] * 100))
    assert made.careful
    assert made.report.rejected_by_reason == {"invalid_value trip_distance": 100}


def test_a_folder_that_is_used_again_or_looks_like_a_partition_changes_nothing(tmp_path):
    folder = tmp_path / "month=2021-01" / "a [1] 'b' *"
    folder.mkdir(parents=True)
    for data in (green(TRIP, "trip_distance=x"), green(TRIP), typed(green(TRIP))):
        made = clean(data, folder=folder)
        assert len(made.trips) == 1 and made.report.unknown_columns == () and made.extra == [None]
        assert made.content == clean(data).content


def typed(data: bytes, **changes: pa.DataType) -> bytes:
    """A small green CSV as the TLC's Parquet, columns changed to other types."""
    from pyarrow import csv as arrow_csv

    options = arrow_csv.ConvertOptions(strings_can_be_null=True, null_values=[""])
    table = arrow_csv.read_csv(io.BytesIO(data), convert_options=options)
    for i, field in enumerate(table.schema):
        kind = pa.timestamp("us") if pa.types.is_timestamp(field.type) else field.type
        table = table.set_column(i, field.name, table[field.name].cast(changes.get(field.name, kind), safe=False))
    return parquet(table, version="2.6")


@pytest.mark.fault(21)
@pytest.mark.parametrize(
    ("name", "type_"),
    [
        ("lpep_pickup_datetime", pa.timestamp("ns")),
        ("lpep_pickup_datetime", pa.timestamp("ms")),
        ("lpep_pickup_datetime", pa.timestamp("s")),
        ("lpep_pickup_datetime", pa.string()),
        ("VendorID", pa.int32()),
        ("VendorID", pa.float64()),
        ("VendorID", pa.uint64()),
        ("VendorID", pa.string()),
        ("passenger_count", pa.float32()),
        ("passenger_count", pa.decimal128(30, 3)),
        ("trip_distance", pa.decimal128(10, 3)),
        ("trip_distance", pa.string()),
        ("total_amount", pa.float32()),
        ("total_amount", pa.string()),
        ("total_amount", pa.decimal128(10, 2)),
        ("store_and_fwd_flag", pa.large_string()),
        ("store_and_fwd_flag", pa.dictionary(pa.int32(), pa.string())),
        ("store_and_fwd_flag", pa.binary()),
    ],
    ids=str,
)
def test_parquet_types_may_drift(name, type_):
    made = clean(typed(green(TRIP), **{name: type_}))
    assert canonical(made.trips, "green") == plainly(green(TRIP).decode(), "green")
    assert (made.rejected, made.extra) == ([], [None])


def test_parquet_columns_of_null_type_are_null_and_the_row_index_of_pandas_is_ignored():
    table = pq.read_table(io.BytesIO(typed(green(TRIP))))
    for name in ("ehail_fee", "trip_type", "request_source", "congestion_surcharge", "__index_level_0__"):
        table = table.append_column(name, pa.nulls(1) if "index" not in name else pa.array([5]))
    table = table.set_column(3, "store_and_fwd_flag", pa.nulls(1)).set_column(0, "VendorID", pa.nulls(1))
    made = clean(table)
    assert made.extra == [None] and made.report.unknown_columns == () and not made.rejected
    assert {made.trips[0][name] for name in ("ehail_fee", "trip_type", "store_and_fwd_flag", "vendor_id")} == {None}


@pytest.mark.fault(21)
def test_parquet_values_that_do_not_fit_are_rejected_with_their_fields_as_json():
    time, nan = datetime(2020, 4, 7), float("nan")
    rows = {
        "lpep_pickup_datetime": [time, time, time, time, time, None, time],
        "passenger_count": [1.0, 1.5, nan, 1e300, 2.0, 1.0, -3.0],
        "trip_distance": [0.1, 1.0, 1.0, 1.0, nan, 1.0, 1e308],
        "total_amount": [8.9, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
        "new": ["é", None, None, None, None, None, None],
    }
    made = clean(pa.table({name: pa.array(values, from_pandas=False) for name, values in rows.items()}))
    assert [(row["reason"], row["column_name"], row["line"]) for row in made.rejected] == [
        *[("invalid_value", "passenger_count", None)] * 3,
        ("invalid_value", "trip_distance", None),
        ("no_pickup_time", "pickup_datetime", None),
        ("invalid_value", "trip_distance", None),
    ]
    assert json.loads(made.rejected[0]["text"]) == {
        "lpep_pickup_datetime": "2020-04-07 00:00:00",
        "passenger_count": 1.5,
        "trip_distance": 1.0,
        "total_amount": 1.0,
        "new": None,
    }
    assert (made.column("total_amount"), made.extra) == ([Decimal("8.90")], [{"new": "é"}])


@pytest.mark.parametrize(
    "values",
    [
        pa.array([datetime(2020, 4, 7)], pa.timestamp("us", "UTC")),
        pa.array(["2020-04-07 00:00:00+02:00"]),
        pa.array([2**63 - 1], pa.timestamp("us")),
        pa.array([2**63 - 1], pa.timestamp("ns")),
        pa.array([253402300800], pa.timestamp("s")),
        pa.array([-62135596801], pa.timestamp("s")),
        pa.array([1586217842]),
        pa.array([{"time": 1}]),
        pa.array([True]),
    ],
    ids=lambda values: str(values.type),
)
def test_parquet_times_with_a_zone_beyond_the_calendar_or_of_no_time_type_are_rejected(values):
    made = clean(pa.table({"lpep_pickup_datetime": values}))
    assert made.faults == [("invalid_value", "pickup_datetime", None)]


def test_the_parquet_of_2009_and_2010_holds_its_times_as_text():
    rows = list(csv.DictReader(io.StringIO(HEADS["yellow 2009-01"])))
    numbers = {"Passenger_Count": int, "Trip_Distance": float, "Fare_Amt": float, "Total_Amt": float}
    table = pa.table({name: [numbers.get(name, str)(row[name]) for row in rows] for name in rows[0]})
    flags = table.column_names.index("store_and_forward")
    table = table.set_column(flags, "store_and_forward", pa.array([0.0, 1.0, None, 0.0])).append_column(
        "__index_level_0__", pa.array(range(4))
    )
    made = clean(table, "yellow 2009-01")
    expected = clean(HEADS["yellow 2009-01"].encode(), "yellow 2009-01")
    assert made.column("store_and_fwd_flag") == ["N", "Y", None, "N"]
    for name in ("pickup_datetime", "dropoff_datetime", "vendor_id", "payment_type", "total_amount", "pickup_latitude"):
        assert made.column(name) == expected.column(name)


def test_parquet_columns_that_differ_in_case_only_share_their_place():
    table = pa.table(
        {
            "tpep_pickup_datetime": [datetime(2023, 2, 1)] * 3,
            "Airport_fee": [1.25, None, 1.25],
            "airport_fee": [1.25, 1.75, 0.0],
        }
    )
    made = clean(table, "yellow 2023-02")
    assert made.column("airport_fee") == [Decimal("1.25"), Decimal("1.75"), Decimal("1.25")]
    assert made.extra == [None, None, {"airport_fee": "0.0"}]


def test_rejected_rows_have_the_promised_columns_and_types(tmp_path):
    made = clean(green(TRIP), folder=tmp_path)
    schema = pq.read_schema(tmp_path / "work" / "rejected.parquet")
    assert schema.names == [column.name for column in REJECTED_COLUMNS] and made.rejected == []
    assert [str(kind) for kind in schema.types] == ["date32[day]", "string", "string", "string", "int64", "string"]
    clean(green("trip_distance=x"), folder=tmp_path)
    assert pq.read_schema(tmp_path / "work" / "rejected.parquet").types == schema.types


@pytest.mark.fault(22, 23)
def test_neither_the_machines_time_zone_nor_its_clock_has_an_effect(tmp_path):
    """Faults 22 and 23. 01:30 comes twice and 02:30 not at all when clocks change; both are kept as published."""
    times = ["2024-03-10 02:30:00", "2024-11-03 01:30:00"]
    table = pa.table(
        {
            "lpep_pickup_datetime": [datetime.fromisoformat(time) for time in times],
            "zoned": pa.array([datetime(2024, 3, 10, 2, 30)] * 2, pa.timestamp("us", "UTC")),
            "trip_distance": ["1", "x"],
        }
    )
    (tmp_path / "raw").write_bytes(parquet(table))
    script = (
        "import sys, pathlib; from taxi_platform_tests.support.cleaning_cases import clean, green; "
        "made = [clean(pathlib.Path(sys.argv[1]), 'green 2024-03'), "
        "clean(green('lpep_pickup_datetime=2024-03-10 02:30:00', 'trip_distance=x'), 'green 2024-03')]; "
        "print([(m.trips, m.rejected, m.report) for m in made])"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "raw")],
            env={**os.environ, "TZ": zone},
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[2],
        ).stdout
        for zone in ("America/New_York", "Asia/Tokyo")
    ]
    assert outputs[0] == outputs[1]
    assert "datetime.datetime(2024, 3, 10, 2, 30)" in outputs[0] and "2024-03-10 02:30:00+00" in outputs[0]
