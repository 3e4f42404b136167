"""Agents as processes, a real Redis, PostgreSQL and `taxi dev`: something is killed, frozen or stopped on the way, and
every month ends loaded once."""

import json
import signal
import subprocess
import time
from contextlib import ExitStack, contextmanager
from datetime import date

import pytest

from taxi_platform.marts.tables import mart_names
from taxi_platform.sources.sample.writing import write_sample
from taxi_platform.trips.locks import lock_file
from taxi_platform.trips.months import Dataset, DatasetMonth, newest_month
from taxi_platform_tests.support.agents import Month, redis_server, running_cluster
from taxi_platform_tests.support.network import network
from taxi_platform_tests.support.notification_receivers import web_hook
from taxi_platform_tests.support.system import TAXI, wait_for
from taxi_platform_tests.support.taxi_dev import ASSETS, taxi_dev
from taxi_platform_tests.support.web_server import Page, serving

pytestmark = pytest.mark.slow

LOST_SECONDS = 20
LONG = 12.0
"""Seconds that the source takes to answer for a run that shall be met at work; it is asked twice."""
LONGER = 25.0
"""For runs that are killed at work, so that nothing waits for them, and must be at work together on a busy machine."""
DEADLINE = 240


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    redis_server()
    with serving() as web:
        publish_months(web, tmp_path_factory.mktemp("source") / "raw.csv.gz")
        yield web


def publish_months(web, raw):
    """Months of 300 rows, the same bytes for each; a page's `delay` keeps a run of its month waiting."""
    for dataset in ("green", "yellow"):
        write_sample(DatasetMonth.parse(dataset, "2020-01"), 300, raw)
        for month in range(1, 13):
            web.pages[f"/{dataset}_tripdata_2020-{month:02d}.csv.gz"] = Page(raw.read_bytes(), etag='"1"')


def settings_of(web):
    return {
        "TAXI_SOURCE_URL": f"{web.url}/{{dataset}}_tripdata_{{month}}.csv.gz",
        "TAXI_DATASETS": "yellow,green",
        "TAXI_QUEUES": "yellow=heavy,*=default",
        "TAXI_SCHEDULE": "* * * * *",  # for schedules that are turned on
    }


@pytest.fixture(scope="module")
def hook():
    with web_hook() as hook:
        yield hook


@pytest.fixture(scope="module")
def cluster(source, hook, tmp_path_factory):
    settings = {**settings_of(source), "TAXI_NOTIFY_URLS": f"json://{hook.address}/hook"}
    with running_cluster(tmp_path_factory.mktemp("cluster"), LOST_SECONDS, **settings) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def platform(cluster):
    with taxi_dev(cluster.home, **cluster.settings) as platform:
        yield platform


@pytest.fixture(autouse=True)
def no_agents_left(cluster):
    yield
    for agent in cluster.agents:
        agent.end()


@pytest.fixture
def month(cluster, platform, source):
    """Backfills one month: `month("green", 1, delay=20)`."""
    return lambda dataset, number, delay=0.0: Month(cluster, platform, source, dataset, number, delay)


@pytest.mark.fault(112)
def test_each_dataset_goes_to_its_queue_and_a_queue_that_nobody_serves_is_named(cluster, month):
    default = cluster.start_agent("default").wait_until_ready()
    green, yellow = month("green", 1), month("yellow", 1)
    green.wait("SUCCESS")
    assert green.agent() == default.name
    wait_for(lambda: "No agent serves the queue heavy, in which this run waits" in yellow.log(), DEADLINE)
    assert yellow.statuses() == ["STARTING"]
    shown, status = shown_with_agents(cluster, 1)
    assert status == 1
    unserved = "No agent serves the queue heavy; 1 run waits in it. Start one: taxi agent --queues heavy"
    assert shown["problems"] == [unserved]
    assert {queue["name"]: (queue["waiting"], queue["agents"]) for queue in shown["queues"]} == {
        "default": (0, [default.name]),
        "heavy": (1, []),
    }
    # A message that is delivered twice, as after a network failure, is executed once.
    (queue,) = cluster.redis.client.keys("taxi.heavy.*")
    cluster.redis.client.lpush(queue, cluster.redis.client.lindex(queue, 0))
    heavy = cluster.start_agent("heavy", 2).wait_until_ready()
    yellow.wait("SUCCESS")
    assert yellow.agent() == heavy.name
    wait_for(lambda: not any(agent["runs"] for agent in shown_with_agents(cluster, 2)[0]["agents"]), DEADLINE)
    assert yellow.log().count("has taken the run") == 1
    assert shown_with_agents(cluster, 2)[1] == 0


