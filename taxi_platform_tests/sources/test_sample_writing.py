"""The synthetic months: their bytes against the TLC's own files, their content against measured shares."""

import csv
import gzip
import hashlib
import io
import os
import subprocess
import sys

import pandas as pd
import pytest

from taxi_platform.sources.sample.source import SAMPLE_VERSION
from taxi_platform.sources.sample.values import table
from taxi_platform.sources.sample.writing import BLOCK_ROWS, write_sample
from taxi_platform.trips.months import Dataset, DatasetMonth, Month
from taxi_platform_tests.support.system import shared_file

LAST_MONTH, FAR_MONTH = Month(2027, 12), Month(2030, 2)  # nothing is known to change after 2026
MEASURED = [  # dataset, month, column or measure, least and greatest share
    ("yellow", "2021-01", "null block", 0.065, 0.080),
    ("yellow", "2021-01", "zero passengers", 0.015, 0.028),
    ("yellow", "2021-01", "zero distance", 0.014, 0.026),
    ("yellow", "2021-01", "far", 0.00002, 0.001),
    ("yellow", "2021-01", "negative", 0.003, 0.006),
    ("yellow", "2021-01", "card", 0.60, 0.70),
    ("yellow", "2021-01", "23 hours", 0.001, 0.003),
    ("yellow", "2021-01", "unknown zone", 0.007, 0.013),
    ("green", "2020-04", "null block", 0.295, 0.330),
    ("green", "2020-04", "zero distance", 0.038, 0.058),
    ("green", "2020-04", "far", 0.0001, 0.001),
    ("green", "2020-04", "negative", 0.0015, 0.0045),
    ("green", "2020-04", "card", 0.32, 0.39),
    ("green", "2020-04", "23 hours", 0.001, 0.003),
    ("green", "2020-04", "unknown zone", 0.001, 0.005),
    ("yellow", "2026-03", "null block", 0.245, 0.275),
    ("yellow", "2009-01", "null block", 0.0, 0.0),
]


def sample(tmp_path, dataset: str, month: str, rows: int) -> bytes:
    path = tmp_path / "sample.csv.gz"
    write_sample(DatasetMonth.parse(dataset, month), rows, path)
    return gzip.decompress(path.read_bytes())


def body(content: bytes, dataset: str, month: str) -> list[bytes]:
    """The data lines, found by the layout's own header and line end."""
    layout = table("layouts.toml", DatasetMonth.parse(dataset, month))
    start = (layout["header"] + layout["header_end"]).encode()
    assert content.startswith(start)
    lines = content[len(start) :].split(layout["row_end"].encode())
    assert lines.pop() == b""
    return lines


def trips(content: bytes) -> pd.DataFrame:
    """The trips of a taxi file under lower-case names; an unreadable line has no pick-up or no distance."""
    frame = pd.read_csv(io.BytesIO(content), dtype=str, skipinitialspace=True)
    frame.columns = [name.strip().lower() for name in frame.columns]
    frame["pickup"] = pd.to_datetime(frame.iloc[:, 1], errors="coerce")
    frame["dropoff"] = pd.to_datetime(frame.iloc[:, 2], errors="coerce")
    for name in ("trip_distance", "passenger_count", "total_amount", "total_amt", "pulocationid"):
        if name in frame:
            frame[name] = pd.to_numeric(frame[name], errors="coerce")
    return frame[frame["pickup"].notna() & frame["trip_distance"].notna()]


@pytest.fixture(scope="module")
def measures(tmp_path_factory) -> dict[tuple[str, str], dict[str, float]]:
    found = {}
    for dataset, month in {row[:2] for row in MEASURED}:
        frame = trips(sample(tmp_path_factory.mktemp(dataset), dataset, month, 20_000))
        total = frame["total_amount" if "total_amount" in frame else "total_amt"]
        found[dataset, month] = {
            "null block": frame["passenger_count"].isna(),
            "zero passengers": frame["passenger_count"] == 0,
            "zero distance": frame["trip_distance"] == 0,
            "far": frame["trip_distance"] > 100,
            "negative": total < 0,
            "card": frame["payment_type"] == "1",
            "23 hours": (frame["dropoff"] - frame["pickup"]).between(pd.Timedelta(hours=23), pd.Timedelta(hours=24)),
            "unknown zone": frame.get("pulocationid", pd.Series([0])).isin([264, 265]),
        }
    return {key: {name: float(mask.mean()) for name, mask in masks.items()} for key, masks in found.items()}


