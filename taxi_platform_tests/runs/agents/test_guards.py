"""The guards on real agents, Redis and PostgreSQL, asked as the daemon and its sensor ask them, but without those."""

import json
import os
import signal
import threading
import time
from contextlib import suppress

import dagster as dg
import pytest

from taxi_platform.assets.names import AGENT_TAG
from taxi_platform.definitions import build_definitions
from taxi_platform.runs.agents.broker import BrokerDown, claim, known_queues, waiting
from taxi_platform.runs.agents.launcher import SUSPICIONS, agent_of, task_of
from taxi_platform.runs.agents.listing import ANSWER_SECONDS, answering_agents, listing_of
from taxi_platform.runs.agents.shared import code_server_of, publish
from taxi_platform.runs.agents.waiting import WaitingRuns
from taxi_platform.runs.ingest import IngestOptions, create_run, month_job
from taxi_platform.runs.instance import instance_of_process
from taxi_platform.settings import load_settings
from taxi_platform.sources.sample.writing import write_sample
from taxi_platform.trips.months import DatasetMonth
from taxi_platform_tests.support.agents import redis_server, running_cluster
from taxi_platform_tests.support.system import wait_for
from taxi_platform_tests.support.web_server import Page, serving

pytestmark = pytest.mark.slow

LOST_SECONDS = 12
LONG = 8.0
"""Seconds that the source takes to answer for a run that shall be met at work; it is asked twice."""
LONGER = 25.0
"""For one that shall be at work throughout many looks."""
DEADLINE = 240


class Daemon:
    """What the daemon would do with runs: launch them, look after them, and nothing else."""

    def __init__(self, cluster, source):
        self.cluster, self.source = cluster, source
        self.settings = load_settings(cluster.environment)
        self.definitions = build_definitions(self.settings)
        self.opened = instance_of_process()
        self.instance = self.opened.__enter__()
        self.launcher = self.instance.run_launcher
        self.waiting = WaitingRuns()
        publish(self.instance, code_server_of(self.settings))

    def launch(self, month, delay=0.0, dataset="green"):
        self.source.pages[f"/{dataset}_tripdata_{month}.csv.gz"].delay = delay
        of = DatasetMonth.parse(dataset, month)
        options = IngestOptions(force=True, patient=True)
        job = month_job(self.definitions, of, options)
        run = create_run(self.instance, job, of, options, for_daemon=True)
        self.instance.submit_run(run.run_id, None)
        starting = dg.DagsterEvent(event_type_value="PIPELINE_STARTING", job_name=run.job_name)
        self.instance.report_dagster_event(starting, run_id=run.run_id)
        self.launcher.send(self.run(run.run_id))
        return run.run_id

    def run(self, run_id):
        return self.instance.get_run_by_id(run_id)

    def status(self, run_id):
        return self.run(run_id).status.value

    def taken(self, run_id):
        """The agent that works on the run, once it does."""
        wait_for(lambda: self.status(run_id) in ("STARTED", "SUCCESS", "FAILURE"), DEADLINE)
        return agent_of(self.run(run_id))

    def ends(self, run_id):
        wait_for(lambda: self.run(run_id).is_finished, DEADLINE)
        return self.status(run_id)

    def health(self, run_id):
        return self.launcher.check_run_worker_health(self.run(run_id))

    def problem(self, run_id, seconds=DEADLINE):
        """What run monitoring, which asks every few seconds, is told at last."""

        def failed():
            health = self.health(run_id)
            return health.msg if health.status.value == "FAILED" else None

        return wait_for(failed, seconds)

    def log(self, run_id):
        return [entry.message for entry in self.instance.all_logs(run_id)]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    redis_server()
    raw = tmp_path_factory.mktemp("source") / "raw.csv.gz"
    write_sample(DatasetMonth.parse("green", "2020-01"), 300, raw)
    with serving() as web:
        for month in range(1, 13):
            web.pages[f"/green_tripdata_2020-{month:02d}.csv.gz"] = Page(raw.read_bytes(), etag='"1"')
        yield web


@pytest.fixture(scope="module")
def cluster(source, tmp_path_factory):
    url = f"{source.url}/{{dataset}}_tripdata_{{month}}.csv.gz"
    folder = tmp_path_factory.mktemp("cluster")
    with running_cluster(folder, LOST_SECONDS, TAXI_SOURCE_URL=url, TAXI_DATASETS="green") as cluster:
        yield cluster