def shown_with_agents(cluster, count):
    """What `taxi agents` shows, and its exit status, once so many agents answer: on a busy machine one may be late."""
    return wait_for(lambda: (shown := cluster.agents_shown()) and len(shown[0]["agents"]) == count and shown, DEADLINE)


def elsewhere(cluster, slots):
    """An agent whose runs look from here as if on another machine, so that only its silence tells of its end."""
    with hostname_of_its_own():
        agent = cluster.start_agent(slots=slots, prefix=("unshare", "--uts")).wait_until_ready()
        subprocess.run(["nsenter", "-t", str(agent.process.pid), "--uts", "hostname", "elsewhere"], check=True)
    return agent


@pytest.mark.fault(107)
def test_the_runs_of_an_agent_that_is_killed_and_never_returns_are_run_by_another(cluster, month):
    lost = elsewhere(cluster, slots=2)
    months = [month("green", 3, LONGER), month("green", 4, LONGER)]
    assert {each.agent() for each in months} == {lost.name}
    for each in months:
        each.page.delay = 0
    lost.signal(signal.SIGKILL)
    other = cluster.start_agent(slots=2).wait_until_ready()
    for each in months:
        each.wait("FAILURE", "SUCCESS")
        assert each.agent() == other.name


@pytest.mark.fault(110)
@pytest.mark.soak
def test_a_broker_that_is_down_and_forgets_loses_no_run(cluster, month):
    cluster.start_agent().wait_until_ready()
    # Asked for at once, as the daemon looks for backfills each 5 s: the agent has one slot, so one of the two waits.
    both = [month("green", 9, LONG), month("green", 10, LONG)]
    wait_for(lambda: sorted(each.statuses() for each in both) == [["STARTED"], ["STARTING"]], DEADLINE)
    running, waiting = sorted(both, key=lambda each: each.statuses() == ["STARTING"])
    cluster.redis.forget()
    cluster.redis.stop()
    asked = month("green", 11)
    time.sleep(10)
    cluster.redis.start()
    for each in (running, waiting, asked):
        each.wait("SUCCESS")
    assert waiting.log().count("The run waits for an agent") == 2  # it was sent again


@pytest.mark.fault(114)
@pytest.mark.soak
def test_a_storage_that_restarts_loses_no_run(cluster, month):
    agent = cluster.start_agent().wait_until_ready()
    green = month("green", 12, 5)
    assert green.agent() == agent.name
    cluster.postgres.restart()
    wait_for(lambda: green.statuses()[-1] == "SUCCESS", DEADLINE)  # the UI answers at once


@pytest.mark.fault(114)
def test_a_step_waits_for_a_storage_that_is_down_for_longer_than_dagster_tries(cluster, month):
    cluster.start_agent().wait_until_ready()
    folder = cluster.home / "views"
    folder.mkdir(exist_ok=True)
    with lock_file(folder / "refresh.lock", "the views", DEADLINE):  # holds the step between its log and its output
        green = month("green", 7)
        wait_for(lambda: green.runs and "rows clean" in green.log(), DEADLINE)
        cluster.postgres.stop()
    time.sleep(18)  # Dagster tries for 11 s; within another 11 s it would store that the step has failed
    cluster.postgres.start()
    wait_for(lambda: green.statuses() == ["SUCCESS"], DEADLINE)


@pytest.mark.fault(115)
@pytest.mark.soak
def test_a_run_that_waits_for_an_agent_is_canceled_from_the_ui_and_no_agent_takes_it(cluster, month, platform):
    waiting = month("yellow", 2)  # nobody serves its queue
    wait_for(lambda: waiting.statuses() == ["STARTING"], DEADLINE)
    # Dagster lets a run that has not begun be ended by force only: "Force termination immediately" in the UI.
    assert terminate(platform, waiting, "MARK_AS_CANCELED_IMMEDIATELY") == "TerminateRunSuccess"
    waiting.wait("CANCELED")
    heavy = cluster.start_agent("heavy").wait_until_ready()
    later = month("yellow", 3)
    later.wait("SUCCESS")
    assert later.agent() == heavy.name
    assert waiting.statuses() == ["CANCELED"]


