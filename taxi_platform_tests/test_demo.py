"""`taxi demo`: which months it brings, and that they are in the proportions of the published ones."""

import duckdb
import pytest

from taxi_platform.cli_ingest import DEMO_MONTHS, today
from taxi_platform.sources.sample.source import proportional_rows
from taxi_platform.trips.known import published_counts
from taxi_platform.trips.months import Dataset, DatasetMonth, newest_month
from taxi_platform_tests.test_cli import taxi


def test_the_demo_is_a_year_of_yellow_and_three_months_of_the_others():
    assert DEMO_MONTHS == {Dataset.YELLOW: 12, Dataset.GREEN: 3, Dataset.FHV: 3, Dataset.FHVHV: 3}


@pytest.mark.slow
def test_the_demo_brings_the_newest_months_with_a_row_for_every_400_trips(tmp_path):
    status, out, err = taxi("demo", TAXI_DATASETS="green", TAXI_SOURCE_URL="sample://")
    assert status == 0, err
    newest = newest_month(today())
    expected = [
        (str(month), proportional_rows(DatasetMonth(Dataset.GREEN, month))) for month in newest.plus(-2).until(newest)
    ]
    with duckdb.connect(str(tmp_path / "home/trips.duckdb"), read_only=True) as con:
        clean = "SELECT file_month, count(*) AS clean FROM green_trips GROUP BY 1"
        rejected = "SELECT file_month, count(*) AS rejected FROM green_rejected_trips GROUP BY 1"
        query = f"SELECT strftime(file_month, '%Y-%m'), clean + coalesce(rejected, 0) FROM ({clean}) "
        loaded = con.execute(f"{query} LEFT JOIN ({rejected}) USING (file_month) ORDER BY 1").fetchall()
    assert loaded == expected
    assert all(f"green   {month} loaded" in out for month, _ in expected)
    overview = tmp_path / "home/overview.html"
    assert f"Overview   {overview}" in out
    assert all(f"green {month} (synthetic)" in overview.read_text("utf-8") for month, _ in expected)
    with duckdb.connect(str(tmp_path / "home/warehouse.duckdb"), read_only=True) as con:
        trips, paid = con.execute(
            "SELECT count(*) AS trips, sum(total_amount) FROM green_trips "
            "JOIN taxi_zones ON location_id = pickup_location_id GROUP BY borough ORDER BY trips DESC LIMIT 1"
        ).fetchone()
    assert f"{trips:,} trips, ${paid:,.0f} (from the view daily_zones)" in out


def test_months_of_the_sample_have_the_proportions_of_the_published_counts():
    published = published_counts()

    def trips_per_row(dataset, month):
        return published[dataset, month, "parquet"][-1] / proportional_rows(DatasetMonth.parse(dataset, month))

    for dataset, month in (("yellow", "2020-03"), ("yellow", "2020-04"), ("fhv", "2019-01"), ("fhvhv", "2024-06")):
        assert trips_per_row(dataset, month) == pytest.approx(400, rel=0.002)
