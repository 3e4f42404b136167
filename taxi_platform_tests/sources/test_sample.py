"""SampleSource: synthetic months as if published."""

import hashlib
from datetime import date

import pytest

from taxi_platform.sources.sample.source import SAMPLE_VERSION, SampleSource, proportional_rows
from taxi_platform.trips.errors import NotPublished
from taxi_platform.trips.files import verify
from taxi_platform.trips.months import Dataset, DatasetMonth, Month

MONTH = DatasetMonth.parse("green", "2020-04")


def test_the_newest_month_is_the_one_before_last_month():
    source = SampleSource(100, today=lambda: date(2026, 11, 22))
    assert source.stat(DatasetMonth.parse("yellow", "2026-09"))
    assert source.stat(DatasetMonth.parse("yellow", "2026-10")) is None
    newyear = SampleSource(100, today=lambda: date(2026, 1, 1))
    assert newyear.stat(DatasetMonth.parse("yellow", "2025-11"))
    assert newyear.stat(DatasetMonth.parse("yellow", "2025-12")) is None


def test_a_month_is_the_same_every_time_and_its_rows_are_as_asked(tmp_path):
    source = SampleSource(500)
    first, second = source.fetch(MONTH, tmp_path / "a"), source.fetch(MONTH, tmp_path / "b")
    data = first.path.read_bytes()
    assert first.publication == second.publication == source.stat(MONTH)
    assert first.publication.version == f"{SAMPLE_VERSION}-500"
    assert first.publication.url == "sample://green/2020-04?rows=500"
    assert (first.sha256, first.size) == (hashlib.sha256(data).hexdigest(), len(data)) == (second.sha256, second.size)
    assert first.rows == verify(first.path).rows
    assert first.path == tmp_path / "a" / "green_tripdata_2020-04.csv.gz"
    assert [path.name for path in (tmp_path / "a").iterdir()] == [first.path.name]


def test_a_month_not_yet_published_cannot_be_fetched(tmp_path):
    with pytest.raises(NotPublished, match="before last month"):
        SampleSource(100, today=lambda: date(2020, 5, 31)).fetch(MONTH, tmp_path)


@pytest.mark.parametrize(
    ("dataset", "month", "rows"),
    [
        ("fhv", "2018-12", 59_760),  # 23,904,082 published, the most of all
        ("yellow", "2020-04", 595),  # 238,073
        ("green", "2026-02", 200),  # fewer than 80,000
    ],
)
def test_by_default_a_month_has_a_row_for_every_400_trips_published_and_at_least_200(tmp_path, dataset, month, rows):
    dataset_month = DatasetMonth.parse(dataset, month)
    publication = SampleSource().stat(dataset_month)
    assert publication.version == f"{SAMPLE_VERSION}-{rows}"
    assert publication.url == f"sample://{dataset}/{month}?rows={rows}"
    assert SampleSource().fetch(dataset_month, tmp_path).rows == rows


@pytest.mark.parametrize("dataset", list(Dataset))
def test_every_month_has_a_default_and_an_unknown_one_that_of_the_month_known_before_it(dataset):
    months = list(dataset.first_month.until(Month(2030, 1)))
    rows = [proportional_rows(DatasetMonth(dataset, month)) for month in months]
    assert all(200 <= count <= 60_000 for count in rows)
    assert rows[-1] == rows[-12]
    assert len(set(rows)) > 50


def test_a_home_with_20000_rows_a_month_keeps_its_months_by_asking_for_them():
    old = SampleSource(20_000).stat(MONTH)
    assert old.version == f"{SAMPLE_VERSION}-20000"
    assert SampleSource().stat(MONTH).version != old.version
