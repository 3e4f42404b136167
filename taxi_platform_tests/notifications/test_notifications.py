"""Messages about runs, with real runs, a real web hook and a real mail server."""

import io
import json
import logging
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from types import SimpleNamespace

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent, JobFailureData

from taxi_platform.definitions import build_definitions
from taxi_platform.notifications.channels import Message, check_notify_urls, open_channels, send_test
from taxi_platform.notifications.delivery import PATIENCE, TAG_SECONDS, deliver_notifications, note_finished_runs
from taxi_platform.notifications.outbox import GIVE_UP, KEEP, Outbox, deliver
from taxi_platform.notifications.sensors import build_notifications
from taxi_platform.runs.history import latest_failures
from taxi_platform.runs.ingest import ingest_month
from taxi_platform.runs.instance import open_instance
from taxi_platform.settings import load_settings
from taxi_platform.trips.errors import SettingError
from taxi_platform.trips.months import Dataset, DatasetMonth
from taxi_platform_tests.support.notification_receivers import mail_box, web_hook

pytestmark = pytest.mark.slow
GREEN = DatasetMonth.parse("green", "2020-04")
SECRET = "canary-5f0c2a"
UI = "http://127.0.0.1:3000"


@pytest.fixture
def hook():
    with web_hook() as hook:
        yield hook


@pytest.fixture
def outbox(tmp_path):
    return Outbox(tmp_path / "home")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """One dataset, for a definition of four takes a second longer, and a month of 300 trips."""
    monkeypatch.setenv("TAXI_DATASETS", "green")
    monkeypatch.setenv("TAXI_SOURCE_URL", "sample://?rows=300")


@pytest.fixture
def platform(monkeypatch, hook):
    """An instance, the month's job and the sensor, which notifies `hook`; `tick()` evaluates it as the daemon does."""
    monkeypatch.setenv("TAXI_NOTIFY_URLS", f"json://{hook.address}/hook")
    (sensor,) = build_notifications(load_settings())
    cursors = [None]

    def tick():
        result = sensor.evaluate_tick(dg.build_sensor_context(instance=instance, cursor=cursors[-1]))
        cursors.append(result.cursor)
        return result.skip_message

    definitions = build_definitions(load_settings())
    with open_instance(load_settings()) as instance:
        yield SimpleNamespace(
            instance=instance,
            definitions=definitions,
            job=definitions.resolve_job_def("green_ingest"),
            ingest=lambda: ingest_month(instance, definitions, GREEN),
            tick=tick,
        )


@pytest.fixture
def logged():
    """All that reaches the root logger, down to debug; pytest's own capture also taps loggers that pass nothing on."""
    root, text = logging.getLogger(), io.StringIO()
    handler, level = logging.StreamHandler(text), root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield text
    root.removeHandler(handler)
    root.setLevel(level)


def publish(monkeypatch, folder, content):
    """Let the source be a folder that holds this file for April 2020."""
    (folder / "green_2020-04.csv.gz").write_bytes(content)
    monkeypatch.setenv("TAXI_SOURCE_URL", f"file://{folder}/{{dataset}}_{{month}}.csv.gz")


def query(outbox, sql):
    with sqlite3.connect(outbox.folder / "outbox.db") as con:
        return con.execute(sql).fetchall()


def test_a_loaded_month_is_announced_once_by_web_hook_and_mail(monkeypatch, hook):
    with mail_box(SECRET) as box:
        monkeypatch.setenv("TAXI_NOTIFY_URLS", f"json://{hook.address}/hook {box.url}")
        monkeypatch.setenv("TAXI_UI_URL", "https://dagster.example.org/taxi/")
        settings = load_settings()
        (sensor,) = build_notifications(settings)
        with open_instance(settings) as instance:
            run_id = ingest_month(instance, build_definitions(settings), GREEN).run_id
            first = sensor.evaluate_tick(dg.build_sensor_context(instance=instance))
            again = sensor.evaluate_tick(dg.build_sensor_context(instance=instance, cursor=first.cursor))
    assert (first.skip_message, again.skip_message) == ("2 messages sent, 0 waiting.", "0 messages sent, 0 waiting.")
    ((_, headers, posted),) = hook.requests
    assert posted["title"] == "taxi: green 2020-04 loaded"
    assert posted["type"] == "success"
    assert posted["message"].splitlines() == [
        "green 2020-04 was loaded.",
        "Rows of green: 300 read, 299 clean, 1 rejected, 299 in the table",
        f"Run: https://dagster.example.org/taxi/runs/{run_id}",
        f"Message id: {run_id}.success",
    ]
    (mail,) = box.mails
    assert mail["Subject"] == "taxi: green 2020-04 loaded"
    assert mail.get_content_type() == "text/plain"
    assert mail.get_content().splitlines() == posted["message"].splitlines()
    assert mail["X-Taxi-Message-Id"] == headers["X-Taxi-Message-Id"] == f"{run_id}.success"