@pytest.mark.fault(115)
def test_a_run_at_work_on_an_agent_is_canceled_from_the_ui_and_not_run_again(cluster, month, platform):
    agent = cluster.start_agent().wait_until_ready()
    green = month("green", 6, LONG)
    assert green.agent() == agent.name
    wait_for(lambda: green.statuses() == ["STARTED"])
    assert terminate(platform, green) == "TerminateRunSuccess"
    green.wait("CANCELED")
    assert "2020-06" not in platform.materialized("green/clean_trips")
    assert not list((cluster.home / "lake" / "clean" / "green").glob("month=2020-06/*"))
    # The same agent loads the month when it is asked again; nobody has done so meanwhile.
    month("green", 6).wait("SUCCESS")
    assert green.statuses() == ["CANCELED"]


@pytest.mark.fault(158, 159)
def test_backfills_are_canceled_while_the_broker_is_down_and_their_runs_work_or_wait(cluster, month, platform):
    cluster.start_agent("heavy").wait_until_ready()
    both = [month("yellow", 4, LONGER), month("yellow", 5, LONGER)]  # the agent has one slot, so one of them waits
    wait_for(lambda: sorted(each.statuses() for each in both) == [["STARTED"], ["STARTING"]], DEADLINE)
    unserved = month("green", 5)
    wait_for(lambda: unserved.statuses() == ["STARTING"], DEADLINE)
    cluster.redis.stop()
    for each in (*both, unserved):
        platform.cancel_backfill(each.backfill)
    wait_for(lambda: ["CANCELING"] in [each.statuses() for each in both], DEADLINE)
    later = month("yellow", 6)
    wait_for(lambda: later.statuses() == ["QUEUED"], DEADLINE)  # the daemon does not wait for those
    cluster.redis.start()
    for each in (*both, unserved):
        each.wait("CANCELED")
        wait_for(lambda each=each: platform.backfill_status(each.backfill) == "CANCELED", DEADLINE)
    later.wait("SUCCESS")
    assert not {each.month for each in both} & platform.materialized("yellow/clean_trips")


def terminate(platform, month, policy="SAFE_TERMINATE"):
    query = """mutation($id: String!, $policy: TerminateRunPolicy) { terminateRun(runId: $id, terminatePolicy: $policy)
               { __typename ... on TerminateRunFailure { message } } }"""
    answer = platform.ask(query, id=month.runs[-1]["runId"], policy=policy)["terminateRun"]
    return answer.get("message", answer["__typename"])


@contextmanager
def hostname_of_its_own():
    """A prefix that runs a command as on a machine of another name; skips where that is not permitted."""
    command = ("unshare", "--uts", "sh", "-c", 'hostname elsewhere && exec "$@"', "sh")
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("another host name is not permitted here")
    yield command


@pytest.mark.fault(106)
def test_an_agent_on_another_machine_refuses_a_local_lake_and_says_why(cluster, platform):
    with hostname_of_its_own() as prefix:
        refused = cluster.start_agent(prefix=prefix)
        assert refused.process.wait(DEADLINE) == 2
    assert "An agent on elsewhere cannot share the TAXI_LAKE_URL file://" in refused.said
    assert "Use a lake in a bucket (gs://…)" in refused.said


def test_months_that_are_queued_from_the_command_line_are_followed_to_their_end(cluster, platform):
    agent = cluster.start_agent(slots=2).wait_until_ready()
    arguments = ("ingest", "green", "2020-03", "2020-04", "--through-dagster", "--json")
    done = cluster.taxi(*arguments, "--force")
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert [(each["month"], each["status"], each["rows_in_table"]) for each in results] == [
        ("2020-03", "loaded", 299),
        ("2020-04", "loaded", 299),
    ]
    for each in results:
        assert cluster.tag(each["run_id"], ".dagster/taxi_agent").startswith(f"{agent.name} ")
    assert [each["status"] for each in json.loads(cluster.taxi(*arguments).stdout)] == ["unchanged", "unchanged"]


def test_what_a_schedule_and_a_sensor_ask_for_is_executed_by_agents(cluster, platform, source):
    newest = newest_month(date.today())
    for dataset in ("green", "yellow"):
        body = source.pages[f"/{dataset}_tripdata_2020-01.csv.gz"].body
        source.pages[f"/{dataset}_tripdata_{newest}.csv.gz"] = Page(body, etag='"1"')
    agents = {"green": cluster.start_agent().wait_until_ready(), "yellow": cluster.start_agent("heavy")}
    agents["yellow"].wait_until_ready()
    started = {"green": ("Sensor", "green_publication"), "yellow": ("Schedule", "yellow_schedule")}
    with ExitStack() as until_end:
        for instigator in started.values():
            until_end.enter_context(platform.switched_on(*instigator))
        for dataset, instigator in started.items():
            run = wait_for(lambda of=instigator: run_asked_for(cluster, platform, *of, newest), DEADLINE)
            wait_for(lambda run=run: cluster.status_of(run) == "SUCCESS", DEADLINE)
            assert cluster.tag(run, ".dagster/taxi_agent").startswith(f"{agents[dataset].name} ")
            assert str(newest) in platform.materialized(f"{dataset}/trips")