def test_the_same_month_has_the_same_bytes_in_every_process(tmp_path):
    write_sample(DatasetMonth.parse("green", "2020-04"), 500, tmp_path / "here.gz")
    code = (
        "import sys; from pathlib import Path; from taxi_platform.trips.months import DatasetMonth;"
        "from taxi_platform.sources.sample.writing import write_sample;"
        "write_sample(DatasetMonth.parse('green', '2020-04'), 500, Path(sys.argv[1]))"
    )
    there = tmp_path / "another name.gz"
    subprocess.run([sys.executable, "-c", code, str(there)], check=True, env={**os.environ, "PYTHONHASHSEED": "7"})
    assert (tmp_path / "here.gz").read_bytes() == there.read_bytes()


def test_the_gzip_header_holds_neither_time_nor_name(tmp_path):
    write_sample(DatasetMonth.parse("green", "2020-04"), 5, tmp_path / "x.gz")
    header = (tmp_path / "x.gz").read_bytes()[:10]
    assert (header[3], header[4:8]) == (0, bytes(4))


def test_other_bytes_need_another_sample_version(tmp_path):
    """When this fails, raise SAMPLE_VERSION and write the new digest here."""
    digest = hashlib.sha256()
    for dataset, month in (("yellow", "2009-01"), ("green", "2015-02"), ("fhv", "2018-01"), ("fhvhv", "2025-01")):
        digest.update(sample(tmp_path, dataset, month, 300))
    assert (SAMPLE_VERSION, digest.hexdigest()[:16]) == ("1", "96b4c930824547a1")


def test_neighbouring_months_and_datasets_differ(tmp_path):
    contents = [
        sample(tmp_path, *key, 50) for key in (("yellow", "2020-01"), ("yellow", "2020-02"), ("green", "2020-01"))
    ]
    assert len({content.split(b"\n", 1)[1] for content in contents}) == 3


@pytest.mark.parametrize("rows", [0, 1, 7, 1_000, BLOCK_ROWS + 1])
def test_a_file_has_exactly_the_lines_asked_for(tmp_path, rows):
    assert len(body(sample(tmp_path, "green", "2016-08", rows), "green", "2016-08")) == rows


def test_header_blank_lines_and_line_ends_equal_those_of_the_real_files(tmp_path):
    """Compared with the first 1,024 bytes of each."""
    heads = sorted(shared_file("heads").glob("*.csv"))
    assert len(heads) == 225
    for head in heads:
        dataset, month = head.stem.split("_tripdata_")
        real, ours = (shape(content) for content in (head.read_bytes(), sample(tmp_path, dataset, month, 12)))
        assert ours == real, head.name


def shape(content: bytes) -> tuple[bytes, set[tuple[int, bool, bool]]]:
    """Everything before the first row; of the complete rows how many fields, whether CR ends them, whether quoted."""
    first = next(at for at in range(content.index(b"\n") + 1, len(content)) if content[at : at + 1] not in b"\r\n")
    rows = [row for row in content[first:].split(b"\n")[:-1] if b"unknown" not in row]  # one of our unreadable lines
    widths = {(row.count(b","), row.endswith(b"\r"), row.startswith(b'"')) for row in rows}
    return content[:first], {width for width in widths if width[0] == max(widths)[0]}


@pytest.mark.parametrize("dataset", list(Dataset))
def test_every_month_can_be_written_and_has_a_field_for_every_name(tmp_path, dataset):
    for month in [*dataset.first_month.until(LAST_MONTH), FAR_MONTH]:
        content = sample(tmp_path, dataset, str(month), 6)
        header, *rows = [row for row in csv.reader(io.StringIO(content.decode(), newline="")) if row]
        widths = [len(row) for row in rows]
        assert len(rows) == 6
        assert max(widths) - len(header) in (0, 2)
        assert widths.count(max(widths)) >= 5