def test_a_run_that_found_nothing_new_is_quiet(platform, hook):
    platform.ingest()
    platform.tick()
    assert platform.ingest().succeeded
    assert platform.tick() == "0 messages sent, 0 waiting."
    assert len(hook.requests) == 1


def test_a_month_that_is_not_published_is_quiet(platform, hook, monkeypatch, tmp_path):
    monkeypatch.setenv("TAXI_SOURCE_URL", f"file://{tmp_path}/{{dataset}}_{{month}}.csv.gz")
    assert platform.ingest().succeeded
    platform.tick()
    assert hook.requests == []


def test_a_canceled_run_is_quiet(platform, hook):
    run = platform.instance.create_run_for_job(platform.job, tags={"dagster/partition": "2020-04"})
    platform.instance.report_run_canceled(run)
    platform.tick()
    assert hook.requests == []


def test_a_failure_is_announced_with_its_first_line_and_the_remedy(platform, hook, monkeypatch, tmp_path):
    publish(monkeypatch, tmp_path, b"<html>Too many requests</html>")
    outcome = platform.ingest()
    platform.tick()
    ((_, _, posted),) = hook.requests
    assert (posted["title"], posted["type"]) == ("taxi: green 2020-04 failed", "failure")
    lines = posted["message"].splitlines()
    assert lines[0] == "green 2020-04 failed."
    assert lines[1].startswith("Problem: ") and "HTML" in lines[1]
    assert lines[2].startswith("What to do: ") and len(lines[2]) > 20
    assert lines[3:] == [f"Run: {UI}/runs/{outcome.run_id}", f"Message id: {outcome.run_id}.failure"]
    assert "Traceback" not in posted["message"]


@pytest.mark.fault(171)
def test_a_lake_that_cannot_be_locked_is_the_problem_of_result_status_and_message(platform, hook, tmp_path):
    """The lock is taken before the first step, so no step fails."""
    (tmp_path / "home/lake").mkdir(parents=True)
    (tmp_path / "home/lake/.locks").touch()
    said = f"Cannot write file://{tmp_path}/home/lake/.locks: File exists. A file is in the place of a folder"
    assert platform.ingest().problem.startswith(said)
    assert latest_failures(platform.instance, [Dataset.GREEN], 1)[GREEN].startswith(said)
    platform.tick()
    ((_, _, posted),) = hook.requests
    assert posted["message"].splitlines()[1].replace("`", "").startswith(f"Problem: {said}")


def test_a_failed_check_is_announced_as_the_problem(platform, hook, tmp_path):
    platform.ingest()
    (manifest,) = tmp_path.glob("home/lake/raw/green/2020-04/manifest.json")
    content = json.loads(manifest.read_text())
    content["versions"][0]["rows"] += 1
    del content["digest"]  # as whoever edits it on purpose does
    manifest.write_text(json.dumps(content))
    assert not platform.ingest().succeeded
    platform.tick()
    lines = hook.messages()[1].splitlines()
    assert lines[0] == "green 2020-04 failed."
    assert lines[1].startswith("Problem: rows_accounted_for: ")
    assert "301 rows were read, but 299 are clean and 1 rejected" in lines[1]


