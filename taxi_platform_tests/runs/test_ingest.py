"""Runs from the command line are runs as the UI would start them."""

import subprocess
import sys
import time

import dagster as dg
import pytest

from taxi_platform.definitions import build_definitions
from taxi_platform.runs.ingest import (
    PROCESS_TAG,
    IngestOptions,
    ingest_month,
    open_instance,
    process_name,
    report_dead_runs,
)
from taxi_platform.settings import load_settings
from taxi_platform.trips.months import DatasetMonth

GREEN = DatasetMonth.parse("green", "2020-04")


@pytest.fixture
def instance(monkeypatch):
    monkeypatch.setenv("TAXI_SOURCE_URL", "sample://?rows=2000")
    with open_instance(load_settings()) as instance:
        yield instance


def test_a_run_has_job_location_partition_and_checks(instance):
    outcome = ingest_month(instance, build_definitions(load_settings()), GREEN)
    assert outcome.succeeded
    run = instance.get_run_by_id(outcome.run_id)
    assert run.job_name == "green_ingest"
    assert run.remote_job_origin.repository_origin.code_location_origin.location_name == "taxi_platform"
    assert run.tags["dagster/partition"] == "2020-04"
    assert run.status == dg.DagsterRunStatus.SUCCESS
    assert "rows_accounted_for" in {key.name for key in run.asset_check_selection or _checks(instance, run)}


def _checks(instance, run):
    logs = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    return [log.dagster_event.asset_check_evaluation_data.asset_check_key for log in logs]


def test_status_sensors_fire_for_it(instance):
    fired = []
    definitions = build_definitions(load_settings())
    outcome = ingest_month(instance, definitions, GREEN)

    @dg.run_status_sensor(run_status=dg.DagsterRunStatus.SUCCESS)
    def on_success(context):
        fired.append(context.dagster_run.run_id)

    # Without a job filter a sensor asks for runs of its own repository, by the origin that the run carries.
    run = instance.get_run_by_id(outcome.run_id)
    assert run.remote_job_origin.repository_origin.repository_name == "__repository__"
    with dg.build_run_status_sensor_context("on_success", _event(instance, run), instance, run) as context:
        on_success(context)
    assert fired == [outcome.run_id]


def _event(instance, run):
    return instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_SUCCESS)[0].dagster_event


def test_a_killed_process_leaves_no_run_that_says_it_runs(instance):
    code = (
        "import os, signal\n"
        "from taxi_platform.runs.ingest import *\n"
        "from taxi_platform.settings import load_settings\n"
        "from taxi_platform.definitions import defs\n"
        "from taxi_platform.trips.months import DatasetMonth\n"
        "with open_instance(load_settings()) as instance:\n"
        "    ingest_month(instance, defs(), DatasetMonth.parse('green', '2020-04'), IngestOptions(),\n"
        "                 lambda step: os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    (run,) = instance.get_runs()
    assert run.status == dg.DagsterRunStatus.STARTED
    assert report_dead_runs(instance) == 1
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE
    outcome = ingest_month(instance, build_definitions(load_settings()), GREEN, IngestOptions())
    assert outcome.succeeded


def test_a_living_process_and_one_of_another_machine_keep_their_runs(instance):
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        tag = process_name(sleeper.pid)
        job = build_definitions(load_settings()).resolve_job_def("green_ingest")
        run = instance.create_run_for_job(job, tags={PROCESS_TAG: tag, "dagster/partition": "2020-04"})
        instance.report_engine_event("starting", run)
        instance.handle_new_event(_started(run))
        elsewhere = {PROCESS_TAG: f"another-machine/{sleeper.pid}@1.00"}
        instance.handle_new_event(_started(instance.create_run_for_job(job, tags=elsewhere)))
        assert report_dead_runs(instance) == 0
    finally:
        sleeper.kill()
        sleeper.wait()
    assert report_dead_runs(instance) == 1


def _started(run):
    from dagster._core.events import DagsterEvent
    from dagster._core.events.log import EventLogEntry

    return EventLogEntry(
        error_info=None,
        user_message="",
        level=20,
        run_id=run.run_id,
        timestamp=time.time(),
        dagster_event=DagsterEvent(dg.DagsterEventType.RUN_START.value, run.job_name),
    )