@pytest.mark.parametrize("dataset", list(Dataset))
def test_about_one_line_in_ten_thousand_is_unreadable_and_at_least_one_is(tmp_path, dataset):
    for rows, expected in ((10, 1), (30_000, 3)):
        lines = body(sample(tmp_path, dataset, "2020-03", rows), dataset, "2020-03")
        columns = table("layouts.toml", DatasetMonth.parse(dataset, "2020-03"))["columns"].split()
        pickup = columns.index("pickup_datetime")
        broken = [
            line
            for line in lines
            if line.count(b",") != len(columns) - 1 or b"unknown" in line or len(line.split(b",")[pickup]) != 19
        ]
        assert len(broken) == expected
        assert not any(mark in line for line in broken for mark in (b'"', b"\n", b"\r"))
        if expected == 3:
            assert sorted(b"row affected" in line for line in broken) == [False, False, True]
            assert sorted(b"unknown" in line for line in broken) == [False, False, True]


@pytest.mark.parametrize(("dataset", "month", "measure", "least", "greatest"), MEASURED)
def test_the_shares_are_those_of_the_real_months(measures, dataset, month, measure, least, greatest):
    assert least <= measures[dataset, month][measure] <= greatest


@pytest.mark.parametrize(("dataset", "month"), [("yellow", "2021-01"), ("green", "2020-04")])
def test_the_null_block_is_null_together(tmp_path, dataset, month):
    frame = trips(sample(tmp_path, dataset, month, 5_000))
    block = frame["passenger_count"].isna()
    for name in ("vendorid", "ratecodeid", "store_and_fwd_flag", "payment_type", "congestion_surcharge"):
        assert (frame[name].isna() == block).all(), name


def test_a_null_block_row_of_today_keeps_its_vendor_and_says_flex_fare(tmp_path):
    frame = trips(sample(tmp_path, "yellow", "2026-07", 3_000))
    block = frame["passenger_count"].isna()
    assert frame["vendorid"].notna().all()
    assert set(frame.loc[block, "payment_type"]) == {"0"}
    assert (frame["request_source"].notna() == block).all()


def test_a_reversal_takes_the_charge_before_it_back(tmp_path):
    frame = trips(sample(tmp_path, "green", "2020-04", 20_000)).reset_index(drop=True)
    negative = frame.index[frame["total_amount"] < 0]
    assert len(negative) > 20
    before = frame.loc[negative - 1].reset_index(drop=True)
    after = frame.loc[negative].reset_index(drop=True)
    twins = (before["total_amount"] == -after["total_amount"]) & (before["pickup"] == after["pickup"])
    assert twins.mean() > 0.9
    assert set(after["payment_type"]) <= {"2", "3", "4"}


def test_few_trips_stray_and_none_but_strays_leave_the_month(tmp_path):
    frame = trips(sample(tmp_path, "green", "2020-02", 40_000))
    outside = ~frame["pickup"].between("2020-02-01", "2020-03-01", inclusive="left")
    assert 0 < outside.sum() < 40
    assert (frame.loc[outside, "pickup"] < "2020-02-01").all()
    assert frame["pickup"].max() > pd.Timestamp("2020-02-29 22:00")


def test_numbers_are_printed_as_the_years_printed_them(tmp_path):
    old, middle, new = (
        sample(tmp_path, "yellow", month, 2_000).decode().splitlines() for month in ("2011-05", "2018-05", "2022-05")
    )
    assert any("CRD,9.3000000000000007," in line or ",8.9000000000000004," in line for line in old)
    assert any(",.97," in line for line in middle)
    assert not any(",0.97," in line for line in middle)
    assert any(line.split(",")[3] == "1.0" and line.split(",")[4] == "0.97" for line in new if line.count(",") == 18)