def test_an_unexpected_error_is_one_line_without_control_characters_or_secrets(platform, hook):
    @dg.op
    def breaks():
        raise ValueError(
            f"\x1b[31mno answer from https://me:{SECRET}@host/x?sig={SECRET} password={SECRET} {'x' * 9999}\nmore"
        )

    @dg.job(name="green_ingest")
    def green_ingest():
        breaks()

    green_ingest.execute_in_process(
        instance=platform.instance, raise_on_error=False, tags={"dagster/partition": "2020-04"}
    )
    platform.tick()
    problem = hook.messages()[0].splitlines()[1]
    assert problem.startswith("Problem: ValueError:  `[31mno` answer from `https://***@host/x?***` `password=***` xxx")
    assert len(hook.messages()[0]) < 1000
    assert SECRET not in hook.messages()[0]


def test_a_killed_run_is_announced_with_what_to_do(platform, hook):
    tags = {"dagster/partition": "2020-04", "dagster/max_retries": "0"}
    run = platform.instance.create_run_for_job(platform.job, tags=tags)
    platform.instance.report_run_failed(run, "The process of this run was killed. Run the month again.")
    platform.tick()
    assert "Problem: The process of this run was killed. Run the month again." in hook.messages()[0].splitlines()


def test_a_run_from_the_uis_asset_pages_is_announced_too(platform, hook):
    names = ("raw_file", "clean_trips", "rejected_trips", "trips")
    job = platform.definitions.resolve_implicit_global_asset_job_def()
    done = job.execute_in_process(
        instance=platform.instance,
        partition_key="2020-04",
        asset_selection=[dg.AssetKey(["green", name]) for name in names],
    )
    assert done.success
    assert platform.instance.get_run_by_id(done.run_id).job_name == "__ASSET_JOB"
    platform.tick()
    assert hook.requests[0][2]["title"] == "taxi: green 2020-04 loaded"


def test_a_run_of_another_job_is_ignored(platform, hook):
    @dg.job
    def elsewhere():
        dg.op(name="nothing")(lambda: None)()

    elsewhere.execute_in_process(instance=platform.instance)
    assert platform.tick() == "0 messages sent, 0 waiting."


@pytest.fixture
def retried(platform, monkeypatch, tmp_path):
    """A failed run that Dagster has announced to retry."""
    publish(monkeypatch, tmp_path, b"<html>Too many requests</html>")
    done = platform.job.execute_in_process(
        instance=platform.instance,
        partition_key="2020-04",
        tags={"dagster/retry_on_asset_or_op_failure": "true"},
        raise_on_error=False,
    )
    assert platform.instance.get_run_by_id(done.run_id).tags["dagster/will_retry"] == "true"
    return done.run_id


def test_of_a_failure_that_is_retried_only_the_last_one_is_announced(platform, hook, retried):
    assert platform.tick() == "0 messages sent, 0 waiting."
    again = platform.job.execute_in_process(
        instance=platform.instance,
        partition_key="2020-04",
        raise_on_error=False,
        tags={"dagster/max_retries": "1", "dagster/parent_run_id": retried, "dagster/root_run_id": retried},
    )
    platform.instance.add_run_tags(again.run_id, {"dagster/will_retry": "false"})
    platform.instance.add_run_tags(retried, {"dagster/auto_retry_run_id": again.run_id})
    platform.tick()
    platform.tick()
    (message,) = hook.messages()
    assert message.endswith(f"Message id: {again.run_id}.failure")


def test_a_retry_that_never_begins_is_announced_after_a_while(platform, hook, outbox, retried):
    urls = load_settings().notify_urls
    now = time.time()
    assert note_finished_runs(platform.instance, outbox, urls, UI, now - 60, now) == now - 60
    assert outbox.known() == set()
    note_finished_runs(platform.instance, outbox, urls, UI, now - 60, now + PATIENCE + 60)
    assert deliver(outbox, urls, print, now + PATIENCE + 60) == 1
    assert "A retry was announced but has not started." in hook.messages()[0].splitlines()


def test_a_retry_that_could_not_be_launched_is_announced_at_once(platform, hook, retried):
    platform.tick()
    platform.instance.add_run_tags(retried, {"dagster/will_retry": "false"})  # as Dagster's daemon does
    platform.tick()
    assert hook.requests[0][2]["title"] == "taxi: green 2020-04 failed"


