"""What every test starts from: no setting of the machine reaches it, and nothing is written outside its folder."""

import os

import pytest

from taxi_platform_tests.support.system import chromium


@pytest.fixture(autouse=True)
def no_settings(monkeypatch, tmp_path):
    """No TAXI_ or Google variable of the machine, a home of its own, and months of a few rows are loaded."""
    for name in list(os.environ):
        if name.startswith(("TAXI_", "DAGSTER_", "GOOGLE_", "STORAGE_EMULATOR", "BIGQUERY_EMULATOR")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TAXI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TAXI_SET_ASIDE", "no")


@pytest.fixture(scope="session")
def browser():
    """One for all rooms: Playwright's event loop, which lives as long as its browser, allows no second one."""
    with chromium() as browser:
        yield browser


def pytest_collection_modifyitems(items):
    """Mark what needs the BigQuery emulator, whose SQL takes half a second a query: `make test-bigquery` runs it."""
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        if "bigquery" in parameters.values() or {"bigquery_url", "bigquery_host"} & set(item.fixturenames):
            item.add_marker(pytest.mark.bigquery)
