"""The real UI as `taxi dev` serves it, with months in it, and a real browser to drive it."""

from datetime import date

import pytest

from taxi_platform.trips.months import newest_month
from taxi_platform_tests.support.pictures import FOLDER, SCALE
from taxi_platform_tests.support.system import DEADLINE, wait_for
from taxi_platform_tests.support.taxi_dev import taxi_dev
from taxi_platform_tests.support.ui_actions import materialize_group

NEWEST = newest_month(date.today())
HISTORY = [str(month) for month in NEWEST.plus(-31 if FOLDER else -9).until(NEWEST.plus(-2))]
"""Months of yellow that are backfilled, more for pictures. The newest is loaded first, so that all checks pass."""


@pytest.fixture(scope="session")
def platform(tmp_path_factory):
    """`taxi dev` on a home of its own, with synthetic months in proportion to the real ones."""
    settings = {"TAXI_SOURCE_URL": "sample://", "TAXI_SINCE": str(NEWEST.plus(-2)), "TAXI_SCHEDULE": "* * * * *"}
    with taxi_dev(tmp_path_factory.mktemp("ui") / "home", **settings) as platform:
        yield platform


@pytest.fixture(scope="session")
def history(platform, browser):
    """The backfill of `HISTORY`, launched in the UI and completed."""
    platform.taxi("ingest", "yellow", str(NEWEST))
    page = new_page(browser)
    earlier = platform.newest_backfill()
    materialize_group(page, platform.url, "yellow", f"[{HISTORY[0]}...{HISTORY[-1]}]")
    wait_for(lambda: platform.newest_backfill() != earlier)
    backfill = platform.newest_backfill()
    wait_for(lambda: platform.backfill_status(backfill) == "COMPLETED_SUCCESS", 6 * DEADLINE)
    page.close()
    return backfill


@pytest.fixture
def page(browser):
    page = new_page(browser)
    yield page
    page.close()


def new_page(browser, scale=SCALE):
    page = browser.new_page(viewport={"width": 1200, "height": 800}, device_scale_factor=scale)
    page.set_default_timeout(DEADLINE * 1000)
    return page
