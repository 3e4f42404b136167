"""The real UI as `taxi dev` serves it, and a real browser to drive it."""

import pytest

from taxi_platform_tests.support.system import DEADLINE
from taxi_platform_tests.support.taxi_dev import taxi_dev


@pytest.fixture(scope="session")
def platform(tmp_path_factory):
    """`taxi dev` on a home of its own, with small synthetic months."""
    settings = {
        "TAXI_SOURCE_URL": "sample://?rows=3000",
        "TAXI_SINCE": "2026-07",
        "TAXI_SCHEDULE": "* * * * *",
    }
    with taxi_dev(tmp_path_factory.mktemp("ui") / "home", **settings) as platform:
        yield platform


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 1200, "height": 800})
    page.set_default_timeout(DEADLINE * 1000)
    yield page
    page.close()