def test_a_failure_waits_for_the_tag_that_announces_a_retry(platform, hook, outbox):
    instance, urls = platform.instance, load_settings().notify_urls
    run = instance.create_run_for_job(platform.job, tags={"dagster/partition": "2020-04"})
    event = DagsterEvent(dg.DagsterEventType.RUN_FAILURE.value, run.job_name, event_specific_data=JobFailureData(None))
    instance.run_storage.handle_run_event(run.run_id, event)  # Dagster writes the tag after this, if it still can
    now = time.time()
    note_finished_runs(instance, outbox, urls, UI, now - 60, now)
    assert outbox.known() == set()
    note_finished_runs(instance, outbox, urls, UI, now - 60, now + TAG_SECONDS)
    assert outbox.known() == {f"{run.run_id}.failure"}


def test_no_run_is_missed_while_the_outbox_cannot_be_written(platform, hook, outbox):
    platform.tick()
    moved = outbox.folder.rename(outbox.folder.with_name("away"))
    outbox.folder.write_text("not a folder")
    platform.ingest()
    with pytest.raises(Exception, match="notifications"):
        platform.tick()
    outbox.folder.unlink()
    moved.rename(outbox.folder)
    assert platform.tick() == "1 messages sent, 0 waiting."


MESSAGE = Message("run-1.success", "taxi: green 2020-04 loaded", "green 2020-04 was loaded.")
CHILD = """
import os, signal, sys, time
from pathlib import Path
from taxi_platform.notifications.outbox import Outbox, deliver

home, url, how = sys.argv[1:]
if how == "killed":
    Outbox.record = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
print("ready", flush=True)
sys.stdin.readline()
print(deliver(Outbox(Path(home)), [url], print))
"""


def child(outbox, url, how):
    command = [sys.executable, "-c", CHILD, str(outbox.folder.parent), url, how]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def test_killed_between_send_and_record_it_sends_once_more_with_the_same_id(hook, outbox):
    url = f"json://{hook.address}/hook"
    outbox.add(MESSAGE, open_channels([f"json://{hook.address}/hook"]), time.time())
    process = child(outbox, url, "killed")
    process.communicate("go\n", timeout=300)
    assert process.returncode == -signal.SIGKILL
    assert len(hook.requests) == 1
    assert deliver(outbox, [url], print) == 1
    assert deliver(outbox, [url], print) == 0
    assert [headers["X-Taxi-Message-Id"] for _, headers, _ in hook.requests] == [MESSAGE.id, MESSAGE.id]
    assert hook.messages() == [MESSAGE.body, MESSAGE.body]


def test_two_processes_that_deliver_at_once_send_once(hook, outbox):
    hook.seconds = 1
    outbox.add(MESSAGE, open_channels([f"json://{hook.address}/hook"]), time.time())
    processes = [child(outbox, f"json://{hook.address}/hook", "together") for _ in range(2)]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    counts = [process.communicate(timeout=300)[0].split("\n")[-2] for process in processes]
    assert sorted(counts) == ["0", "1"]
    assert hook.messages() == [MESSAGE.body]


def test_the_same_run_noted_twice_is_one_message(hook, outbox):
    outbox.add(MESSAGE, open_channels([f"json://{hook.address}/hook"]), time.time())
    outbox.add(MESSAGE, open_channels([f"json://{hook.address}/hook"]), time.time())
    assert deliver(outbox, [f"json://{hook.address}/hook"], print) == 1


