"""Runs from the command line are runs as the UI would start them."""

import os
import signal
from dataclasses import replace
from threading import Thread

import dagster as dg
import duckdb
import pytest
from sqlalchemy import event
from sqlalchemy.pool import Pool

from taxi_platform.assets import failures as retrying
from taxi_platform.assets.names import HURRIED_TAG
from taxi_platform.assets.resources import SourceResource
from taxi_platform.definitions import build_definitions
from taxi_platform.runs.ingest import IngestOptions, ingest_month
from taxi_platform.runs.instance import open_instance
from taxi_platform.runs.result import IngestStatus
from taxi_platform.settings import load_settings
from taxi_platform.sources.sample.writing import write_sample
from taxi_platform.trips.months import DatasetMonth
from taxi_platform_tests.support.system import wait_for
from taxi_platform_tests.support.web_server import Page, serving

GREEN = DatasetMonth.parse("green", "2020-04")


@pytest.fixture
def instance(monkeypatch):
    monkeypatch.setenv("TAXI_SOURCE_URL", "sample://?rows=2000")
    with open_instance(load_settings()) as instance:
        yield instance


def test_a_run_has_job_location_partition_and_checks(instance):
    result = ingest_month(instance, build_definitions(load_settings()), GREEN)
    assert (result.status, result.problem) == (IngestStatus.LOADED, "")
    run = instance.get_run_by_id(result.run_id)
    assert run.job_name == "green_ingest"
    assert run.remote_job_origin.repository_origin.code_location_origin.location_name == "taxi_platform"
    assert run.tags["dagster/partition"] == "2020-04"
    assert run.status == dg.DagsterRunStatus.SUCCESS
    assert "rows_accounted_for" in {key.name for key in run.asset_check_selection or _checks(instance, run)}


def _checks(instance, run):
    logs = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    return [log.dagster_event.asset_check_evaluation_data.asset_check_key for log in logs]


def test_a_further_month_opens_one_file_of_dagsters_and_each_check_reads_the_materialization_once(
    instance, monkeypatch
):
    definitions, reads, opened = build_definitions(load_settings()), [], []
    ingest_month(instance, definitions, GREEN)
    fetch, connected = instance.fetch_materializations, lambda connection, record: opened.append(connection)
    monkeypatch.setattr(instance, "fetch_materializations", lambda *a, **b: reads.append(a) or fetch(*a, **b))
    event.listen(Pool, "connect", connected)
    try:
        result = ingest_month(instance, definitions, DatasetMonth.parse("green", "2020-05"))
    finally:
        event.remove(Pool, "connect", connected)
    evaluated = _checks(instance, instance.get_run_by_id(result.run_id))
    assert (len(reads), len(set(evaluated)), len(opened)) == (9, 9, 1)


@pytest.mark.fault(98)
def test_a_mart_that_was_dropped_by_hand_fails_its_check_and_a_run_of_the_marts_alone_repairs_it(instance):
    definitions, settings = build_definitions(load_settings()), load_settings()
    ingest_month(instance, definitions, GREEN)
    database = str(settings.home / "warehouse.duckdb")
    with duckdb.connect(database) as con:
        before = con.execute("FROM green_hours ORDER BY ALL").fetchall()
        con.execute("DROP TABLE green_hours")
    check = dg.AssetCheckKey(dg.AssetKey(["green", "quality"]), "marts_match_trips")
    job = definitions.resolve_job_def("green_ingest").get_subset(asset_check_selection={check})
    ended = job.execute_in_process(partition_key="2020-04", instance=instance)
    [evaluation] = ended.get_asset_check_evaluations()
    assert (evaluation.passed, evaluation.partition) == (False, "2020-04")
    assert "green_hours" in evaluation.description
    only_marts = IngestOptions(only_marts=frozenset([GREEN]))
    steps_done = []
    result = ingest_month(instance, definitions, GREEN, only_marts, steps_done.append)
    assert (result.status, result.problem) == (IngestStatus.MARTS_BUILT, "")
    assert steps_done == ["green_marts", "green__quality_marts_match_trips"]
    with duckdb.connect(database, read_only=True) as con:
        assert con.execute("FROM green_hours ORDER BY ALL").fetchall() == before != []
    assert ingest_month(instance, definitions, GREEN, only_marts).status == IngestStatus.UNCHANGED
    assert ingest_month(instance, definitions, GREEN).status == IngestStatus.UNCHANGED


