"""A real `taxi serve`: how it starts, what it tells systemd, how it drains, and what it says when something is away."""

import json
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import dagster as dg
import psutil
import pytest
import requests

from taxi_platform.assets.names import PROCESS_TAG
from taxi_platform.cli_serve import _report
from taxi_platform.settings import load_settings
from taxi_platform_tests.runs.test_production_storage import PRODUCTION
from taxi_platform_tests.support.system import TAXI, free_port, wait_for
from taxi_platform_tests.support.taxi_dev import Platform
from taxi_platform_tests.support.taxi_serve import environment, read_until, taxi_serve
from taxi_platform_tests.support.web_server import Page, serving

SLOW_ROWS = {"TAXI_SOURCE_URL": "sample://?rows=300000", "TAXI_DATASETS": "green", "TAXI_SET_ASIDE": "no"}


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture
def told(tmp_path):
    """What arrives at systemd's end of NOTIFY_SOCKET, field by field."""
    fields = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))

        def receive():
            while message := receiver.recv(4096):
                fields.extend(message.decode().split("\n"))

        thread = threading.Thread(target=receive, daemon=True)
        thread.start()
        yield fields
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", str(tmp_path / "notify"))
        thread.join()


@pytest.mark.fault(122)
def test_it_is_ready_once_everything_answers_keeps_a_second_one_away_and_ends_with_0(home, told, tmp_path):
    port = free_port()
    settings = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "4000000", "TAXI_DATASETS": "green"}
    with taxi_serve(home, "--port", str(port), **settings) as process:
        [line] = read_until(process, "The UI is at")
        assert line.endswith(f"INFO The UI is at http://127.0.0.1:{port}. Logs: {home}/logs")
        assert requests.get(f"http://127.0.0.1:{port}/server_info", timeout=10).ok
        assert told.index("STATUS=Starting the webserver") < told.index("READY=1")
        assert "WATCHDOG=1" in told
        with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
            assert set(instance.get_daemon_heartbeats()) >= set(instance.get_required_daemon_types())
        command = [TAXI, "serve", "--port", str(free_port())]
        second = subprocess.run(command, env=environment(home, {}), capture_output=True, text=True, timeout=300)
        assert second.returncode == 2
        assert (
            f"already serving {home}/dagster: process {process.pid} (taxi serve --port {port}), since" in second.stderr
        )
        process.send_signal(signal.SIGTERM)
        assert read_until(process, "Stopped.")[-1].endswith("INFO Stopped.")
        assert process.wait(300) == 0
        assert "STOPPING=1" in told
    assert "Traceback" not in (home / "logs" / "daemon.log").read_text()


@pytest.mark.slow
@pytest.mark.fault(123, 136)
def test_a_reload_and_a_stop_let_runs_finish_and_a_second_signal_interrupts_them(home):
    port = free_port()
    with taxi_serve(home, "--port", str(port), **SLOW_ROWS) as process:
        read_until(process, "The UI is at")
        check_viewer(home)
        backfill = Platform(f"http://127.0.0.1:{port}").launch_backfill("green", ["2020-01"])
        worker = wait_for(lambda: working(home, "2020-01"))
        check_broken_settings_are_not_loaded(process, home / "dagster" / "dagster.yaml")
        process.send_signal(signal.SIGHUP)
        read_until(process, "INFO Reloaded.")
        process.send_signal(signal.SIGTERM)
        lines = read_until(process, "Stopped.")
        assert process.wait(300) == 0
    assert statuses(home, backfill) == {"2020-01": ["SUCCESS"]}, lines
    assert working(home, "2020-01", unfinished=False) == worker  # one and the same process, all the time
    with serving() as web, taxi_serve(home, "--port", str(port), **endless_month(web)) as process:
        read_until(process, "The UI is at")
        backfill = Platform(f"http://127.0.0.1:{port}").launch_backfill("green", ["2020-02"])
        wait_for(lambda: working(home, "2020-02"))
        process.send_signal(signal.SIGTERM)
        read_until(process, "waiting up to 600 s for runs in progress (green 2020-02). A second signal")
        process.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        read_until(process, "Interrupting runs in progress (green 2020-02). They run again after the next start.")
        assert process.wait(300) == 0
        assert time.monotonic() - begun < 300  # of the 600 s for which it would wait
    assert statuses(home, backfill) == {"2020-02": ["FAILURE"]}
    assert not (home / "lake" / "clean" / "green" / "month=2020-02").exists()
    port = str(free_port())
    with taxi_serve(home, "--no-ui", "--port", port, **SLOW_ROWS) as process:
        read_until(process, "Serving without the UI.")
        answers = {path: requests.get(f"http://127.0.0.1:{port}/{path}", timeout=300) for path in ("health", "metrics")}
        assert answers["health"].json()["parts"]["database"] == {"healthy": True}
        assert 'taxi_up{part="lake"} 1.0' in answers["metrics"].text
        assert requests.get(f"http://127.0.0.1:{port}/runs", timeout=300).status_code == 404
        wait_for(lambda: statuses(home, backfill) == {"2020-02": ["SUCCESS", "FAILURE"]}, 300)


