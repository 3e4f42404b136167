"""The bounds of `usual_files.toml`: no real month is beyond them, and another dataset's file is."""

import pytest

from taxi_platform.sources.sample.writing import write_sample
from taxi_platform.trips.csv_reading import header
from taxi_platform.trips.formats import Format
from taxi_platform.trips.judgement import judge, usual_files
from taxi_platform.trips.known import published_counts
from taxi_platform.trips.months import Dataset, DatasetMonth
from taxi_platform_tests.support.eras import eras
from taxi_platform_tests.support.system import shared_file

FORMATS = {"csv": Format.CSV, "parquet": Format.PARQUET}
JANUARY = DatasetMonth.parse("green", "2024-01")


@pytest.mark.fault(58)
def test_the_columns_of_every_era_are_usual():
    for era in eras():
        for month in (str(era.first), era.last if era.last != "today" else "2030-01"):
            dataset_month = DatasetMonth.parse(era.dataset, month)
            assert judge(dataset_month, FORMATS[era.format], era.names) == (), f"{era} {month}"


@pytest.mark.fault(58)
def test_the_header_of_every_real_csv_file_is_usual():
    heads = sorted(shared_file("heads").glob("*.csv"))
    assert len(heads) > 200
    for path in heads:
        dataset, month = path.stem.split("_tripdata_")
        assert judge(DatasetMonth.parse(dataset, month), Format.CSV, header(path)) == (), path.name


@pytest.mark.fault(58)
def test_every_published_count_is_usual_also_as_a_republication_of_every_other_of_its_month():
    counts = published_counts()
    for (dataset, month, kind), rows in counts.items():
        standing = [*rows, *counts.get((dataset, month, "csv"), ()), *counts.get((dataset, month, "parquet"), ())]
        for new in rows:
            for old in standing:
                assert judge(DatasetMonth.parse(dataset, month), FORMATS[kind], rows=new, standing_rows=old) == ()
    # The largest difference between CSV and Parquet; its CSV count is the course's.
    april = DatasetMonth.parse("green", "2019-04")
    assert judge(april, Format.GZIP, rows=514_392, standing_rows=567_852) == ()


@pytest.mark.fault(59)
@pytest.mark.parametrize("month", ["2015-02", "2017-08", "2019-03", "2020-04"])
def test_the_columns_of_another_dataset_are_noticed(month, tmp_path):
    for is_dataset in Dataset:
        for loaded_as in Dataset:
            if is_dataset == loaded_as or month < str(max(is_dataset.first_month, loaded_as.first_month)):
                continue
            path = tmp_path / f"{is_dataset}.csv.gz"
            write_sample(DatasetMonth.parse(is_dataset, month), 5, path)
            reasons = judge(DatasetMonth.parse(loaded_as, month), Format.GZIP, header(path))
            assert reasons, f"{is_dataset} as {loaded_as}"


@pytest.mark.fault(59)
def test_a_yellow_file_of_2010_is_no_fhv_file_and_the_reasons_say_why():
    names = next(era.names for era in eras() if str(era.first) == "2010-01" and era.format == "csv")
    assert judge(DatasetMonth.parse("fhv", "2019-01"), Format.CSV, names) == (
        "It has columns that only files of green and yellow have: trip_distance, fare_amount.",
        "It lacks columns that every file of fhv 2019-01 has: dispatching_base_num, pickup_location_id, "
        "dropoff_location_id, sr_flag.",
    )


@pytest.mark.fault(59)
def test_a_yellow_file_of_2010_is_not_one_of_today():
    names = next(era.names for era in eras() if str(era.first) == "2010-01" and era.format == "parquet")
    assert judge(DatasetMonth.parse("yellow", "2024-01"), Format.PARQUET, names) == (
        "It lacks columns that every file of yellow 2024-01 has: improvement_surcharge, pickup_location_id, "
        "dropoff_location_id, congestion_surcharge.",
    )


@pytest.mark.parametrize(
    ("rows", "standing_rows", "reasons"),
    [
        (56_551, None, ()),
        (43_000, None, ()),
        (42_000, None, ("It has 42,000 rows; 56,551 were published.",)),
        (80_000, None, ("It has 80,000 rows; 56,551 were published.",)),
        (44_000, 56_551, ("It has 44,000 rows; the version that it would replace has 56,551.",)),
        (46_000, 56_551, ()),
        (56_551, 200_000, ()),
        (
            3,
            50_000,
            ("It has 3 rows; 56,551 were published.", "It has 3 rows; the version that it would replace has 50,000."),
        ),
    ],
)
@pytest.mark.fault(58)
def test_rows_are_compared_with_the_published_count_and_with_the_version_that_stands(rows, standing_rows, reasons):
    assert judge(JANUARY, Format.PARQUET, rows=rows, standing_rows=standing_rows) == reasons


@pytest.mark.fault(60)
def test_pickups_mostly_outside_of_the_month_are_noticed():
    assert judge(JANUARY, rows=1000, outside_month=500) == ()
    assert judge(JANUARY, rows=1000, outside_month=501) == (
        "501 of its 1,000 pick-ups (50%) are more than a day outside of 2024-01.",
    )


@pytest.mark.fault(58)
def test_rows_that_cannot_be_stored_count_as_lost():
    assert judge(JANUARY, rows=1000, readable_rows=800, standing_readable_rows=1000) == ()
    assert judge(JANUARY, rows=900, readable_rows=800, standing_readable_rows=2000) == ()
    assert judge(JANUARY, rows=1000, readable_rows=799, standing_readable_rows=1000) == (
        "Only 799 of its 1,000 rows can be stored; the version that it would replace has 1,000.",
    )


def test_every_usual_column_is_in_its_contract_and_every_published_name_in_lower_case():
    bounds = usual_files()
    for entry in bounds.columns:
        judge(DatasetMonth(entry.dataset, entry.dataset.first_month), Format.PARQUET, ["x"])  # looks all of them up
    assert all(name == name.lower() for name in bounds.only)
