"""The checks that warn: each passes for an ordinary report, and says what is wrong with another one."""

from dataclasses import replace

import dagster as dg
import pytest

from taxi_platform.assets.checks import CLEAN_TRIPS_CHECKS, REJECTED_TRIPS_CHECKS
from taxi_platform.definitions import build_definitions
from taxi_platform.ingestion.steps import Cleaned
from taxi_platform.lake import open_lake
from taxi_platform.lake.manifest import RawVersion
from taxi_platform.lake.months import CleanFooter, LakeMonth
from taxi_platform.runs.history import problem_of
from taxi_platform.runs.instance import open_instance
from taxi_platform.settings import load_settings
from taxi_platform.trips.known import published_counts
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.trips.report import Report

CHECKS = {check.name: check for check in (*CLEAN_TRIPS_CHECKS, *REJECTED_TRIPS_CHECKS)}
ROWS = published_counts()["green", "2020-04", "csv"][-1]
REPORT = Report("green", "2020-04", "v", "sha", "c", (), "csv", ROWS, ROWS, 0, suspicious={"negative_total": 1})


@pytest.fixture
def evaluate(tmp_path):
    """Evaluate a check for a report, of a file from this URL."""
    month = LakeMonth(open_lake((tmp_path / "lake").as_uri()), DatasetMonth.parse("green", "2020-04"))

    def evaluated(name: str, report: Report, url: str = "https://host/green.csv") -> dg.AssetCheckResult:
        raw = RawVersion("key", url, "1", None, None, 1, "sha", report.rows_read, "2026-11-22")
        footer = CleanFooter("v", "sha", "c", report.rows_clean, 1, "1")
        asset = dg.AssetSpec(dg.AssetKey(["green", "clean_trips"]))
        return CHECKS[name].result(asset, Cleaned(month, raw, footer, report, unchanged=False))

    return evaluated


@pytest.mark.parametrize("name", CHECKS)
def test_an_ordinary_month_passes(evaluate, name):
    assert evaluate(name, REPORT).passed


@pytest.mark.parametrize(
    ("name", "report", "description"),
    [
        ("few_rows_rejected", replace(REPORT, rows_rejected=ROWS // 50), "rows rejected (1.999%)"),
        ("no_unknown_columns", replace(REPORT, unknown_columns=("colour",)), "Stored in extra_columns: colour."),
        ("usual_shares", replace(REPORT, suspicious={"negative_total": ROWS // 2}), "negative_total 50.00% (up to "),
        ("published_count", replace(REPORT, rows_read=ROWS - 7), "published in CSV: -7 rows"),
    ],
)
def test_a_month_that_looks_wrong_gets_a_warning_that_says_why(evaluate, name, report, description):
    result = evaluate(name, report)
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert description in result.description


def test_a_synthetic_month_is_not_compared_with_the_published_count(evaluate):
    assert evaluate("published_count", replace(REPORT, rows_read=5), "sample://green/2020-04").passed


@pytest.mark.parametrize("checks", [True, False], ids=["execute all", "launchpad"])
def test_a_run_without_a_month_says_so(monkeypatch, checks):
    """Dagster's UI starts one with *Execute all* on an asset's page of checks, and from a job's launchpad."""
    monkeypatch.setenv("TAXI_DATASETS", "green")
    definitions = build_definitions(load_settings())
    job = definitions.resolve_job_def("green_ingest")
    if checks:
        keys = {dg.AssetCheckKey(dg.AssetKey(["green", "trips"]), "table_matches_clean_trips")}
        job = definitions.resolve_implicit_global_asset_job_def().get_subset(asset_check_selection=keys)
    with open_instance(load_settings()) as instance:
        result = job.execute_in_process(instance=instance, raise_on_error=False)
    problems = [problem_of(event) for event in result.all_events]
    assert next(filter(None, problems)).startswith("No month was chosen. Launch it again with a partition.")