@pytest.fixture
def daemon(cluster, source, monkeypatch):
    for name, value in {**cluster.settings, "DAGSTER_HOME": str(cluster.home / "dagster")}.items():
        monkeypatch.setenv(name, value)
    SUSPICIONS.clear_all()
    daemon = Daemon(cluster, source)
    yield daemon
    daemon.opened.__exit__(None, None, None)
    for agent in cluster.agents:
        agent.end()


@pytest.mark.fault(108, 109)
def test_a_killed_process_is_noticed_and_a_slow_agent_is_not_taken_for_lost(cluster, daemon):
    agent = cluster.start_agent(slots=2).wait_until_ready()
    slow, killed = daemon.launch("2020-01", LONG), daemon.launch("2020-02", LONG)
    assert {daemon.taken(slow), daemon.taken(killed)} == {agent.name}
    agent.signal(signal.SIGSTOP)  # for longer than a ping waits, and less long than it may be silent
    looks = [daemon.health(slow).status.value for _ in range(3)]
    agent.signal(signal.SIGCONT)
    assert looks == ["RUNNING"] * 3
    os.kill(int(daemon.run(killed).tags[".dagster/taxi_process"].partition("/")[2].partition("@")[0]), signal.SIGKILL)
    assert "no longer has this run" in daemon.problem(killed)
    assert daemon.ends(slow) == "SUCCESS"


@pytest.mark.fault(108, 112)
def test_a_queue_counts_as_unserved_only_after_its_agent_has_been_silent_for_long(cluster, daemon):
    agent = cluster.start_agent().wait_until_ready()
    busy = daemon.launch("2020-12", LONGER)
    assert daemon.taken(busy) == agent.name
    waits = daemon.launch("2020-01")

    def looks(count):
        return [daemon.waiting.look(daemon.instance) for _ in range(count)]  # each takes 3 s where nobody answers

    served, silent = "1 agent serves default. Waiting: default: 1.", "No agent answers. Waiting: default: 1."
    agent.signal(signal.SIGSTOP)
    assert looks(3) == [silent] * 3
    agent.signal(signal.SIGCONT)
    assert looks(1) == [served]
    agent.signal(signal.SIGSTOP)
    assert looks(3) == [silent] * 3
    assert not any("No agent serves" in text for text in daemon.log(waits))
    wait_for(lambda: "No agent serves the queue default" in looks(1)[0], DEADLINE)
    assert [text for text in daemon.log(waits) if "No agent serves" in text] == [
        "No agent serves the queue default, in which this run waits. Start one: taxi agent --queues default"
    ]
    agent.signal(signal.SIGCONT)
    assert looks(1) == [served]
    for run in (waits, busy):
        daemon.instance.run_coordinator.cancel_run(run)
    assert daemon.ends(busy) == "CANCELED"


def test_an_agent_that_is_late_is_asked_again_before_its_queue_is_shown_as_unserved(cluster, daemon):
    agent = cluster.start_agent().wait_until_ready()
    agent.signal(signal.SIGSTOP)
    late = threading.Timer(ANSWER_SECONDS * 1.5, agent.signal, [signal.SIGCONT])
    late.start()
    shown = listing_of(daemon.instance, daemon.settings)
    late.join()
    assert [each.name for each in shown.agents] == [agent.name]
    assert shown.problems() == []


def test_agents_are_compared_with_the_code_server_not_with_the_settings_of_who_looks(cluster, daemon):
    agent = cluster.start_agent().wait_until_ready()
    done = cluster.taxi("agents", "--json", TAXI_REJECT="zero_passengers", TAXI_QUEUES="*=other")
    shown = json.loads(done.stdout)
    assert (done.returncode, shown["problems"]) == (0, [])
    assert [(each["name"], each["differs"]) for each in shown["agents"]] == [(agent.name, [])]
    assert "here is another TAXI_REJECT, another TAXI_QUEUES; shown are the agents of the code server" in shown["risks"]


