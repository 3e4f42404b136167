"""What people do in the UI, done in a browser; GraphQL then tells the result."""

import re
from datetime import date

import pytest
from playwright.sync_api import expect

from taxi_platform.assets.names import FRESHNESS_CHECK
from taxi_platform.trips.months import Month, newest_month
from taxi_platform_tests.support.system import DEADLINE, wait_for
from taxi_platform_tests.support.ui_actions import WHOLE_GRAPH, materialize_group

pytestmark = pytest.mark.browser
expect.set_options(timeout=DEADLINE * 1000)
NOTHING_TO_DO = "Every month that was looked at is loaded in its latest version."


def test_a_month_is_materialized_and_its_run_log_says_what_was_done(page, platform):
    materialize_group(page, platform.url, "green", "2026-08")
    wait_for(lambda: "2026-08" in platform.materialized("green/trips"))
    runs = platform.ask("{ runsOrError(limit: 1) { ... on Runs { results { id } } } }")["runsOrError"]["results"]
    page.goto(f"{platform.url}/runs/{runs[0]['id']}")
    expect(page.get_by_text("Success").first).to_be_visible()
    page.get_by_placeholder("Filter").fill("green 2026-08:")
    for message in ("bytes, 3,000 rows", "rows clean,", "rows in green_trips"):
        expect(page.get_by_text(re.compile(message)).first).to_be_visible()


def test_a_month_shows_its_chart_columns_and_checks(page, platform):
    materialize_group(page, platform.url, "green", "2026-07")
    wait_for(lambda: "2026-07" in platform.materialized("green/trips"))
    page.goto(f"{platform.url}/assets/green/clean_trips?view=partitions&partition=2026-07")
    expect(page.get_by_text("rows_rejected", exact=True).first).to_be_visible()
    expect(page.get_by_text("suspicious/zero_passengers").first).to_be_visible()
    row = page.locator("tr", has_text="trips_per_day").last
    if row.get_by_text("Show Markdown").count():
        row.get_by_text("Show Markdown").first.click()
    chart = page.locator('img[src^="data:image/svg"]').first
    expect(chart).to_be_visible()
    assert chart.evaluate("image => image.complete && image.naturalWidth") == 440
    page.goto(f"{platform.url}/assets/green/clean_trips")
    expect(page.get_by_text("When the meter was engaged, New York wall clock.").first).to_be_visible()
    page.get_by_text("Plots", exact=True).first.click()  # numbers over the months
    expect(page.get_by_text("suspicious/zero_passengers").first).to_be_visible()
    expect(page.locator("canvas").first).to_be_visible()
    page.goto(f"{platform.url}/assets/green/clean_trips?view=checks")
    for check in ("rows_accounted_for", "published_count", "usual_shares", "no_unknown_columns"):
        expect(page.get_by_text(check).first).to_be_visible()


def test_lineage_shows_every_step_of_a_dataset(page, platform):
    page.goto(f"{platform.url}/locations/taxi_platform/asset-groups/fhvhv/lineage")
    for asset in ("raw_file", "clean_trips", "rejected_trips", "trips"):
        expect(page.get_by_text(asset, exact=True).first).to_be_visible()


def test_a_sensor_that_is_switched_on_brings_the_newest_months(page, platform):
    page.goto(f"{platform.url}/locations/taxi_platform/sensors/yellow_publication")
    expect(page.get_by_text("Asks the source about the 2 newest months of yellow")).to_be_visible()
    page.locator("label").last.click()
    wait_for(lambda: platform.ticks("Sensor", "yellow_publication")[0]["switched"] == "RUNNING")
    wait_for(lambda: any(tick.get("runIds") for tick in platform.ticks("Sensor", "yellow_publication")))
    wait_for(lambda: len(platform.materialized("yellow/trips")) == 2)
    later = wait_for(
        lambda: [t for t in platform.ticks("Sensor", "yellow_publication") if t.get("skipReason")], 2 * DEADLINE
    )
    assert "The next look at the source is at" in later[0]["skipReason"]


def test_a_schedule_that_is_switched_on_ticks_and_catches_up(page, platform):
    page.goto(f"{platform.url}/locations/taxi_platform/schedules/fhv_schedule")
    expect(page.get_by_text("By * * * * * (New York time): a run for each month of fhv since 2026-07")).to_be_visible()
    page.locator("label").last.click()
    wait_for(lambda: platform.ticks("Schedule", "fhv_schedule")[0]["switched"] == "RUNNING")
    wait_for(lambda: any(tick.get("runIds") for tick in platform.ticks("Schedule", "fhv_schedule")))
    caught_up = {str(month) for month in Month(2026, 7).until(newest_month(date.today()))}
    wait_for(lambda: platform.materialized("fhv/trips") >= caught_up)
    wait_for(lambda: platform.ticks("Schedule", "fhv_schedule")[0].get("skipReason") == NOTHING_TO_DO)


@pytest.mark.fault(49)
def test_a_range_of_months_becomes_a_run_each_with_every_check_evaluated(page, platform):
    months = {"2025-01", "2025-02", "2025-03"}
    earlier = platform.newest_backfill()
    materialize_group(page, platform.url, "fhvhv", "[2025-01...2025-03]")
    wait_for(lambda: platform.newest_backfill() != earlier)
    backfill = platform.newest_backfill()
    wait_for(lambda: platform.backfill_status(backfill) == "COMPLETED_SUCCESS", 2 * DEADLINE)
    assert platform.materialized("fhvhv/trips") == months
    runs = platform.backfill_runs(backfill)
    assert sorted(run["tags"].get("dagster/partition", "none") for run in runs) == sorted(months)
    assert {run["status"] for run in runs} == {"SUCCESS"}
    latest = platform.latest_checks("fhvhv")
    freshness = f"fhvhv/trips:{FRESHNESS_CHECK}"  # rightly fails: these are not the newest months
    for run in runs:
        evaluated = platform.run_checks(run["runId"])
        assert set(evaluated) == {*latest, "fhvhv/quality:marts_match_trips"}, run["tags"]
        assert [check for check, passed in evaluated.items() if not passed and check != freshness] == []
    assert {status for check, status in latest.items() if check != freshness} == {"SUCCEEDED"}
    page.set_viewport_size(WHOLE_GRAPH)
    page.goto(f"{platform.url}/locations/taxi_platform/asset-groups/fhvhv/lineage")
    expect(page.get_by_text("rejected_trips", exact=True).first).to_be_visible()
    expect(page.get_by_text(re.compile(r"\b4 / 4 Passed")).first).to_be_visible()
    page.goto(f"{platform.url}/runs")
    expect(page.get_by_text("Success").first).to_be_visible()


def test_the_launchpad_documents_what_a_run_takes(platform):
    query = """query($selector: PipelineSelector!) { runConfigSchemaOrError(selector: $selector) {
                 ... on RunConfigSchema { allConfigTypes {
                 ... on CompositeConfigType { fields { name description } } } } } }"""
    selector = {
        "pipelineName": "green_ingest",
        "repositoryName": "__repository__",
        "repositoryLocationName": "taxi_platform",
    }
    types = platform.ask(query, selector=selector)["runConfigSchemaOrError"]["allConfigTypes"]
    fields = {field["name"]: field["description"] for kind in types for field in kind.get("fields", [])}
    assert fields["reject"] == "Suspicious rules that reject in this run, such as zero_passengers."
