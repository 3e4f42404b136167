"""TAXI_SOURCE_URL: which source it names, and what it says when it names none."""

import pytest

from taxi_platform.sources import open_source
from taxi_platform.sources.file import FileSource
from taxi_platform.sources.http import HttpSource
from taxi_platform.sources.sample.source import SampleSource
from taxi_platform.trips.errors import SettingError
from taxi_platform.trips.months import Dataset, DatasetMonth

MONTH = DatasetMonth.parse("fhv", "2019-07")


def test_sample_takes_rows():
    assert open_source("sample://") == SampleSource()
    assert open_source("sample://?rows=20000") == SampleSource(20_000)
    assert open_source("sample://?rows=50000000") == SampleSource(50_000_000)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("tlc://", "https://d37ci6vzurychx.cloudfront.net/trip-data/fhv_tripdata_2019-07.parquet"),
        (
            "course://",
            "https://github.com/DataTalksClub/nyc-tlc-data/releases/download/fhv/fhv_tripdata_2019-07.csv.gz",
        ),
        ("http://me:pw@host:81/{month}/{dataset}.csv?k=1", "http://me:pw@host:81/2019-07/fhv.csv?k=1"),
    ],
)
def test_web_sources_ask_for_the_month(url, address):
    source = open_source(url)
    assert isinstance(source, HttpSource)
    assert source.url(MONTH) == address


def test_file_sources_look_for_the_month():
    source = open_source("file:///my%20trips/{dataset}_tripdata_{month}.csv.gz")
    assert isinstance(source, FileSource)
    assert str(source.path(MONTH)) == "/my trips/fhv_tripdata_2019-07.csv.gz"


def test_the_dataset_may_be_left_out_where_there_is_only_one():
    assert open_source("https://host/{month}.csv", [Dataset.FHV]).url(MONTH) == "https://host/2019-07.csv"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "without ://"),
        ("data/{month}", "without ://"),
        ("ftp://host/{dataset}/{month}", "ftp://"),
        ("https://host/{dataset}.csv", "no {month}"),
        ("https://host/{month}.csv", "TAXI_DATASETS"),
        ("https://host/{dataset}/{year}-{month}.csv", "{year} is not a placeholder"),
        ("https://host/{dataset}/{month.csv", "{ is not a placeholder"),
        ("https:///{dataset}/{month}.csv", "no host"),
        ("https://[bad/{dataset}/{month}.csv", "no host"),
        ("https://host:99999/{dataset}/{month}.csv", "no host"),
        ("https://me:canary/word@host/{dataset}/{month}.csv", "not %-encoded"),
        ("https://me:1/canary@host/{dataset}/{month}.csv", "not %-encoded"),
        ("https://me:{canary}@host/{dataset}/{month}.csv", "something in braces"),
        ("https://host/{dataset}/{month}.csv?token={canary}", "something in braces"),
        ("https://me:{canary}?@host/{dataset}/{month}.csv", "something in braces"),
        ("//me:canary@host/{dataset}/{month}?next=http://host", "without ://"),
        ("file:///a%00/{dataset}/{month}.csv", "three slashes"),
        ("file://folder/{dataset}/{month}.csv", "three slashes"),
        ("tlc://green", "tlc://"),
        ("sample://?rows=0", "1 to 50,000,000"),
        ("sample://?rows=50000001", "1 to 50,000,000"),
        ("sample://?rows=many", "1 to 50,000,000"),
        ("sample://?rows=", "1 to 50,000,000"),
        ("sample://?rows=1&rows=2", "no parameter but rows"),
        ("sample://?seed=1", "no parameter but rows"),
        ("sample://green", "no parameter but rows"),
    ],
)
def test_a_wrong_value_is_named_with_what_the_variable_takes(url, says):
    with pytest.raises(SettingError) as caught:
        open_source(url)
    assert caught.value.problem.startswith("TAXI_SOURCE_URL: ")
    assert says in caught.value.problem
    assert "canary" not in str(caught.value)
    assert "file:///folder/{dataset}_tripdata_{month}.csv.gz" in caught.value.remedy