@pytest.mark.fault(150)
def test_runs_that_wait_in_a_queue_that_was_renamed_go_to_the_new_one(cluster, daemon, monkeypatch):
    monkeypatch.setenv("TAXI_QUEUES", "*=old")
    runs = [daemon.launch(month) for month in ("2020-02", "2020-03")]
    monkeypatch.setenv("TAXI_QUEUES", "*=new")
    wait_for(lambda: "No agent serves old" in daemon.waiting.look(daemon.instance), DEADLINE)
    assert [queue.name for queue in known_queues(daemon.launcher.celery) if waiting(daemon.launcher.celery, queue)] == [
        "new"
    ]  # nothing is left in the old one, which would be shown as unserved for ever
    agent = cluster.start_agent("new").wait_until_ready()
    assert [daemon.ends(run) for run in runs] == ["SUCCESS"] * 2
    assert {agent_of(daemon.run(run)) for run in runs} == {agent.name}


@pytest.mark.fault(107)
@pytest.mark.soak
def test_an_agent_that_never_comes_back_is_noticed(cluster, daemon):
    agent = cluster.start_agent().wait_until_ready()
    run = daemon.launch("2020-03", LONG)
    assert daemon.taken(run) == agent.name
    agent.end()
    before = time.monotonic()
    assert f"has not answered for {LOST_SECONDS} s" in daemon.problem(run)
    assert time.monotonic() - before >= LOST_SECONDS


@pytest.mark.fault(113)
def test_an_agent_that_ends_answers_until_its_run_has_ended(cluster, daemon):
    agent = cluster.start_agent().wait_until_ready()
    run = daemon.launch("2020-04", LONG)
    assert daemon.taken(run) == agent.name
    agent.signal(signal.SIGTERM)
    wait_for(lambda: [each.is_ending for each in answering_agents(daemon.launcher.celery)] == [True])
    waits = daemon.launch("2020-05")
    while not daemon.run(run).is_finished:
        assert daemon.health(run).status.value == "RUNNING"
        time.sleep(1)
    assert daemon.status(run) == "SUCCESS"
    assert agent.process.wait(DEADLINE) == 0
    assert daemon.status(waits) == "STARTING"
    other = cluster.start_agent().wait_until_ready()
    assert daemon.ends(waits) == "SUCCESS"
    assert agent_of(daemon.run(waits)) == other.name


@pytest.mark.fault(113)
@pytest.mark.soak
def test_a_second_signal_interrupts_the_run_so_that_dagster_runs_it_again(cluster, daemon):
    agent = cluster.start_agent().wait_until_ready()
    run = daemon.launch("2020-06", LONG)
    assert daemon.taken(run) == agent.name
    for said in ("waits for 1 run", "Interrupts 1 run"):
        agent.signal(signal.SIGINT)
        wait_for(lambda said=said: said in agent.said)
    assert daemon.ends(run) == "FAILURE"
    assert daemon.run(run).tags["dagster/will_retry"] == "true"
    assert agent.process.wait(DEADLINE) == 0


@pytest.mark.fault(110, 112, 138)
def test_a_lost_message_is_sent_again_and_one_that_comes_twice_is_executed_once(cluster, daemon):
    run = daemon.launch("2020-07")
    unserved = "No agent answers. Waiting: default: 1. No agent serves the queue default."
    wait_for(lambda: unserved in daemon.waiting.look(daemon.instance), DEADLINE)
    assert any("No agent serves the queue default" in text for text in daemon.log(run))
    cluster.redis.forget()
    wait_for(lambda: "is sent again" in daemon.waiting.look(daemon.instance), DEADLINE)
    daemon.source.pages["/green_tripdata_2020-07.csv.gz"].delay = LONG
    (queue,) = cluster.redis.client.keys("taxi.default.*")
    cluster.redis.client.lpush(queue, cluster.redis.client.lindex(queue, 0))
    agent = cluster.start_agent(slots=2).wait_until_ready()
    assert daemon.taken(run) == agent.name
    while not daemon.run(run).is_finished:
        assert daemon.health(run).status.value == "RUNNING"  # it is not lost when the second message is done with
        time.sleep(1)
    assert daemon.status(run) == "SUCCESS"
    wait_for(lambda: not answering_agents(daemon.launcher.celery)[0].tasks)
    assert [text for text in daemon.log(run) if "has taken the run" in text] == [
        f"The agent {agent.name} has taken the run."
    ]


