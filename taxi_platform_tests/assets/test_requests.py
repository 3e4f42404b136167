"""How many requests a month in a bucket takes: told in docs/performance.md, and not to grow unnoticed."""

from collections import Counter

import pytest

from taxi_platform.definitions import build_definitions
from taxi_platform.lake import open_lake
from taxi_platform.runs.ingest import IngestOptions
from taxi_platform.runs.many_months import ingest_months
from taxi_platform.runs.result import IngestStatus
from taxi_platform.runs.status import Stage, status
from taxi_platform.settings import load_settings
from taxi_platform.trips.months import DatasetMonth, Month
from taxi_platform_tests.support.emulators.fault_proxy import fault_proxy
from taxi_platform_tests.support.emulators.fixtures import bucket, gcs_url, storage_host  # noqa: F401


@pytest.fixture
def proxy(gcs_url, storage_host, monkeypatch):  # noqa: F811
    with fault_proxy(storage_host) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        monkeypatch.setenv("TAXI_LAKE_URL", gcs_url)
        monkeypatch.setenv("TAXI_SOURCE_URL", "sample://?rows=200")
        monkeypatch.setenv("TAXI_DATASETS", "green")
        yield proxy


def requests_of(proxy):
    """The requests since the last call, by kind. Of `bucket` there are none, though Google's client would ask."""
    paths = [(asked.method, asked.path) for asked, _ in proxy.log]
    proxy.log.clear()
    kinds = {"upload": "/upload/", "bytes": "alt=media", "metadata": "/o/", "listing": "prefix="}
    found = [next((kind for kind, part in kinds.items() if part in path), "bucket") for _, path in paths]
    return Counter(found)


def ingested(settings):
    month = DatasetMonth.parse("green", "2020-04")
    [result] = ingest_months(settings, lambda: build_definitions(settings), [month], IngestOptions())
    return result.status


def test_a_month_takes_half_of_the_requests_that_it_took(proxy, gcs_url):  # noqa: F811
    settings = load_settings()
    assert not [change for change in open_lake(gcs_url).plan() if change.needed]
    proxy.log.clear()
    assert ingested(settings) == IngestStatus.LOADED
    assert requests_of(proxy) == {"upload": 11, "bytes": 23, "metadata": 5, "listing": 5}
    assert ingested(settings) == IngestStatus.UNCHANGED
    assert requests_of(proxy) == {"bytes": 18, "metadata": 8, "listing": 4}
    [month] = [month for month in status(settings, Month.parse("2020-04"), {}).months if month.stage == Stage.LOADED]
    assert month.month == "2020-04"
    assert requests_of(proxy) == {"bytes": 4, "listing": 7}
