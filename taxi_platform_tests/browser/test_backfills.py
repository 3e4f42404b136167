"""Backfills launched in the UI on our own files: one asset alone, unreadable months, cancelling and repeating."""

import json
import os
import re
import subprocess

import pytest
from playwright.sync_api import expect

from taxi_platform.assets.names import FRESHNESS_CHECK
from taxi_platform.trips.months import Month
from taxi_platform_tests.support.system import DEADLINE, TAXI, wait_for
from taxi_platform_tests.support.taxi_dev import taxi_dev
from taxi_platform_tests.support.ui_actions import WHOLE_GRAPH, materialize_asset, materialize_group

pytestmark = pytest.mark.browser
ENDED = {"COMPLETED_SUCCESS", "COMPLETED_FAILED", "CANCELED", "FAILED"}
PARTITION = "dagster/partition"
FRESHNESS = f"green/trips:{FRESHNESS_CHECK}"
TABLE_CHECKS = {"green/trips:table_matches_clean_trips", FRESHNESS}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A folder of published months; `publish` adds one trip of each."""
    return tmp_path_factory.mktemp("source")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("backfills") / "home"


@pytest.fixture(scope="module")
def platform(source, home):
    """`taxi dev` on that source, green alone."""
    with taxi_dev(home, **settings(source)) as platform:
        yield platform


def settings(source):
    url = f"file://{source}/{{dataset}}_{{month}}.csv"
    return {"TAXI_SOURCE_URL": url, "TAXI_DATASETS": "green", "TAXI_SET_ASIDE": "no"}


def publish(source, *months):
    for month in months:
        (source / f"green_{month}.csv").write_text(f"lpep_pickup_datetime\n{month}-01 00:10:00\n")


def launched(platform, launch):
    """The id of the backfill that `launch` starts."""
    earlier = platform.newest_backfill()
    launch()
    wait_for(lambda: platform.newest_backfill() != earlier)
    return platform.newest_backfill()


def ended(platform, backfill):
    """Its status once it has ended."""
    return wait_for(lambda: ENDED.intersection([platform.backfill_status(backfill)]), 2 * DEADLINE).pop()


def runs_by_month(platform, backfill):
    runs = platform.backfill_runs(backfill)
    by_month = {run["tags"][PARTITION]: run for run in runs}
    assert len(by_month) == len(runs)
    return by_month


def choose(page, platform, backfill, action):
    """Click an action in the menu of the backfill's page."""
    page.goto(f"{platform.url}/runs/b/{backfill}")
    page.get_by_text("Asset name").wait_for()
    page.get_by_role("button").last.click()
    page.get_by_role("menuitem").get_by_text(action, exact=True).click()


def reexecute_from_failure(page, platform, backfill):
    """Returns the new backfill."""
    return launched(platform, lambda: choose(page, platform, backfill, "Re-execute from failure"))


def expect_in_graph(page, platform, text):
    page.set_viewport_size(WHOLE_GRAPH)
    page.goto(f"{platform.url}/locations/taxi_platform/asset-groups/green/lineage")
    expect(page.get_by_text(text).first).to_be_visible(timeout=DEADLINE * 1000)


def expect_every_month_checked(platform):
    """Every check was evaluated in its month's last run; `published_count` rightly fails: the files have one trip."""
    statuses = {check: {status for status, *_ in ranges} for check, ranges in platform.check_ranges("green").items()}
    assert statuses.pop("green/clean_trips:published_count") == {"FAILED"}
    assert set().union(*statuses.values()) == {"SUCCEEDED"}


def status(source, home):
    """`taxi status --ask`, month → stage."""
    environment = {**os.environ, "TAXI_HOME": str(home), **settings(source)}
    command = [TAXI, "status", "--ask", "--json"]
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE, check=True)
    return {month["month"]: month["stage"] for month in json.loads(printed.stdout)}


