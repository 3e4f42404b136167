"""What past runs say: the months they are about, and which failed last."""

import dagster as dg
import pytest

from taxi_platform.assets.names import RETRY_TAG
from taxi_platform.definitions import build_definitions
from taxi_platform.runs.history import dataset_months_of, latest_failures
from taxi_platform.runs.instance import open_instance
from taxi_platform.settings import load_settings
from taxi_platform.trips.months import Dataset, DatasetMonth

PARTITION = "dagster/partition"
START, END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


def months_of(job_name, tags, *asset_keys):
    selection = frozenset(dg.AssetKey(key.split("/")) for key in asset_keys) or None
    run = dg.DagsterRun(job_name=job_name, tags=tags, asset_selection=selection)
    return [str(dataset_month) for dataset_month in dataset_months_of(run)]


def test_a_run_of_a_job_has_one_month():
    assert months_of("green_ingest", {PARTITION: "2020-04"}) == ["green 2020-04"]


@pytest.mark.parametrize("tags", [{PARTITION: "2020-04"}, {START: "2020-04", END: "2020-04"}])
def test_a_run_of_assets_has_their_datasets(tags):
    selected = ("green/trips", "green/raw_file", "yellow/trips")
    assert months_of("__ASSET_JOB", tags, *selected) == ["yellow 2020-04", "green 2020-04"]


@pytest.mark.fault(49)
def test_a_run_of_an_earlier_version_may_have_a_range_of_months():
    assert months_of("green_ingest", {START: "2019-12", END: "2020-02"}) == [
        "green 2019-12",
        "green 2020-01",
        "green 2020-02",
    ]


def test_months_before_the_first_of_a_dataset_are_left_out():
    assert months_of("__ASSET_JOB", {START: "2013-07", END: "2013-08"}, "green/trips", "yellow/trips") == [
        "yellow 2013-07",
        "yellow 2013-08",
        "green 2013-08",
    ]


@pytest.mark.parametrize("tags", [{}, {PARTITION: "2020-04-01|north"}, {START: "2020-04"}, {START: "a", END: "b"}])
def test_runs_without_months_of_ours_have_none(tags):
    assert months_of("green_ingest", tags) == []
    assert months_of("freshness", {PARTITION: "2020-04"}) == []


def test_the_latest_run_of_each_month_decides_whether_it_failed(monkeypatch):
    monkeypatch.setenv("TAXI_DATASETS", "green")
    job = build_definitions(load_settings()).resolve_job_def("green_ingest")
    with open_instance(load_settings()) as instance:

        def end_run(status, **tags):
            names = {"month": PARTITION, "start": START, "end": END, "retried_by": RETRY_TAG}
            run = instance.create_run_for_job(job, tags={names[name]: value for name, value in tags.items()})
            if status == "failed":
                instance.report_run_failed(run, f"Failed {run.tags}.\nMore.")
            else:
                instance.report_dagster_event(dg.DagsterEvent("PIPELINE_SUCCESS", run.job_name), run.run_id)

        end_run("failed", month="2020-04")
        end_run("failed", month="2020-04", retried_by="the run that Dagster started, which is not at its end")
        end_run("failed", month="2020-01")
        end_run("failed", start="2020-02", end="2020-03")
        end_run("succeeded", month="2020-01")
        end_run("succeeded", start="2020-03", end="2020-03")
        failures = latest_failures(instance, [Dataset.GREEN], 100)
        assert list(failures) == [DatasetMonth.parse("green", "2020-02")]
        assert failures[DatasetMonth.parse("green", "2020-02")].startswith("Failed {")
        assert latest_failures(instance, [Dataset.YELLOW], 100) == {}
        assert latest_failures(instance, [Dataset.GREEN], 2) == {}
