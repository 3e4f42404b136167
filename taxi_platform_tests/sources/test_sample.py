"""SampleSource: synthetic months as if published."""

import hashlib
from datetime import date

import pytest

from taxi_platform.sources.sample.source import SampleSource
from taxi_platform.sources.sample.writing import SAMPLE_VERSION
from taxi_platform.trips.errors import NotPublished
from taxi_platform.trips.files import verify
from taxi_platform.trips.months import DatasetMonth

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
