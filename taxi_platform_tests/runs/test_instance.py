"""Dagster's instance, and the runs that killed processes left behind."""

import multiprocessing
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import psutil
import pytest

from taxi_platform.assets.names import CODE_SERVER_TAG, MAX_RETRIES_TAG, PROCESS_RUN_TAG, PROCESS_TAG
from taxi_platform.definitions import build_definitions
from taxi_platform.runs.ingest import ingest_month
from taxi_platform.runs.instance import MOST_TRIES, check_schema, open_instance, report_dead_runs
from taxi_platform.settings import load_settings
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.trips.processes import process_name

GREEN = DatasetMonth.parse("green", "2020-04")


@pytest.fixture
def instance(monkeypatch):
    monkeypatch.setenv("TAXI_SOURCE_URL", "sample://?rows=2000")
    with open_instance(load_settings()) as instance:
        yield instance


def test_the_run_of_a_killed_process_is_reported_as_failed(instance):
    code = (
        "import os, signal\n"
        "from taxi_platform.definitions import build_definitions\n"
        "from taxi_platform.runs.ingest import ingest_month\n"
        "from taxi_platform.runs.instance import open_instance\n"
        "from taxi_platform.settings import load_settings\n"
        "from taxi_platform.trips.months import DatasetMonth\n"
        "with open_instance(load_settings()) as instance:\n"
        "    ingest_month(instance, build_definitions(load_settings()), DatasetMonth.parse('green', '2020-04'),\n"
        "                 step_done=lambda step: os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False, timeout=300)
    (run,) = instance.get_runs()
    assert run.status == dg.DagsterRunStatus.STARTED
    assert report_dead_runs(instance) == 1
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE
    result = ingest_month(instance, build_definitions(load_settings()), GREEN)
    assert result.succeeded


@pytest.mark.fault(141)
def test_a_run_that_ends_with_its_process_while_it_is_looked_at_is_left_as_it_ended(instance, monkeypatch):
    job = build_definitions(load_settings()).resolve_job_def("green_ingest")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        run = instance.create_run_for_job(job, tags={PROCESS_TAG: process_name(process.pid)})
        get_runs = instance.get_runs

        def end_after_the_first_answer(*arguments, **options):
            runs = get_runs(*arguments, **options)
            if process.poll() is None:
                instance.report_dagster_event(dg.DagsterEvent("PIPELINE_SUCCESS", job.name), run.run_id)
                process.communicate(b"\n")
            return runs

        monkeypatch.setattr(instance, "get_runs", end_after_the_first_answer)
        assert report_dead_runs(instance) == 0
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.SUCCESS


OPENINGS = 10


def open_new_homes(homes, barrier, problems):
    """In a process: open each home at the same moment as the other processes, and use its three databases."""
    for home in homes:
        os.environ["TAXI_HOME"] = str(home)
        os.environ.pop("DAGSTER_HOME", None)
        barrier.wait(300)
        try:
            with open_instance(load_settings()) as instance:
                check_schema(instance)
                instance.report_runless_asset_event(dg.AssetMaterialization("months"))
                instance.all_instigator_state()
        except Exception as error:
            problems.put(repr(error))


@pytest.mark.fault(142)
def test_a_new_home_is_opened_by_several_processes_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, problems = context.Barrier(3), context.SimpleQueue()
    homes = [tmp_path / f"{number}" for number in range(OPENINGS)]
    processes = [context.Process(target=open_new_homes, args=(homes, barrier, problems)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert problems.empty(), problems.get()


def test_runs_of_living_processes_and_of_other_machines_are_left_alone(instance):
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


NAME = "import os; from taxi_platform.trips.processes import process_name; print(process_name(os.getpid()), flush=True)"


@pytest.mark.fault(160)
def test_runs_of_another_container_of_this_name_are_left_to_the_server(instance):
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", f"{NAME}; input()"]
    job = build_definitions(load_settings()).resolve_job_def("green_ingest")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        if not (name := process.stdout.readline().strip()):
            pytest.skip("namespaces of process ids are not permitted here")
        assert name.startswith(f"{socket.gethostname()}/")
        of_command, of_server = (
            instance.create_run_for_job(job, tags={PROCESS_TAG: name, **more}).run_id
            for more in ({}, {CODE_SERVER_TAG: "{}"})
        )
        for run_id in (of_command, of_server):
            instance.add_run_tags(run_id, {PROCESS_RUN_TAG: run_id})
        assert report_dead_runs(instance) == 0
        # There is one server at a time, so this one has replaced that of the other container.
        assert report_dead_runs(instance, is_server=True) == 1
        process.communicate("\n")
    statuses = [instance.get_run_by_id(run_id).status.value for run_id in (of_command, of_server)]
    assert statuses == ["NOT_STARTED", "FAILURE"]


@pytest.mark.fault(135)
def test_a_clock_that_is_set_meanwhile_ends_no_run(instance, tmp_path, monkeypatch):
    run = instance.create_run_for_job(build_definitions(load_settings()).resolve_job_def("green_ingest"))
    instance.add_run_tags(run.run_id, {PROCESS_TAG: process_name(os.getpid()), PROCESS_RUN_TAG: run.run_id})
    (tmp_path / str(os.getpid())).symlink_to(f"/proc/{os.getpid()}")
    stat = re.sub(r"btime (\d+)", lambda match: f"btime {int(match[1]) + 3600}", Path("/proc/stat").read_text())
    (tmp_path / "stat").write_text(stat)  # all that the kernel shows differently
    before = psutil.Process().create_time()
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    assert psutil.Process().create_time() == pytest.approx(before + 3600)
    assert report_dead_runs(instance) == 0


@pytest.mark.fault(79)
def test_a_run_that_is_executed_again_is_not_taken_for_the_killed_one_whose_tags_it_has(instance):
    job = build_definitions(load_settings()).resolve_job_def("green_ingest")
    dead = {PROCESS_TAG: f"{socket.gethostname()}/1@1.00"}
    first = instance.create_run_for_job(job, tags=dead)
    instance.add_run_tags(first.run_id, {PROCESS_RUN_TAG: first.run_id})
    family = {"root_run_id": first.run_id, "parent_run_id": first.run_id}
    again = instance.create_run_for_job(job, tags={**dead, PROCESS_RUN_TAG: first.run_id}, **family)
    of_an_earlier_version = instance.create_run_for_job(job, tags=dead, **family)
    assert report_dead_runs(instance) == 1
    for run, status in ((first, "FAILURE"), (again, "NOT_STARTED"), (of_an_earlier_version, "NOT_STARTED")):
        assert instance.get_run_by_id(run.run_id).status.value == status


def test_a_run_that_died_with_its_code_server_has_one_try_more_up_to_a_limit(instance):
    job = build_definitions(load_settings()).resolve_job_def("green_ingest")
    dead = {PROCESS_TAG: f"{socket.gethostname()}/1@1.00", CODE_SERVER_TAG: "{}"}
    cases = {"5": "6", str(MOST_TRIES): str(MOST_TRIES), None: str(instance.run_retries_max_retries + 1)}
    runs = {}
    for before in cases:
        tags = dead if before is None else {**dead, MAX_RETRIES_TAG: before}
        runs[before] = instance.create_run_for_job(job, tags=tags).run_id
        instance.add_run_tags(runs[before], {PROCESS_RUN_TAG: runs[before]})
    assert report_dead_runs(instance) == len(cases)
    after = {before: instance.get_run_by_id(run_id).tags[MAX_RETRIES_TAG] for before, run_id in runs.items()}
    assert after == cases


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