def run_asked_for(cluster, platform, kind, name, month):
    """The id of the month's run, once a tick of the schedule or sensor has asked for it."""
    runs = [run for tick in platform.ticks(kind, name) for run in tick.get("runIds", ())]
    return next((run for run in runs if cluster.tag(run, "dagster/partition") == str(month)), None)


@pytest.mark.soak
def test_runs_on_agents_send_one_message_of_their_success_or_failure(cluster, month, source, hook):
    cluster.start_agent().wait_until_ready()
    source.pages["/green_tripdata_2020-02.csv.gz"].body = b"<html>Too many requests</html>"
    good, bad = month("green", 8), month("green", 2)
    good.wait("SUCCESS")
    bad.wait("FAILURE")
    expected = {"green 2020-08": "taxi: green 2020-08 loaded", "green 2020-02": "taxi: green 2020-02 failed"}

    def titles():
        about = [body["title"] for _, _, body in hook.requests]
        return sorted(title for title in about if any(each in title for each in expected))

    wait_for(lambda: len(titles()) >= 2, DEADLINE)
    assert titles() == sorted(expected.values())
    assert any("Rows of green: " in message and good.runs[0]["runId"] in message for message in hook.messages())


@pytest.mark.soak
def test_ctrl_c_stops_following_and_the_run_goes_on(cluster, platform, source):
    agent = cluster.start_agent().wait_until_ready()
    page = source.pages["/green_tripdata_2020-05.csv.gz"]
    page.delay = LONG
    command = [str(TAXI), "ingest", "green", "2020-05", "--through-dagster", "--force", "--json"]
    with subprocess.Popen(
        command, env=cluster.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        (run_id,) = wait_for(lambda: cluster.running_on(agent), DEADLINE)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE)
    page.delay = 0
    assert process.returncode == 130
    assert "The runs go on; they can be canceled in the UI." in err
    (result,) = json.loads(out)
    assert (result["status"], result["run_id"]) == ("queued", run_id)
    wait_for(lambda: not cluster.running_on(agent), DEADLINE)
    assert cluster.status_of(run_id) == "SUCCESS"


def test_a_broker_that_does_not_answer_is_named_without_its_password(cluster):
    done = cluster.taxi("agents", TAXI_BROKER_URL="redis://:s3cret@127.0.0.1:1/0")
    assert done.returncode == 1
    assert "The broker redis://:**@127.0.0.1:1/0 does not answer" in done.stderr
    assert "s3cret" not in done.stderr


@pytest.mark.fault(134)
@pytest.mark.soak
def test_an_agent_that_is_cut_off_loses_its_run_to_another_and_comes_back(tmp_path):
    redis_server()
    with network() as switch, serving(address=switch.address) as web:
        publish_months(web, tmp_path / "raw.csv.gz")
        with (
            running_cluster(tmp_path / "cluster", LOST_SECONDS, switch.address, **settings_of(web)) as cluster,
            taxi_dev(cluster.home, **cluster.settings) as platform,
        ):
            wait_for(
                lambda: platform.ticks("Sensor", "agents")[0].get("status")
            )  # has said which machine is the server
            hosts = [switch.add_host(), switch.add_host()]
            cut = cluster.start_agent(prefix=hosts[0].prefix).wait_until_ready()
            green = Month(cluster, platform, web, "green", 1, LONG, [*ASSETS, *mart_names(Dataset.GREEN)])
            assert green.agent() == cut.name
            wait_for(lambda: green.statuses() == ["STARTED"])
            hosts[0].cut_off()
            green.page.delay = 0
            other = cluster.start_agent(prefix=hosts[1].prefix).wait_until_ready()
            # Both share the lake's folder, so the other waits until the first has given up the storage.
            green.wait("FAILURE", "SUCCESS", seconds=900)
            assert green.agent() == other.name

            hosts[0].reconnect()
            idle = {cut.name: [], other.name: []}
            wait_for(
                lambda: {each["name"]: each["runs"] for each in cluster.agents_shown()[0]["agents"]} == idle, DEADLINE
            )
            assert green.statuses() == ["FAILURE", "SUCCESS"]
            assert cluster.taxi("audit").returncode == 0

            other.crash()
            later = Month(cluster, platform, web, "green", 2)
            later.wait("SUCCESS")
            assert later.agent() == cut.name