@pytest.mark.fault(49)
def test_trips_alone_are_loaded_where_months_are_clean(page, platform, source, home):
    publish(source, "2026-01", "2026-02", "2026-03")
    assert ended(platform, platform.launch_backfill("green", ["2026-01", "2026-02"])) == "COMPLETED_SUCCESS"
    backfill = launched(platform, lambda: materialize_asset(page, platform.url, "green/trips", "[2026-01...2026-03]"))
    assert ended(platform, backfill) == "COMPLETED_FAILED"
    runs = runs_by_month(platform, backfill)
    assert {month: run["status"] for month, run in runs.items()} == {
        "2026-01": "SUCCESS",
        "2026-02": "SUCCESS",
        "2026-03": "FAILURE",
    }
    for month in ("2026-01", "2026-02"):
        assert set(platform.run_checks(runs[month]["runId"])) == TABLE_CHECKS
    failures = platform.run_failures(runs["2026-03"]["runId"])
    assert any("Materialize its clean_trips first" in failure for failure in failures), failures
    # What the message asks for, then the same backfill from its failure.
    cleaning = platform.launch_backfill("green", ["2026-03"], assets=("raw_file", "clean_trips", "rejected_trips"))
    assert ended(platform, cleaning) == "COMPLETED_SUCCESS"
    again = reexecute_from_failure(page, platform, backfill)
    assert ended(platform, again) == "COMPLETED_SUCCESS"
    assert set(runs_by_month(platform, again)) == {"2026-03"}
    assert status(source, home)["2026-03"] == "marts due"  # trips alone were asked for


@pytest.mark.fault(49)
def test_an_unreadable_month_fails_alone_and_is_repaired_from_its_failure(page, platform, source, home):
    publish(source, "2025-05", "2025-06", "2025-07")
    (source / "green_2025-06.csv").write_text("<html>We are sorry</html>")
    backfill = launched(platform, lambda: materialize_group(page, platform.url, "green", "[2025-05...2025-07]"))
    assert ended(platform, backfill) == "COMPLETED_FAILED"
    runs = runs_by_month(platform, backfill)
    assert {month: run["status"] for month, run in runs.items()} == {
        "2025-05": "SUCCESS",
        "2025-06": "FAILURE",
        "2025-07": "SUCCESS",
    }
    checks = {*platform.latest_checks("green"), "green/quality:marts_match_trips"}
    for month in ("2025-05", "2025-07"):
        assert set(platform.run_checks(runs[month]["runId"])) == checks
    assert platform.run_checks(runs["2025-06"]["runId"]).keys() <= {FRESHNESS}
    assert platform.backfill_months(backfill)["green/trips"]["failed"] == 1
    assert status(source, home)["2025-06"] == "failed"
    # The graph counts a check as passed if it passed in every month, see docs/decisions.md.
    for check, ranges in platform.check_ranges("green").items():
        assert [months for status, *months in ranges if status == "EXECUTION_FAILED"] == [["2025-06"] * 2], check
    expect_in_graph(page, platform, "0 / 4 Passed")
    publish(source, "2025-06")
    again = reexecute_from_failure(page, platform, backfill)
    assert ended(platform, again) == "COMPLETED_SUCCESS"
    [(month, run)] = runs_by_month(platform, again).items()
    assert (month, set(platform.run_checks(run["runId"]))) == ("2025-06", checks)
    expect_every_month_checked(platform)
    expect_in_graph(page, platform, "3 / 4 Passed")
    assert status(source, home)["2025-06"] == "loaded"


@pytest.mark.fault(49)
@pytest.mark.soak
def test_a_cancelled_backfill_keeps_what_is_done_and_is_completed_from_there(page, platform, source, home):
    months = [str(month) for month in Month(2021, 1).until(Month(2023, 12))]
    publish(source, *months)
    backfill = launched(platform, lambda: materialize_group(page, platform.url, "green", "[2021-01...2023-12]"))
    wait_for(lambda: platform.materialized("green/trips").intersection(months))
    choose(page, platform, backfill, "Cancel backfill")
    page.get_by_role("dialog").get_by_role("button", name="Cancel backfill").click()
    assert ended(platform, backfill) == "CANCELED"
    runs = runs_by_month(platform, backfill)
    # The months that Dagster had not begun to launch have no run at all.
    assert {run["status"] for run in runs.values()} <= {"SUCCESS", "CANCELED"}
    loaded = {month for month, run in runs.items() if run["status"] == "SUCCESS"}
    assert loaded and loaded < set(months)
    stages = status(source, home)
    assert {stages[month] for month in loaded} == {"loaded"}
    assert "failed" not in stages.values()
    expect(page.get_by_text(re.compile("Canceled", re.IGNORECASE)).first).to_be_visible(timeout=DEADLINE * 1000)
    again = reexecute_from_failure(page, platform, backfill)
    assert ended(platform, again) == "COMPLETED_SUCCESS"
    # A month that was stopped between two assets makes Dagster repeat the months in a run for each of these parts.
    runs = platform.backfill_runs(again)
    assert {run["status"] for run in runs} == {"SUCCESS"}
    assert {run["tags"][PARTITION] for run in runs} == set(months) - loaded
    expect_every_month_checked(platform)
    assert {status(source, home)[month] for month in months} == {"loaded"}
    assert [path for path in (home / "tmp").rglob("*") if path.is_file()] == []
