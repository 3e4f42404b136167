"""Published counts, zones and the data dictionary."""

import runpy
from pathlib import Path

from taxi_platform.trips.known import compare_count, published_counts, taxi_zones
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.trips.report import Report

GREEN = DatasetMonth.parse("green", "2020-04")


def test_all_published_counts_are_there():
    assert sum(len(counts) for counts in published_counts().values()) == 606
    assert published_counts()["yellow", "2009-01", "parquet"] == (14_092_413,)


def test_csv_and_parquet_of_a_month_are_compared_each_with_its_own_count():
    assert compare_count(GREEN, "gzip", 35_612).agrees
    assert compare_count(GREEN, "parquet", 35_644).agrees
    off = compare_count(GREEN, "parquet", 35_612)
    assert (off.agrees, off.compared) == (False, "Parquet")
    assert str(off) == "35,612 rows read from Parquet, 35,644 published in Parquet: -32 rows."


def test_where_only_the_other_formats_count_is_known_it_is_compared_loosely():
    month = DatasetMonth.parse("green", "2019-04")
    real = compare_count(month, "csv.gz", 514_392)
    assert real.agrees
    assert str(real) == (
        "514,392 rows read from CSV, 567,852 published in Parquet: -53,460 rows, as CSV and Parquet may differ."
    )
    cut = compare_count(month, "csv", 454_281)  # a row below four fifths
    assert (cut.agrees, str(cut)) == (
        False,
        "454,281 rows read from CSV, 567,852 published in Parquet: -113,571 rows.",
    )
    assert compare_count(month, "csv", 454_282).agrees
    assert not compare_count(month, "parquet", 567_851).agrees


def test_a_parquet_file_is_compared_with_a_csv_files_count_where_only_that_is_known():
    compared = compare_count(DatasetMonth.parse("green", "2013-08"), "parquet", 8_000)
    assert (compared.compared, compared.published, compared.agrees) == ("CSV", 7_623, True)
    assert not compare_count(DatasetMonth.parse("green", "2013-08"), "parquet", 9_148).agrees


def test_either_version_of_a_republished_month_agrees():
    month = DatasetMonth.parse("green", "2026-06")
    assert compare_count(month, "parquet", 39_156).agrees
    assert compare_count(month, "parquet", 44_163).agrees
    assert compare_count(month, "parquet", 40_000).published == 44_163


def test_an_unknown_count_agrees_with_anything():
    unknown = compare_count(DatasetMonth.parse("fhv", "2030-01"), "parquet", 7)
    assert unknown.agrees
    assert unknown.compared is None


def test_zones_are_265_and_text_that_reads_na_is_no_null():
    zones = taxi_zones()
    assert [zone[0] for zone in zones] == list(range(1, 266))
    assert zones[0] == (1, "EWR", "Newark Airport", "EWR")
    assert zones[264] == (265, "N/A", "Outside of NYC", "N/A")


def test_the_data_dictionary_is_up_to_date():
    dictionary = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "data_dictionary.py"))["dictionary"]
    path = Path(__file__).parents[2] / "docs" / "columns.md"
    assert path.read_text("utf-8") == dictionary(), "run: python scripts/data_dictionary.py > docs/columns.md"


def test_a_share_beyond_the_usual_is_named_and_small_months_are_left_alone():
    def report_of(rows: int) -> Report:
        return Report("green", "2020-04", "", "", "", (), "csv.gz", rows, rows, 0, suspicious={"negative_total": 300})

    report = report_of(20_000)
    assert report.unusual({"negative_total": 0.006}) == {"negative_total": 0.015}
    assert report.unusual({"negative_total": 0.02}) == {}
    assert report_of(9_999).unusual({"negative_total": 0.006}) == {}