@pytest.mark.fault(46)
def test_channels_that_fail_do_not_affect_the_others(hook, outbox):
    urls = [
        f"json://{hook.address}/500",
        f"json://{hook.address}/slow?rto=0.3",
        f"json://{hook.address}/307",
        f"json://{hook.address}/308?redirect=yes",
        "json://127.0.0.1:9/closed?cto=0.3",
        f"json://{hook.address}/hook",
    ]
    said = []
    now = time.time()
    outbox.add(MESSAGE, open_channels(urls), now)
    assert deliver(outbox, urls, said.append, now) == 1
    assert [path for path, _, _ in hook.requests] == ["/500", "/slow", "/307", "/308", "/hook"]
    unreachable = "it could not be reached, refused the login, or did not answer in time"
    assert query(outbox, "SELECT channel, state, attempts, problem FROM deliveries ORDER BY channel") == [
        ("1 json", "pending", 1, "it answered 500 (Internal Server Error)"),
        ("2 json", "pending", 1, unreachable),
        ("3 json", "pending", 1, "it answered 307 (Temporary Redirect)"),
        ("4 json", "pending", 1, "it answered 308 (Permanent Redirect)"),
        ("5 json", "pending", 1, unreachable),
        ("6 json", "sent", 1, None),
    ]
    assert said[0] == (
        "Channel 1 json did not receive run-1.success: it answered 500 (Internal Server Error). Next attempt in 60 s. "
        "Try again later: the problem is on the channel's side."
    )
    assert len(said) == 5


@pytest.mark.fault(46)
def test_a_broken_channel_is_tried_again_ever_later_and_gets_the_message_when_it_is_back(hook, outbox):
    hook.broken = True
    urls = [f"json://{hook.address}/hook"]
    now = time.time()
    outbox.add(MESSAGE, open_channels([f"json://{hook.address}/hook"]), now)
    attempts = []
    for second in range(0, 4 * 3600, 30):
        before = len(hook.requests)
        deliver(outbox, urls, lambda text: None, now + second)
        attempts += [second] * (len(hook.requests) - before)
    assert attempts == [0, 60, 180, 420, 900, 1860, 3780, 7380, 10980]
    hook.broken = False
    assert deliver(outbox, urls, print, now + 14580) == 1
    assert deliver(outbox, urls, print, now + 90000) == 0


def test_a_channel_that_fails_is_asked_once_a_pass(hook, outbox):
    hook.broken = True
    for number in range(3):
        outbox.add(
            Message(f"run-{number}.success", "title", "body"),
            open_channels([f"json://{hook.address}/hook"]),
            time.time(),
        )
    deliver(outbox, [f"json://{hook.address}/hook"], print)
    assert len(hook.requests) == 1


def test_a_delivery_is_given_up_after_some_days_and_logged(hook, outbox):
    hook.broken = True
    said = []
    now = time.time()
    outbox.add(MESSAGE, open_channels([f"json://{hook.address}/hook"]), now)
    for later in (now, now + GIVE_UP + 1, now + GIVE_UP + 90000):
        deliver(outbox, [f"json://{hook.address}/hook"], said.append, later)
    assert len(hook.requests) == len(said) == 2
    assert "Gave up after 2 attempts." in said[1]
    assert query(outbox, "SELECT state, attempts, problem FROM deliveries") == [
        ("given up", 2, "it answered 503 (Service Unavailable)")
    ]


def test_a_channel_that_is_not_configured_any_more_is_given_up(hook, outbox):
    outbox.add(MESSAGE, open_channels([f"json://{hook.address}/hook", "mailto://gone.example.org"]), time.time())
    assert deliver(outbox, [f"json://{hook.address}/hook"], print) == 1
    assert query(outbox, "SELECT state, problem FROM deliveries WHERE channel = '2 mailto'") == [
        ("given up", "it is no longer configured")
    ]


@pytest.mark.fault(55)
def test_a_pending_message_follows_its_recipient_when_the_urls_change_places(hook, outbox):
    first, second, third = (f"json://taxi:old@{hook.address}/{name}" for name in ("first", "second", "third"))
    outbox.add(MESSAGE, open_channels([first, second]), time.time())
    moved = [third, second, first.replace("old", "corrected")]
    assert deliver(outbox, moved, print) == 2
    assert sorted(path for path, _, _ in hook.requests) == ["/first", "/second"]


@pytest.mark.fault(55)
def test_a_pending_message_is_not_sent_to_another_recipient_in_the_same_place(hook, outbox):
    outbox.add(MESSAGE, open_channels([f"json://{hook.address}/first"]), time.time())
    assert deliver(outbox, [f"json://{hook.address}/second"], print) == 0
    assert hook.requests == []
    assert query(outbox, "SELECT state, problem FROM deliveries") == [("given up", "it is no longer configured")]