def endless_month(web):
    """Settings for a source that sends a byte a second, so that the run is certainly at work when it is interrupted."""
    body = b"lpep_pickup_datetime\n" + 100 * b"2020-02-01 00:10:00\n"
    web.pages["/green_2020-02.csv"] = Page(body, etag='"1"', drip=1.0)
    return {**SLOW_ROWS, "TAXI_SOURCE_URL": web.url + "/{dataset}_{month}.csv"}


def check_broken_settings_are_not_loaded(process, file):
    """A reload leaves everything as it is, because the daemon and the webserver could not start with these."""
    right, parts = file.read_text(), set(psutil.Process(process.pid).children())
    for wrong, said in (
        ("run_retries: [", "while parsing a flow"),
        ("nonsense: 3", 'unexpected config entry "nonsense"'),
    ):
        file.write_text(f"{right}\n{wrong}\n")
        process.send_signal(signal.SIGHUP)
        line = read_until(process, "Nothing was reloaded.")[-1]
        assert f"Dagster does not accept {file}: " in line and said in line
    assert set(psutil.Process(process.pid).children()) == parts
    file.write_text(right)


def check_viewer(home):
    """A read-only UI on a home that is being served, which has no daemon and drains nothing."""
    port = free_port()
    with taxi_serve(home, "--ui-only", "--port", str(port), TAXI_UI_READ_ONLY="1", **SLOW_ROWS) as viewer:
        read_until(viewer, "The UI is at")
        query = "{ version permissions { permission value } }"
        permissions = Platform(f"http://127.0.0.1:{port}").ask(query)["permissions"]
        assert {"permission": "launch_pipeline_execution", "value": False} in permissions
        viewer.send_signal(signal.SIGTERM)
        assert viewer.wait(300) == 0


def working(home, month, unfinished=True):
    """The process that executes the run of a month; None before it has begun."""
    status = dg.DagsterRunStatus.STARTED if unfinished else dg.DagsterRunStatus.SUCCESS
    filters = dg.RunsFilter(statuses=[status], tags={"dagster/partition": month})
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        runs = instance.get_runs(filters)
    return runs[0].tags.get(PROCESS_TAG) if runs else None


def statuses(home, backfill):
    """Month → the statuses of its runs, newest first."""
    found = {}
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        for run in instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill})):
            found.setdefault(run.tags["dagster/partition"], []).append(run.status.value)
    return found


def test_the_parts_to_leave_out_exclude_each_other(home):
    command = [TAXI, "serve", "--no-ui", "--ui-only"]
    answer = subprocess.run(command, env=environment(home, {}), capture_output=True, text=True, timeout=300)
    assert (answer.returncode, answer.stderr.splitlines()) == (
        2,
        ["--no-ui and --ui-only exclude each other. Give one of them, or none to serve everything."],
    )


@pytest.mark.fault(124)
def test_a_database_that_stays_away_is_waited_for_and_then_named(home, monkeypatch):
    port = free_port()
    folder = home / "dagster"
    folder.mkdir(parents=True)
    shutil.copy(PRODUCTION, folder / "dagster.yaml")
    variables = {
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "DB": "dagster",
        "USERNAME": "dagster",
        "PASSWORD": "s3cretWord",
    }
    command = [TAXI, "serve", "--no-ui", "--port", str(free_port()), "--database-seconds", "1"]
    settings = {f"DAGSTER_PG_{name}": value for name, value in variables.items()}
    answer = subprocess.run(command, env=environment(home, settings), capture_output=True, text=True, timeout=100)
    assert answer.returncode == 1
    first, last = (line for line in answer.stderr.splitlines() if "Dagster's database failed" in line)
    assert "WARNING" in first
    assert "Connection refused" in first
    assert first.endswith("Waiting up to 1 s for it.")
    assert "ERROR" in last
    assert re.search(r"Gave up after \d+ s\.", last)
    assert "s3cretWord" not in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_part_that_ended_is_reported_to_every_channel(home, monkeypatch):
    received = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            received.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("TAXI_NOTIFY_URLS", f"json://127.0.0.1:{server.server_port}")
        _report(load_settings(), "The daemon ended with status -9: password=hunter2 It is started again.")
        [message] = wait_for(lambda: received)
        server.shutdown()
    assert message["title"] == "taxi: a part of the service ended"
    assert "The daemon ended with status -9: `password=***` It is started again." in message["message"]
    assert "hunter2" not in message["message"]
