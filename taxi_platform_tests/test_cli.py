"""`taxi` as people and scripts use it: exit statuses, one clear sentence for a mistake, and no traceback."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress

import dagster as dg
import duckdb
import psutil
import pytest
import requests
from filelock import FileLock

from taxi_platform import __version__
from taxi_platform.assets.names import HURRIED_TAG, PROCESS_TAG
from taxi_platform.cli_ingest import today
from taxi_platform.trips.months import newest_month
from taxi_platform_tests.support.system import TAXI, free_port, wait_for
from taxi_platform_tests.support.web_server import Page, serving


def taxi(*arguments, **environment):
    """Run the real command; returns its exit status, stdout and stderr."""
    done = subprocess.run(
        [TAXI, *arguments],
        env={**os.environ, "TAXI_SOURCE_URL": "sample://?rows=1000", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("group", [(), ("notify",)])
def test_no_commands_help_is_cut(group):
    status, out, _ = taxi(*group, "--help", COLUMNS="80")
    assert status == 0
    assert "..." not in out.partition("Commands:")[2]


def test_the_help_names_settings_doctor_datasets_and_an_example():
    assert "variables that begin with TAXI_; `taxi doctor` checks them" in taxi("--help")[1]
    text = taxi("ingest", "--help")[1]
    assert "yellow, green, fhv or fhvhv" in " ".join(text.split()) and "YYYY-MM" in text
    assert "\n    taxi ingest green 2024-01\n" in text
    assert "wait about 30, 90 and 270 s" in " ".join(text.split())


def test_the_version_is_that_of_the_package():
    assert taxi("--version") == (0, f"taxi {__version__}\n", "")


def test_a_range_is_loaded_then_unchanged(tmp_path):
    status, out, _ = taxi("ingest", "green", "2020-04", "2020-05", "--json")
    assert status == 0
    results = json.loads(out)
    assert [(r["month"], r["status"], r["rows_read"]) for r in results] == [
        ("2020-04", "loaded", 1000),
        ("2020-05", "loaded", 1000),
    ]
    assert all(r["rows_clean"] + r["rows_rejected"] == 1000 and r["rows_in_table"] == r["rows_clean"] for r in results)
    status, out, _ = taxi("ingest", "Green", "2020-04", "2020-05", "--jobs", "1", "--json")
    assert [r["status"] for r in json.loads(out)] == ["unchanged", "unchanged"]
    with duckdb.connect(str(tmp_path / "home/warehouse.duckdb"), read_only=True) as con:
        assert con.execute("SELECT count(*) FROM green_trips").fetchone()[0] == sum(r["rows_clean"] for r in results)


@pytest.mark.fault(24)
def test_a_month_that_is_not_published_is_one_sentence_and_status_three(tmp_path):
    status, _, err = taxi("ingest", "green", "2020-04", TAXI_SOURCE_URL=f"file://{tmp_path}/{{dataset}}_{{month}}.csv")
    assert status == 3
    assert err.splitlines() == [
        "green 2020-04: not published, 1/1",
        f"green 2020-04: not published (yet) at file://{tmp_path}/green_2020-04.csv.",
    ]


@pytest.mark.fault(43)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ingest", "purple", "2020-04"), "yellow, green, fhv, fhvhv"),
        (("ingest", "green", "2020-13"), "YYYY-MM"),
        (("ingest", "green", "../../etc"), "YYYY-MM"),
        (("ingest", "green", "2013-07"), "2013-08"),
        (("ingest", "green", "2020-05", "2020-04"), "first month first"),
        (("ingest", "green", "2999-01"), "future"),
        (("ingest", "green", "2020-04", "--reject", "ugly"), "zero_passengers"),
        (("ingest", "fhv", "2020-04", "--reject", "zero_passengers"), "rule of fhv. Choose from dropoff_before_pickup"),
        (("dance",), "dance"),
    ],
)
def test_a_mistake_is_reported_with_its_remedy_and_status_two(arguments, message):
    status, _, err = taxi(*arguments)
    assert status == 2
    assert message in err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TAXI_SOURCE_URL", "https://example.org/green.csv"),
        ("TAXI_SOURCE_URL", "carrier-pigeon://"),
        ("TAXI_LAKE_URL", "s3://bucket"),
        ("TAXI_WAREHOUSE_URL", "mysql://somewhere/db"),
        ("TAXI_SERVING_URL", "nothing"),
        ("TAXI_DATASETS", "purple"),
        ("TAXI_REJECT", "ugly"),
        ("TAXI_THREADS", "many"),
        ("TAXI_NOTIFY_URLS", "pigeon://loft"),
        ("TAXI_UI_URL", "my machine"),
        ("TAXI_SOURC_URL", "tlc://"),
    ],
)
def test_a_wrong_setting_is_named_before_anything_runs(name, value, tmp_path):
    status, _, err = taxi("ingest", "green", "2020-04", **{name: value})
    assert status == 2
    assert name in err
    assert not (tmp_path / "home" / "lake").exists()


def test_bad_input_is_status_one_with_what_to_do(tmp_path):
    (tmp_path / "green_2020-04.csv").write_bytes(b"<html>busy</html>")
    arguments = ("ingest", "green", "2020-04", "--force", "--reject", "zero_passengers,zero_distance")
    status, _, err = taxi(*arguments, TAXI_SOURCE_URL=f"file://{tmp_path}/{{dataset}}_{{month}}.csv")
    assert status == 1
    assert "HTML or XML page, not trips. Open the page" in err
    assert "ingest green 2020-04 --force --reject zero_distance,zero_passengers\n" in err


@pytest.mark.parametrize("home", ["here", "~/dagster"])
@pytest.mark.parametrize("command", ["ingest green 2020-04", "status", "doctor", "dev", "serve"])
def test_a_relative_home_of_dagster_is_a_mistake_and_leaves_no_folder(tmp_path, monkeypatch, command, home):
    monkeypatch.chdir(tmp_path)
    status, _, err = taxi(*command.split(), DAGSTER_HOME=home)
    assert status == 2 and f"DAGSTER_HOME is '{home}'. It takes an absolute path" in err
    assert not (tmp_path / home.split("/")[0]).exists()


def test_a_month_is_loaded_where_the_views_cannot_be_made(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home/views").touch()
    status, out, _ = taxi("ingest", "green", "2020-04", TAXI_DATASETS="green")
    assert status == 0 and " loaded " in out and not (tmp_path / "home/trips.duckdb").exists()


def test_a_demo_that_loads_nothing_shows_no_query(tmp_path):
    settings = {"TAXI_DATASETS": "green", "TAXI_SOURCE_URL": f"file://{tmp_path}/{{dataset}}_{{month}}.csv"}
    status, out, _ = taxi("demo", **settings)
    assert status == 3 and "UI   " in out and "Try a query" not in out


def test_the_rules_of_a_call_decide_which_months_it_finds_due():
    settings = {"TAXI_DATASETS": "green", "TAXI_SINCE": str(newest_month(today()))}
    for rules, says in (
        ((), " loaded "),
        (("--reject", "zero_distance"), " loaded "),
        (("--reject", "zero_distance"), "Nothing to do"),
        ((), " loaded "),
        ((), "Nothing to do"),
    ):
        status, out, _ = taxi("ingest", *rules, **settings)
        assert status == 0 and says in out


def test_a_home_that_cannot_be_created_is_reported(tmp_path):
    (tmp_path / "file").write_text("in the way")
    status, _, err = taxi("ingest", "green", "2020-04", TAXI_HOME=str(tmp_path / "file" / "home"))
    assert status == 1
    assert "TAXI_HOME" in err


@pytest.mark.slow
@pytest.mark.fault(42)
def test_the_program_that_holds_the_database_open_is_reported(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    hold = "import duckdb, sys, time; c = duckdb.connect(sys.argv[1]); print('held', flush=True); time.sleep(90)"
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(home / "warehouse.duckdb")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        status, _, err = taxi("ingest", "green", "2020-04", "--no-patient")
    finally:
        holder.kill()
        holder.wait()
    assert status == 1
    assert "Another program holds" in err
    assert "Close it there" in err


@pytest.mark.slow
@pytest.mark.fault(47)
def test_an_interruption_is_status_130_and_the_next_run_finishes(tmp_path):
    child = subprocess.Popen(
        [TAXI, "ingest", "green", "2020-01", "2020-12"],
        env={**os.environ, "TAXI_SOURCE_URL": "sample://?rows=1000"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert ": loaded, 1/" in child.stderr.readline()
    child.send_signal(signal.SIGINT)
    _, rest = child.communicate(timeout=300)
    assert child.returncode == 130
    assert "Traceback" not in rest
    assert rest.endswith(" 2020-12\n")  # all that is left, begun or not
    status, out, _ = taxi("ingest", "green", "2020-01", "2020-02", "--json")
    assert status == 0
    assert "unchanged" in [result["status"] for result in json.loads(out)]  # the two run side by side
    assert not list((tmp_path / "home/tmp").glob("*"))


@pytest.mark.slow
@pytest.mark.parametrize(("flags", "hurried"), [((), False), (("--patient",), False), (("--no-patient",), True)])
def test_steps_are_tried_again_where_stderr_is_not_a_terminal_or_as_a_flag_says(tmp_path, flags, hurried):
    assert taxi("ingest", "green", "2020-04", "--jobs", "1", *flags)[0] == 0
    with dg.DagsterInstance.from_config(str(tmp_path / "home/dagster")) as instance:
        (run,) = instance.get_runs()
        assert (HURRIED_TAG in run.tags, PROCESS_TAG in run.tags) == (hurried, True)


@pytest.mark.slow
def test_steps_are_not_tried_again_where_somebody_waits_at_a_terminal(tmp_path):
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TAXI_SOURCE_URL": "sample://?rows=300"}
    with subprocess.Popen([TAXI, "ingest", "green", "2020-04", "2020-05"], env=environment, stderr=theirs) as child:
        os.close(theirs)
        with suppress(OSError):  # how the end of a terminal is read on Linux
            while os.read(ours, 1 << 16):
                pass
    os.close(ours)
    assert child.returncode == 0
    with dg.DagsterInstance.from_config(str(tmp_path / "home/dagster")) as instance:
        assert [HURRIED_TAG in run.tags for run in instance.get_runs()] == [True, True]


@pytest.fixture
def two_months_in_progress():
    """`taxi` at work on five months, two at a time, of which the server sends a byte now and then."""
    with serving() as web:
        for month in range(1, 6):
            web.pages[f"/green_2020-0{month}.csv"] = Page(b"a,b\n" * 10_000, drip=0.05)
        source = {"TAXI_SOURCE_URL": web.url + "/{dataset}_{month}.csv"}
        command = [TAXI, "ingest", "green", "2020-01", "2020-05"]
        with subprocess.Popen(command, env={**os.environ, **source}, stderr=subprocess.PIPE, text=True) as child:
            wait_for(lambda: web.methods().count("GET") == 2)
            yield child, web


@pytest.mark.fault(47)
def test_an_interruption_in_mid_month_begins_no_other_month(two_months_in_progress):
    child, web = two_months_in_progress
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=300)
    assert (child.returncode, web.methods().count("GET")) == (130, 2)
    assert "green 2020-01: Interrupted." in err
    assert "Traceback" not in err
    assert "dagster" not in err


@pytest.mark.fault(33)
def test_a_command_that_is_killed_takes_its_processes_along(two_months_in_progress):
    child, _ = two_months_in_progress
    family = psutil.Process(child.pid).children(recursive=True)
    assert len(family) >= 2
    child.kill()
    psutil.wait_procs(family, timeout=300)
    assert [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.fault(47)
def test_a_service_manager_that_ends_all_processes_interrupts_the_months(two_months_in_progress):
    child, web = two_months_in_progress
    for process in [*psutil.Process(child.pid).children(recursive=True), psutil.Process(child.pid)]:
        process.terminate()
    _, err = child.communicate(timeout=300)
    assert (child.returncode, web.methods().count("GET")) == (130, 2)
    assert "green 2020-01: Interrupted." in err
    assert "Traceback" not in err


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each worker is a new Python")
@pytest.mark.fault(33)
def test_workers_are_forked_and_a_command_says_so_when_the_process_they_come_from_is_killed(two_months_in_progress):
    child, _ = two_months_in_progress
    family = psutil.Process(child.pid).children(recursive=True)
    workers = [process for process in family if process.parent().pid != child.pid]
    (forked_from,) = {process.parent() for process in workers}
    assert (len(workers), forked_from.num_threads()) == (2, 1)
    forked_from.kill()
    _, err = child.communicate(timeout=300)
    assert child.returncode == 1
    assert "A process that ingested a month was killed" in err
    assert "Traceback" not in err
    psutil.wait_procs(family, timeout=300)
    assert not [process for process in family if process.is_running()]


@pytest.mark.slow
@pytest.mark.fault(47)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("seconds", [0, 0.4, 0.8, 1.2, 1.6])
def test_an_interruption_while_processes_start_says_so_and_leaves_none(seconds, number):
    source = {**os.environ, "TAXI_SOURCE_URL": "sample://?rows=100000"}
    command = [TAXI, "ingest", "green", "2020-01", "2020-05"]
    with subprocess.Popen(command, env=source, stderr=subprocess.PIPE, text=True, start_new_session=True) as child:
        wait_for(lambda: psutil.Process(child.pid).children())
        time.sleep(seconds)
        family = psutil.Process(child.pid).children(recursive=True)
        os.killpg(child.pid, number)  # as a terminal or a service manager does
        _, err = child.communicate(timeout=300)
    assert child.returncode == 130
    assert "Traceback" not in err
    assert not [left for left in psutil.wait_procs(family, timeout=300)[1] if left.is_running()]


@pytest.mark.slow
@pytest.mark.fault(47)
@pytest.mark.parametrize("seconds", [0, 0.5, 1, 1.5])
def test_an_interruption_at_a_terminal_while_processes_start_says_so(seconds):
    ours, theirs = pty.openpty()
    command = [TAXI, "ingest", "green", "2020-01", "2020-05"]
    source = {**os.environ, "TAXI_SOURCE_URL": "sample://?rows=100000"}
    # At a terminal a thread draws the progress bar, and may be the one that gets the signal.
    with subprocess.Popen(command, env=source, stderr=theirs, start_new_session=True) as child:
        os.close(theirs)
        wait_for(lambda: psutil.Process(child.pid).children())
        time.sleep(seconds)
        family = psutil.Process(child.pid).children(recursive=True)
        os.killpg(child.pid, signal.SIGINT)
        shown = b""
        with suppress(OSError):
            while part := os.read(ours, 1 << 16):
                shown += part
    os.close(ours)
    assert (child.returncode, b"Traceback" in shown) == (130, False), shown
    assert not [left for left in psutil.wait_procs(family, timeout=300)[1] if left.is_running()]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each worker is a new Python")
@pytest.mark.slow
@pytest.mark.fault(33)
@pytest.mark.parametrize("seconds", [0, 0.5, 1])
def test_a_process_that_is_killed_while_workers_start_is_named_or_started_again(seconds):
    source = {**os.environ, "TAXI_SOURCE_URL": "sample://?rows=1000"}
    command = [TAXI, "ingest", "green", "2020-01", "2020-03"]
    with subprocess.Popen(command, env=source, stderr=subprocess.PIPE, text=True) as child:
        wait_for(lambda: fork_server_of(child))
        time.sleep(seconds)
        fork_server_of(child).kill()
        _, err = child.communicate(timeout=300)
    assert (child.returncode, "was killed" in err) in [(0, False), (1, True)]
    assert "Traceback" not in err


def fork_server_of(command):
    """The process that workers are forked from, None if it has not started."""
    children = psutil.Process(command.pid).children()
    return next((child for child in children if "multiprocessing.forkserver" in " ".join(child.cmdline())), None)


@pytest.mark.fault(33)
def test_a_command_ends_when_a_worker_is_killed_that_waits_for_a_month():
    with serving() as web:
        web.pages["/green_2020-01.csv"] = Page(b"a,b\n" * 10_000, drip=0.05)
        command = [TAXI, "ingest", "green", "2020-01", "2020-02", "--no-patient"]
        source = {**os.environ, "TAXI_SOURCE_URL": web.url + "/{dataset}_{month}.csv"}
        with subprocess.Popen(command, env=source, stderr=subprocess.PIPE, text=True) as child:
            assert "green 2020-02: not published" in child.stderr.readline()
            wait_for(lambda: web.methods().count("GET") == 1)
            workers = fork_server_of(child).children()
            (idle,) = [worker for worker in workers if not worker.net_connections()]
            idle.kill()
            _, err = child.communicate(timeout=300)
    assert (child.returncode, "A process that ingested a month was killed" in err) == (1, True)
    assert not [left for left in psutil.wait_procs(workers, timeout=300)[1] if left.is_running()]


@pytest.mark.slow
@pytest.mark.fault(88, 89)
def test_text_from_a_file_or_a_user_is_printed_as_text_in_every_encoding(tmp_path):
    (tmp_path / "green_2020-04.csv").write_text("a,[/b],[red]c,\x1b[31md,東京\n1,2,3,4,5\n")
    source = {"TAXI_SOURCE_URL": f"file://{tmp_path}/{{dataset}}_{{month}}.csv", "PYTHONIOENCODING": "ascii"}
    status, _, err = taxi("ingest", "green", "2020-04", **source)
    assert (status, "'[/b]', '[red]c', '\\x1b[31md', '??'" in err) == (1, True)
    for wrong in ("[/]", "\x1b]0;owned\x07", "東京"):
        status, _, err = taxi("ingest", "green", wrong, **source)
        assert (status, "\x1b" in err) == (2, False)


def test_a_second_ui_over_the_same_home_is_refused(tmp_path):
    (tmp_path / "home/dagster").mkdir(parents=True)
    with FileLock(tmp_path / "home/dagster/dev.lock"):
        status, _, err = taxi("dev", "--port", str(free_port()))
    assert (status, "taxi is already serving" in err) == (2, True)


def test_dev_serves_the_graph_on_loopback_and_ends_with_its_processes_on_ctrl_c(tmp_path):
    port = free_port()
    child = subprocess.Popen([TAXI, "dev", "--port", str(port)], stdout=subprocess.PIPE, text=True)
    try:
        assert f"http://127.0.0.1:{port}" in child.stdout.readline()
        query = "{workspaceOrError{...on Workspace{locationEntries{name locationOrLoadError{__typename}}}}}"
        answer = requests.post(f"http://127.0.0.1:{port}/graphql", json={"query": query}, timeout=300).json()
        (entry,) = answer["data"]["workspaceOrError"]["locationEntries"]
        assert entry["name"] == "taxi_platform"
        assert entry["locationOrLoadError"]["__typename"] == "RepositoryLocation"
        family = psutil.Process(child.pid).children(recursive=True)
        assert len(family) >= 3
        assert all("DAGSTER_DISABLE_TELEMETRY" in process.environ() for process in family)
        assert (tmp_path / "home/logs/daemon.log").exists()
        assert not (tmp_path / "home/dagster/logs").exists()  # Dagster would send it to its makers
        connections = [c for process in family for c in process.net_connections("inet") if c.status == "LISTEN"]
        assert {c.laddr.ip for c in connections} == {"127.0.0.1"}
    finally:
        child.send_signal(signal.SIGINT)
        child.wait(timeout=300)
    assert child.returncode == 130
    assert not [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.slow
def test_dev_ends_with_its_terminal():
    process, terminal = pty.fork()
    if process == 0:
        os.execv(TAXI, [TAXI, "dev", "--port", str(free_port())])
    shown = b""
    while b"The UI is at" not in shown:
        shown += os.read(terminal, 1000)
    family = psutil.Process(process).children(recursive=True)
    os.close(terminal)
    os.waitpid(process, 0)
    assert not psutil.wait_procs(family, timeout=300)[1]


def test_dev_names_a_port_that_is_taken_and_by_whom():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, _, err = taxi("dev", "--port", str(port))
    assert status == 2
    assert f"Port {port} is in use by process {os.getpid()} (" in err


def test_the_overview_of_nothing_is_a_page_that_says_so(tmp_path):
    status, out, err = taxi("overview")
    page = tmp_path / "home/overview.html"
    assert (status, out, err) == (0, f"Overview   {page}\n", "")
    assert "No month is loaded yet" in page.read_text("utf-8")


def test_where_the_home_cannot_be_written_the_overview_goes_elsewhere_and_says_where(tmp_path):
    (tmp_path / "home/overview.html").mkdir(parents=True)
    status, out, err = taxi("overview", TMPDIR=str(tmp_path))
    assert (status, err) == (0, f"{tmp_path}/home/overview.html cannot be written.\n")
    (page,) = tmp_path.glob("taxi-overview-*/overview.html")
    assert out == f"Overview   {page}\n"


def test_numpy_starts_no_threads_for_algebra_in_a_command():
    lines = (
        "import sys, psutil",
        "sys.argv = ['taxi', '--help']",
        "from taxi_platform.cli import main",
        "main()",
        "before = psutil.Process().num_threads()",
        "import numpy",
        "print(psutil.Process().num_threads() - before)",
    )
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    child = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], env=environment, capture_output=True, text=True, check=True
    )
    assert child.stdout.splitlines()[-1] == "0"