def test_an_outbox_of_an_older_version_is_delivered_to_the_positions_it_names(hook, outbox):
    outbox.folder.mkdir(parents=True)
    now = time.time()
    with closing(sqlite3.connect(outbox.folder / "outbox.db")) as con, con:
        con.execute(
            "CREATE TABLE messages (id TEXT PRIMARY KEY, title TEXT NOT NULL, body TEXT NOT NULL,"
            " failure INTEGER NOT NULL, created REAL NOT NULL)"
        )
        con.execute(
            "CREATE TABLE deliveries (message TEXT NOT NULL REFERENCES messages ON DELETE CASCADE,"
            " channel TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'pending', at REAL NOT NULL,"
            " attempts INTEGER NOT NULL DEFAULT 0, problem TEXT, PRIMARY KEY (message, channel))"
        )
        con.execute("INSERT INTO messages VALUES ('run-1.success', 'title', 'body', 0, ?)", (now,))
        con.execute("INSERT INTO deliveries (message, channel, at) VALUES ('run-1.success', '2 json', ?)", (now,))
    assert deliver(outbox, [f"json://{hook.address}/first", f"json://{hook.address}/second"], print) == 1
    assert [path for path, _, _ in hook.requests] == ["/second"]


@pytest.mark.parametrize(("last", "title"), [("2020-03", "green 2020-01 to 2020-03"), ("2020-01", "green 2020-01")])
@pytest.mark.fault(49)
def test_a_run_over_a_range_of_months_names_the_range(platform, hook, last, title):
    tags = {"dagster/asset_partition_range_start": "2020-01", "dagster/asset_partition_range_end": last}
    tags["dagster/max_retries"] = "0"
    run = platform.instance.create_run_for_job(platform.job, tags=tags)
    platform.instance.report_run_failed(run)
    platform.tick()
    assert hook.requests[0][2]["title"] == f"taxi: {title} failed"


def test_any_process_delivers_after_ingesting_and_the_sensor_does_not_repeat_it(platform, hook):
    platform.ingest()
    deliver_notifications(platform.instance, load_settings(), print)
    deliver_notifications(platform.instance, load_settings(), print)
    assert len(hook.requests) == 1
    assert platform.tick() == "0 messages sent, 0 waiting."


def test_a_clock_that_was_years_ahead_does_not_silence_the_runs_that_follow(platform, hook, outbox):
    deliver_notifications(platform.instance, load_settings(), print)
    platform.ingest()
    outbox.set_noted_until(time.time() + 10 * 365 * 86400)
    deliver_notifications(platform.instance, load_settings(), print)
    assert len(hook.requests) == 1
    assert outbox.noted_until() < time.time()


def test_an_attempt_planned_while_the_clock_was_years_ahead_is_made_now(hook, outbox):
    urls, now = [f"json://{hook.address}/hook"], time.time()
    hook.broken = True
    outbox.add(MESSAGE, open_channels(urls), now + 10 * 365 * 86400)
    deliver(outbox, urls, lambda text: None, now + 10 * 365 * 86400)
    hook.broken = False
    assert deliver(outbox, urls, print, now) == 1


def test_without_channels_delivering_touches_neither_the_runs_nor_the_disk(outbox):
    deliver_notifications(None, load_settings(), print)
    assert not outbox.folder.exists()


def test_old_messages_leave_the_outbox(hook, outbox):
    now = time.time()
    outbox.add(MESSAGE, open_channels([f"json://{hook.address}/hook"]), now)
    deliver(outbox, [f"json://{hook.address}/hook"], print, now)
    deliver(outbox, [], print, now + KEEP - 60)
    assert outbox.known() == {MESSAGE.id}
    deliver(outbox, [], print, now + KEEP + 60)
    assert query(outbox, "SELECT (SELECT count(*) FROM messages), (SELECT count(*) FROM deliveries)") == [(0, 0)]


