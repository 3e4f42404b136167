"""Which queue a run goes to, and what its tags say about it; no broker is needed for that."""

import dagster as dg
import pytest

from taxi_platform.runs.agents.broker import Queue
from taxi_platform.runs.agents.launcher import AgentRunLauncher, agent_of, task_of
from taxi_platform.runs.agents.shared import release_of
from taxi_platform.settings import load_settings
from taxi_platform.trips.errors import SettingError

QUEUES = "yellow=heavy,fhvhv=huge,*=small"


def run(job="__ASSET_JOB", assets=(), **tags):
    selection = {dg.AssetKey(asset.split("/")) for asset in assets}
    return dg.DagsterRun(job_name=job, asset_selection=selection, tags=tags)


@pytest.mark.parametrize(
    ("queues", "of_run", "queue"),
    [
        (QUEUES, run("yellow_ingest"), "heavy"),
        (QUEUES, run(assets=["yellow/trips", "yellow/raw_file"]), "heavy"),
        (QUEUES, run("green_ingest"), "small"),
        (QUEUES, run("marts"), "small"),
        (QUEUES, run(assets=["fhvhv/trips", "yellow/trips"]), "heavy"),
        ("fhvhv=huge,yellow=heavy", run(assets=["fhvhv/trips", "yellow/trips"]), "huge"),
        ("yellow=heavy", run("green_ingest"), "default"),
        ("", run("yellow_ingest"), "default"),
        (QUEUES, run("yellow_ingest", **{"dagster-celery/queue": "mine"}), "mine"),
    ],
)
def test_the_queue_follows_from_the_runs_assets_unless_a_person_set_its_tag(monkeypatch, queues, of_run, queue):
    monkeypatch.setenv("TAXI_QUEUES", queues)
    assert AgentRunLauncher("redis://127.0.0.1:1/0").queue_of(of_run).name == queue


def test_a_tag_that_names_no_queue_is_an_error_that_names_the_tag():
    with pytest.raises(SettingError, match=r"The tag dagster-celery/queue names the queue 'a b'"):
        AgentRunLauncher("redis://127.0.0.1:1/0").queue_of(run("green_ingest", **{"dagster-celery/queue": "a b"}))


@pytest.mark.fault(111)
def test_agents_of_another_version_listen_on_other_queues():
    release = release_of(load_settings({}))
    queue = Queue("heavy", release.name)
    assert Queue.parse(queue.in_broker) == queue
    assert queue.in_broker != Queue("heavy", f"9{release.name}").in_broker
    assert Queue.parse("celery") is None
    assert Queue.parse("dagster") is None


def test_a_run_that_is_run_again_does_not_count_as_taken_by_the_agent_of_the_first():
    first = run("green_ingest")
    tags = {"dagster-celery/task_id": f"{first.run_id}.1", ".dagster/taxi_agent": f"host-1 {first.run_id}.1"}
    taken = first.with_tags(tags)
    again = run("green_ingest", **tags)
    assert (task_of(taken), agent_of(taken)) == (f"{first.run_id}.1", "host-1")
    assert (task_of(again), agent_of(again)) == (None, None)
    assert agent_of(taken.with_tags({**tags, "dagster-celery/task_id": f"{first.run_id}.2"})) is None