@pytest.mark.fault(115)
def test_a_run_is_canceled_while_it_waits_and_while_it_runs(cluster, daemon):
    waits = daemon.launch("2020-08")
    assert daemon.instance.run_coordinator.cancel_run(waits)  # what the UI calls
    assert daemon.status(waits) == "CANCELED"
    assert not cluster.redis.client.keys("taxi.default.*")  # it is not counted as waiting either
    agent = cluster.start_agent().wait_until_ready()
    run = daemon.launch("2020-09", LONG)
    assert daemon.taken(run) == agent.name
    assert daemon.instance.run_coordinator.cancel_run(run)
    assert daemon.ends(run) == "CANCELED"
    assert daemon.status(waits) == "CANCELED"


@pytest.mark.fault(115)
def test_a_run_is_canceled_in_the_moment_in_which_an_agent_takes_it(cluster, daemon):
    early, late = daemon.launch("2020-08"), daemon.launch("2020-10")
    tasks = {run: task_of(daemon.run(run)) for run in (early, late)}
    assert claim(daemon.launcher.celery, tasks[late], "an agent")  # which has not stored yet that it has it
    for run in (early, late):
        assert daemon.instance.run_coordinator.cancel_run(run)
    # Nobody can begin the one any more. The other begins, and is interrupted.
    assert (daemon.status(early), daemon.status(late)) == ("CANCELED", "CANCELING")
    assert not claim(daemon.launcher.celery, tasks[early], "an agent")
    daemon.instance.report_run_canceled(daemon.run(late))


@pytest.mark.fault(115)
def test_a_run_that_ends_while_it_is_being_canceled_stays_ended(daemon, monkeypatch):
    run = daemon.launch("2020-12")

    def is_taken_and_ends(*_):
        ended = dg.DagsterEvent(event_type_value="PIPELINE_SUCCESS", job_name=daemon.run(run).job_name)
        daemon.instance.report_dagster_event(ended, run_id=run)
        return False

    monkeypatch.setattr(daemon.launcher, "_keep_from_agents", is_taken_and_ends)
    daemon.instance.run_coordinator.cancel_run(run)
    assert daemon.status(run) == "SUCCESS"


@pytest.mark.fault(107)
def test_the_loss_of_an_agent_is_noticed_although_another_has_left_its_tag_on_the_run(cluster, daemon):
    agent = cluster.start_agent().wait_until_ready()
    run = daemon.launch("2020-03", LONGER)
    assert daemon.taken(run) == agent.name
    # By an agent that was cut off between its claim and its tag, and came back after the run was sent again.
    daemon.instance.add_run_tags(run, {AGENT_TAG: f"another@machine {run}.0000000"})
    assert daemon.health(run).status.value == "RUNNING"
    agent.crash()
    assert f"has not answered for {LOST_SECONDS} s" in daemon.problem(run)


@pytest.mark.fault(158)
def test_a_run_that_is_canceled_while_the_broker_is_down_is_interrupted_when_it_is_back(cluster, daemon):
    cluster.start_agent().wait_until_ready()
    run = daemon.launch("2020-11", LONG)
    daemon.taken(run)
    cluster.redis.stop()
    assert daemon.instance.run_coordinator.cancel_run(run)
    assert daemon.status(run) == "CANCELING"
    cluster.redis.start()

    def is_interrupted():
        with suppress(BrokerDown):
            daemon.waiting.look(daemon.instance)
        return daemon.run(run).is_finished

    wait_for(is_interrupted)
    assert daemon.status(run) == "CANCELED"


@pytest.mark.fault(111)
@pytest.mark.soak
def test_an_agent_with_other_settings_says_so_and_takes_nothing(cluster, daemon):
    other = cluster.start_agent(TAXI_REJECT="zero_passengers").wait_until_ready()
    assert "This agent takes nothing: it has another TAXI_REJECT" in other.said
    run = daemon.launch("2020-10")
    shown = listing_of(daemon.instance, daemon.settings)
    assert shown.unserved[0].waiting == 1
    assert f"The agent {other.name} takes nothing: it has another TAXI_REJECT" in " ".join(shown.problems())
    assert daemon.status(run) == "STARTING"
    same = cluster.start_agent().wait_until_ready()
    assert "as the code server has it" in same.said
    assert daemon.ends(run) == "SUCCESS"