@pytest.mark.fault(46)
def test_a_failing_channel_affects_neither_run_nor_sensor(platform, hook):
    hook.broken = True
    assert platform.ingest().succeeded
    assert platform.tick() == "0 messages sent, 1 waiting."
    assert platform.tick() == "0 messages sent, 1 waiting."
    assert len(hook.requests) == 1


@pytest.mark.fault(45)
def test_no_secret_of_a_url_is_logged_stored_or_sent(platform, hook, outbox, monkeypatch, logged, tmp_path):
    with mail_box("another") as box:
        urls = [
            f"json://me:{SECRET}@{hook.address}/hook/{SECRET}?-token={SECRET}",
            f"json://me:{SECRET}@{hook.address}/500?-token={SECRET}",
            f"json://me:{SECRET}@127.0.0.1:9/{SECRET}?cto=0.3",
            box.url.replace("another", SECRET),
        ]
        monkeypatch.setenv("TAXI_NOTIFY_URLS", " ".join(urls))
        (sensor,) = build_notifications(load_settings())
        platform.ingest()
        result = sensor.evaluate_tick(dg.build_sensor_context(instance=platform.instance, cursor=str(time.time() - 60)))
        said = []
        assert not send_test(load_settings(), said.append)
    assert result.skip_message == "1 messages sent, 3 waiting."
    assert "refused the login" in said[3]
    assert SECRET not in " ".join([result.skip_message, *said, *(str(body) for _, _, body in hook.requests)])
    assert "urllib3" not in logged.getvalue() and SECRET not in logged.getvalue()
    written = [file for file in (tmp_path / "home").rglob("*") if file.is_file()]
    assert outbox.folder / "outbox.db" in written
    assert [file for file in written if SECRET.encode() in file.read_bytes()] == []


def test_the_test_message_says_of_every_channel_whether_it_worked_and_what_to_do(hook, monkeypatch):
    paths = ("hook", "401", "307")
    monkeypatch.setenv("TAXI_NOTIFY_URLS", " ".join(f"json://{hook.address}/{path}" for path in paths))
    said = []
    assert send_test(load_settings(), said.append) is False
    assert said == [
        "Channel 1 json: sent.",
        "Channel 2 json: failed: it answered 401 (Unauthorized). Check user, password or token in its URL.",
        "Channel 3 json: failed: it answered 307 (Temporary Redirect). Redirects are not followed: use the address "
        "that it redirects to.",
    ]
    assert hook.requests[0][2]["title"] == "taxi: test message"
    monkeypatch.setenv("TAXI_NOTIFY_URLS", f"json://{hook.address}/hook")
    assert send_test(load_settings(), said.append) is True


def test_without_a_url_there_is_nothing_to_test_and_no_sensor():
    assert build_notifications(load_settings()) == []
    with pytest.raises(SettingError, match="TAXI_NOTIFY_URLS is not set"):
        send_test(load_settings(), print)


@pytest.mark.parametrize("url", [f"nonsense://{SECRET}", SECRET, f"mailto://{SECRET}", "json://"])
def test_a_url_that_apprise_cannot_read_is_named_by_its_number(url, logged, monkeypatch):
    with pytest.raises(SettingError, match="TAXI_NOTIFY_URLS: Apprise cannot parse URL number 2") as found:
        check_notify_urls(["json://localhost/", url])
    assert SECRET not in f"{found.value}{found.value.__cause__}{found.value.__context__}{logged.getvalue()}"
    monkeypatch.setenv("TAXI_NOTIFY_URLS", url)
    with pytest.raises(SettingError, match="number 1"):
        send_test(load_settings(), print)


def test_the_sensor_is_on_wherever_a_channel_is_configured(platform):
    (sensor,) = build_notifications(load_settings())
    assert sensor.name == "notifications"
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    assert dg.Definitions(sensors=[sensor]).get_sensor_def("notifications") is sensor


@pytest.mark.parametrize(
    "url", ["127.0.0.1:3000", "ftp://host", "http://me:word@host", "http://", "http://host/?a=b", "http://host x"]
)
def test_a_ui_address_that_cannot_be_linked_to_is_refused(url):
    with pytest.raises(SettingError, match="TAXI_UI_URL"):
        load_settings({"TAXI_UI_URL": url})
