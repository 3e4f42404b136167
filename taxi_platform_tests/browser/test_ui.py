"""What people do in the UI, done in a browser; GraphQL then tells the result. Some pages become pictures."""

import re

import pytest
from playwright.sync_api import expect

from taxi_platform_tests.browser.conftest import HISTORY, NEWEST, new_page
from taxi_platform_tests.support.pictures import SCALE, around, take_picture
from taxi_platform_tests.support.system import DEADLINE, wait_for
from taxi_platform_tests.support.taxi_dev import ASSETS
from taxi_platform_tests.support.ui_actions import WHOLE_GRAPH, materialize_group

pytestmark = pytest.mark.browser
expect.set_options(timeout=DEADLINE * 1000)
NOTHING_TO_DO = "Every month that was looked at is loaded in its latest version."
MARTS = ("daily_zones", "hours", "zone_pairs", "payments", "quality")


def test_a_month_is_materialized_and_its_run_log_says_what_was_done(page, platform):
    month = str(NEWEST.plus(-1))
    materialize_group(page, platform.url, "green", month)
    wait_for(lambda: month in platform.materialized("green/trips"))
    runs = platform.ask("{ runsOrError(limit: 1) { ... on Runs { results { id } } } }")["runsOrError"]["results"]
    page.goto(f"{platform.url}/runs/{runs[0]['id']}")
    expect(page.get_by_text("Success").first).to_be_visible()
    page.get_by_placeholder("Filter").fill(f"green {month}:")
    for message in ("bytes, [0-9]+ rows", "rows clean,", "rows in green_trips"):
        expect(page.get_by_text(re.compile(message)).first).to_be_visible()
    take_picture(page, "run", height=560)


def test_a_sensor_that_is_switched_on_brings_the_newest_months(page, platform):
    page.goto(f"{platform.url}/locations/taxi_platform/sensors/yellow_publication")
    expect(page.get_by_text("Asks the source about the 2 newest months of yellow")).to_be_visible()
    page.locator("label").last.click()
    wait_for(lambda: platform.ticks("Sensor", "yellow_publication")[0]["switched"] == "RUNNING")
    wait_for(lambda: any(tick.get("runIds") for tick in platform.ticks("Sensor", "yellow_publication")))
    wait_for(lambda: {str(NEWEST), str(NEWEST.plus(-1))} <= platform.materialized("yellow/trips"))
    later = wait_for(
        lambda: [t for t in platform.ticks("Sensor", "yellow_publication") if t.get("skipReason")], 2 * DEADLINE
    )
    assert "The next look at the source is at" in later[0]["skipReason"]


def test_a_schedule_that_is_switched_on_ticks_and_catches_up(page, platform):
    page.goto(f"{platform.url}/locations/taxi_platform/schedules/fhv_schedule")
    since = NEWEST.plus(-2)
    expect(page.get_by_text(f"By * * * * * (New York time): a run for each month of fhv since {since}")).to_be_visible()
    page.locator("label").last.click()
    wait_for(lambda: platform.ticks("Schedule", "fhv_schedule")[0]["switched"] == "RUNNING")
    wait_for(lambda: any(tick.get("runIds") for tick in platform.ticks("Schedule", "fhv_schedule")))
    caught_up = {str(month) for month in since.until(NEWEST)}
    wait_for(lambda: platform.materialized("fhv/trips") >= caught_up)
    wait_for(lambda: platform.ticks("Schedule", "fhv_schedule")[0].get("skipReason") == NOTHING_TO_DO)
    page.goto(f"{platform.url}/automation")
    for name in ("fhv_schedule", "yellow_publication", "freshness_schedule"):
        expect(page.get_by_text(name, exact=True)).to_be_visible()
    take_picture(page, "automation")


@pytest.mark.fault(49)
def test_a_range_of_months_becomes_a_run_each_with_every_check_evaluated(page, platform, history):
    assert platform.materialized("yellow/trips") >= set(HISTORY)
    runs = platform.backfill_runs(history)
    assert sorted(run["tags"].get("dagster/partition", "none") for run in runs) == HISTORY
    assert {run["status"] for run in runs} == {"SUCCESS"}
    latest = platform.latest_checks("yellow")
    for run in runs:
        evaluated = platform.run_checks(run["runId"])
        assert set(evaluated) == {*latest, "yellow/quality:marts_match_trips"}, run["tags"]
        assert [check for check, passed in evaluated.items() if not passed] == []
    assert set(latest.values()) == {"SUCCEEDED"}
    page.goto(f"{platform.url}/runs/b/{history}")
    expect(page.get_by_text("clean_trips").first).to_be_visible()
    expect(page.get_by_text(f"{len(HISTORY)}").first).to_be_visible()
    take_picture(page, "backfill")
    page.goto(f"{platform.url}/runs")
    expect(page.get_by_text("Success").first).to_be_visible()


def test_the_graph_shows_every_step_of_a_dataset_with_its_checks(browser, platform, history):
    page = new_page(browser, SCALE / 2)
    page.set_viewport_size(WHOLE_GRAPH)
    page.goto(f"{platform.url}/locations/taxi_platform/asset-groups/yellow/lineage")
    nodes = [page.get_by_text(asset, exact=True).first for asset in (*ASSETS, *MARTS)]
    for node in nodes:
        expect(node).to_be_visible()
    expect(page.get_by_text(re.compile(r"\b4 / 4 Passed")).first).to_be_visible()
    take_picture(page, "lineage", **around(nodes, left=60, top=40, right=340, bottom=220))
    page.close()


def test_a_month_shows_its_chart_columns_and_checks(page, platform, history):
    page.goto(f"{platform.url}/assets/yellow/clean_trips?view=partitions&partition={HISTORY[-1]}")
    expect(page.get_by_text("rows_rejected", exact=True).first).to_be_visible()
    expect(page.get_by_text("suspicious/zero_passengers").first).to_be_visible()
    row = page.locator("tr", has_text="trips_per_day").last
    if row.get_by_text("Show Markdown").count():
        row.get_by_text("Show Markdown").first.click()
    chart = page.locator('img[src^="data:image/svg"]').first
    expect(chart).to_be_visible()
    assert chart.evaluate("image => image.complete && image.naturalWidth") == 440
    take_picture(page, "month", width=840, height=560)  # without paths of this machine
    page.goto(f"{platform.url}/assets/yellow/clean_trips")
    expect(page.get_by_text("When the meter was engaged, New York wall clock.").first).to_be_visible()
    page.get_by_text("Plots", exact=True).first.click()  # numbers over the months
    expect(page.get_by_text("suspicious/zero_passengers").first).to_be_visible()
    expect(page.locator("canvas").first).to_be_visible()
    page.get_by_text("Metadata", exact=True).first.evaluate("title => title.scrollIntoView()")
    take_picture(page, "plots", x=240, y=100, width=650, height=640)
    page.goto(f"{platform.url}/assets/yellow/clean_trips?view=checks")
    for check in ("rows_accounted_for", "published_count", "usual_shares", "no_unknown_columns"):
        expect(page.get_by_text(check).first).to_be_visible()


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