def test_status_sensors_fire_for_it(instance):
    fired = []
    definitions = build_definitions(load_settings())
    result = ingest_month(instance, definitions, GREEN)

    @dg.run_status_sensor(run_status=dg.DagsterRunStatus.SUCCESS)
    def on_success(context):
        fired.append(context.dagster_run.run_id)

    # Without a job filter a sensor asks for runs of its own repository, by the origin that the run carries.
    run = instance.get_run_by_id(result.run_id)
    assert run.remote_job_origin.repository_origin.repository_name == "__repository__"
    with dg.build_run_status_sensor_context("on_success", _event(instance, run), instance, run) as context:
        on_success(context)
    assert fired == [result.run_id]


def _event(instance, run):
    return instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_SUCCESS)[0].dagster_event


@pytest.fixture
def web(monkeypatch, tmp_path):
    """A server of one month, which a step asks once, without waits of its own; it may be busy at first."""
    path = tmp_path / "green.csv.gz"
    write_sample(GREEN, 300, path)
    with serving() as web:
        monkeypatch.setenv("TAXI_SOURCE_URL", web.url + "/{dataset}_{month}.csv.gz")
        monkeypatch.setenv("TAXI_DATASETS", "green")
        open_source = SourceResource.open
        monkeypatch.setattr(SourceResource, "open", lambda self: replace(open_source(self), backoff=0, stat_attempts=1))
        web.pages["/green_2020-04.csv.gz"] = Page(path.read_bytes(), etag='"1"')
        yield web


def be_busy(web, times):
    web.pages["/green_2020-04.csv.gz"].first = [Page(status=503) for _ in range(times)]


def retries(instance, run_id):
    """The keys of the steps that waited for another try, and of those that began one."""
    types = (dg.DagsterEventType.STEP_UP_FOR_RETRY, dg.DagsterEventType.STEP_RESTARTED)
    return [[log.dagster_event.step_key for log in instance.all_logs(run_id, of_type=kind)] for kind in types]


@pytest.fixture
def home(web):
    with open_instance(load_settings()) as instance:
        yield instance


def test_a_patient_run_tries_a_step_again_until_a_busy_server_answers(web, home, monkeypatch):
    monkeypatch.setattr(retrying, "RETRY_SECONDS", (0.01, 0.01, 0.01))
    be_busy(web, times=2)
    result = ingest_month(home, build_definitions(load_settings()), GREEN, IngestOptions(patient=True))
    assert (result.status, result.rows_read) == (IngestStatus.LOADED, 300)
    assert result.problem.startswith("published_count: 300 rows read")  # a failed check, not the busy server
    assert retries(home, result.run_id) == [["green__raw_file"] * 2] * 2
    assert HURRIED_TAG not in home.get_run_by_id(result.run_id).tags


def test_a_patient_run_fails_when_every_try_did(web, home, monkeypatch):
    monkeypatch.setattr(retrying, "RETRY_SECONDS", (0.01, 0.01, 0.01))
    be_busy(web, times=4)
    result = ingest_month(home, build_definitions(load_settings()), GREEN, IngestOptions(patient=True))
    assert (result.status, "503" in result.problem) == (IngestStatus.FAILED, True)
    assert (len(retries(home, result.run_id)[1]), web.pages["/green_2020-04.csv.gz"].first) == (3, [])


def test_a_run_that_somebody_waits_for_is_not_tried_again(web, home):
    be_busy(web, times=1)
    result = ingest_month(home, build_definitions(load_settings()), GREEN)
    assert (result.status, "503" in result.problem) == (IngestStatus.FAILED, True)
    assert retries(home, result.run_id) == [[], []]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_the_wait_for_another_try(web, home, monkeypatch, number):
    monkeypatch.setattr(retrying, "RETRY_SECONDS", (60, 60, 60))
    be_busy(web, times=100)

    def interrupt_while_waiting():
        wait_for(lambda: (runs := home.get_runs()) and retries(home, runs[0].run_id)[0])
        os.kill(os.getpid(), number)

    # As in a command; a shell's background job, and all that it starts, would ignore SIGINT.
    previous = {each: signal.signal(each, signal.default_int_handler) for each in (signal.SIGINT, signal.SIGTERM)}
    thread = Thread(target=interrupt_while_waiting)
    thread.start()
    try:
        result = ingest_month(home, build_definitions(load_settings()), GREEN, IngestOptions(patient=True))
    finally:
        thread.join()
        for each, handler in previous.items():
            signal.signal(each, handler)
    assert (result.status, result.problem) == (IngestStatus.INTERRUPTED, "Interrupted.")
    assert retries(home, result.run_id) == [["green__raw_file"], []]
    assert home.get_run_by_id(result.run_id).status == dg.DagsterRunStatus.FAILURE
