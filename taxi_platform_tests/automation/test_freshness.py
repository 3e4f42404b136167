"""Whether the newest months are there: what the check says, and that nothing makes it wait or fail."""

from datetime import UTC, datetime

import dagster as dg
import pytest
from dagster._core.test_utils import freeze_time

from taxi_platform.definitions import build_definitions
from taxi_platform.ingestion import steps
from taxi_platform.lake import open_lake
from taxi_platform.settings import load_settings
from taxi_platform.sources.sample.source import SampleSource
from taxi_platform.trips.engine import Engine
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.warehouse import open_warehouse
from taxi_platform_tests.ingestion.test_survey import held

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
"""2026-07 ended more than 90 days ago, and 2026-09 is the newest month that there can be."""


@pytest.fixture
def freshness(monkeypatch, tmp_path):
    """The check of green as the daily job evaluates it."""
    monkeypatch.setenv("TAXI_DATASETS", "green")

    def evaluate():
        with freeze_time(NOW), dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
            job = build_definitions(load_settings()).resolve_job_def("freshness")
            (check,) = job.execute_in_process(instance=instance).get_asset_check_evaluations()
        assert check.severity == dg.AssetCheckSeverity.WARN
        return check

    return evaluate


def bring(month, load=True):
    settings = load_settings()
    lake, dataset_month = open_lake(settings.lake_url), DatasetMonth.parse("green", month)
    steps.fetch(SampleSource(50), lake, dataset_month, settings.home)
    steps.clean(lake, dataset_month, settings.home, Engine(threads=1))
    if load:
        steps.load(lake, open_warehouse(settings.warehouse_url), dataset_month, settings.home)


def test_a_table_without_the_months_that_are_due_is_warned_about(freshness):
    bring("2026-06")
    check = freshness()
    assert not check.passed
    assert check.description == "None of the months from 2026-07 to 2026-09 is loaded; 2026-07 should be."
    assert check.metadata["newest_due"].value == "2026-07"


@pytest.mark.parametrize("month", ["2026-07", "2026-09"])
def test_a_table_with_one_of_them_passes(freshness, month):
    bring(month)
    check = freshness()
    assert (check.passed, check.description) == (True, f"{month} is loaded.")
    assert check.metadata["newest_loaded"].value == month


@pytest.mark.parametrize(("month", "passed"), [("2026-08", True), ("2026-06", False)])
def test_where_a_load_holds_the_table_the_lake_tells(freshness, month, passed):
    bring("2026-05")
    bring(month, load=False)
    with held(load_settings().home / "warehouse.duckdb.lock"):
        check = freshness()
    assert check.passed == passed
    assert "clean in the lake (the warehouse is busy)" in check.description


def test_a_warehouse_that_cannot_be_read_is_a_warning_and_no_failure(freshness):
    settings = load_settings()
    settings.home.mkdir()
    (settings.home / "warehouse.duckdb").write_bytes(b"not a database, but long enough to be looked at" * 100)
    check = freshness()
    assert not check.passed
    assert "The newest months could not be checked." in check.description
