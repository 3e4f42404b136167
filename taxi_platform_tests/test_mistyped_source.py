"""A mistyped TAXI_SOURCE_URL is told apart from a month that is not published yet."""

import pytest

from taxi_platform.doctor import TRIED_MONTHS, examine
from taxi_platform.settings import load_settings
from taxi_platform.trips.months import Month
from taxi_platform_tests.support.web_server import S3_DENIED, Page, serving
from taxi_platform_tests.test_cli import taxi

NEWEST = Month(2026, 9)


@pytest.fixture
def web():
    with serving() as web:
        yield web


def source_finding(tmp_path, url):
    settings = load_settings({"TAXI_HOME": str(tmp_path / "home"), "TAXI_DATASETS": "green", "TAXI_SOURCE_URL": url})
    return next(finding for finding in examine(settings, NEWEST) if finding.name == "source")


@pytest.mark.fault(67)
@pytest.mark.parametrize("denied", [False, True])
def test_doctor_names_the_addresses_that_it_tried_in_vain(tmp_path, web, denied):
    template = f"{web.url}/{{dataset}}_tripdata_{{month}}.parqet"
    months = [NEWEST.plus(-back) for back in TRIED_MONTHS]
    if denied:
        web.pages = {f"/green_tripdata_{month}.parqet": Page(S3_DENIED, 403) for month in months}
    finding = source_finding(tmp_path, f"{template}?token=t-canary")
    assert not finding.ok
    assert all(f"{web.url}/green_tripdata_{month}.parqet" in finding.message for month in months)
    assert "correct TAXI_SOURCE_URL" in finding.message
    assert "canary" not in finding.message
    assert len(months) == 6
    assert len(web.requests) == (12 if denied else 6)


@pytest.mark.fault(67)
@pytest.mark.parametrize("back", [0, 1, 3, 72])
def test_one_published_month_shows_that_the_address_is_right(tmp_path, web, back):
    web.pages[f"/green_{NEWEST.plus(-back)}"] = Page(b"x")
    finding = source_finding(tmp_path, f"{web.url}/{{dataset}}_{{month}}")
    assert finding.ok
    assert f"/green_{NEWEST.plus(-back)} is published" in finding.message
    assert ("green 2026-09 is not published yet" in finding.message) == (back > 0)


@pytest.mark.fault(67)
def test_status_that_asks_names_the_address_of_a_month_that_should_be_there(tmp_path):
    url = f"file://{tmp_path}/{{dataset}}_tripdata_{{month}}.parqet"
    status, out, _ = taxi("status", "--ask", TAXI_DATASETS="fhvhv", TAXI_SOURCE_URL=url)
    assert status == 0
    assert "months that should be published not found at the source; fhvhv 20" in out
    assert f"at file://{tmp_path}/fhvhv_tripdata_20" in out
