"""A part of `taxi serve` that ends by itself."""

import psutil
import pytest

from taxi_platform.trips.errors import TaxiError
from taxi_platform.ui import child as module
from taxi_platform.ui.child import RESTART_DELAYS, Child
from taxi_platform_tests.support.system import wait_for

SLEEP = "import time; time.sleep(600)"


@pytest.fixture
def no_delays(monkeypatch):
    monkeypatch.setattr(module, "RESTART_DELAYS", (0.0, 0.2, 0.0))


def keep_alive_until_it_ends_again(child):
    """What is said once the child ended that is running now."""
    wait_for(lambda: child.process is not None or child.keep_alive())
    wait_for(child.has_ended)
    return child.keep_alive()


@pytest.mark.fault(79)
def test_a_child_that_keeps_ending_is_started_again_later_each_time_and_then_given_up(tmp_path, no_delays):
    log = tmp_path / "daemon.log"
    child = Child("daemon", ["-c", "import time; time.sleep(0.3); raise SystemExit('no room')"], log, lambda: True)
    child.start()
    assert child.keep_alive() is None
    assert child.is_ready
    ended = "The daemon ended with status 1: no room. It is started again"
    said = []
    for _ in range(3):
        wait_for(child.has_ended)
        said.append(child.keep_alive())
        assert not child.is_ready
        wait_for(lambda: child.keep_alive() or child.process)
    assert said == [f"{ended}.", f"{ended} in 0 s.", f"{ended}."]
    wait_for(child.has_ended)
    given_up = r"The daemon ended 4 times within 10 minutes: the last time it ended with status 1: no room\. Its log: "
    with pytest.raises(TaxiError, match=given_up):
        child.keep_alive()


def test_of_a_child_that_was_killed_no_line_is_quoted_and_of_another_none_that_an_earlier_one_wrote(tmp_path):
    log = tmp_path / "webserver.log"
    log.write_text("what an earlier process said\n")
    child = Child("webserver", ["-c", SLEEP], log, lambda: True)
    child.start()
    assert child.keep_alive() is None
    child.process.kill()
    wait_for(child.has_ended)
    assert child.keep_alive() == "The webserver was ended by signal 9 (Killed). It is started again."
    child.arguments = ["-c", "raise SystemExit(3)"]
    assert keep_alive_until_it_ends_again(child) == (
        "The webserver ended with status 3: no output. It is started again in 1 s."
    )


def test_the_delays_grow_and_are_few():
    assert list(RESTART_DELAYS) == sorted(RESTART_DELAYS)
    assert (RESTART_DELAYS[0], len(RESTART_DELAYS)) == (0.0, 5)


def test_a_child_that_never_answered_is_not_started_again(tmp_path):
    child = Child("webserver", ["-c", "raise SystemExit('wrong setting')"], tmp_path / "log", lambda: False)
    child.start()
    wait_for(child.has_ended)
    with pytest.raises(TaxiError, match=r"The webserver did not start: it ended with status 1: wrong setting\."):
        child.keep_alive()


def test_a_child_that_runs_is_left_alone_until_it_is_stopped(tmp_path):
    child = Child("daemon", ["-c", SLEEP], tmp_path / "daemon.log", lambda: True)
    child.start()
    process = child.process
    assert child.keep_alive() is None
    assert child.process is process
    child.stop()
    assert process.poll() is not None


def test_a_child_has_ended_when_no_process_works_for_it_any_more(tmp_path):
    """As Dagster's code server, which has another process work for it, and after a reload a new one."""
    socket, again = tmp_path / "code.sock", tmp_path / "again"
    script = f"""if True:
        import pathlib, subprocess, sys, time
        start = lambda: subprocess.Popen([sys.executable, "-c", {SLEEP!r}])
        start()
        pathlib.Path({str(socket)!r}).touch()
        while not pathlib.Path({str(again)!r}).exists(): time.sleep(0.05)
        start()
        time.sleep(600)"""
    child = Child("code server", ["-c", script], tmp_path / "code.log", socket.exists, socket)
    child.start()
    try:
        wait_for(socket.exists)
        (worker,) = psutil.Process(child.process.pid).children()
        assert not child.has_ended()
        again.touch()
        (other,) = wait_for(lambda: set(psutil.Process(child.process.pid).children()) - {worker})
        worker.kill()
        wait_for(lambda: worker.status() == psutil.STATUS_ZOMBIE)
        assert not child.has_ended()
        other.kill()
        wait_for(child.has_ended)
        assert child.process.poll() is None
    finally:
        child.stop()


def test_a_long_log_is_set_aside_and_its_last_line_is_quoted(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOG_BYTES", 100)
    log = tmp_path / "daemon.log"
    log.write_text("old\n" * 50)
    child = Child("daemon", ["-c", "print('x' * 9000); raise SystemExit('the last words')"], log, lambda: False)
    child.start()
    wait_for(child.has_ended)
    with pytest.raises(TaxiError, match="the last words"):
        child.keep_alive()
    assert (tmp_path / "daemon.log.1").read_text() == "old\n" * 50
    assert "old" not in log.read_text()


@pytest.mark.fault(137)
def test_the_log_of_a_child_that_runs_for_years_stays_short(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOG_BYTES", 10_000)
    log = tmp_path / "daemon.log"
    endless = "import itertools\nfor number in itertools.count(): print(f'line {number}', flush=True)"
    child = Child("daemon", ["-c", endless], log, lambda: True)
    child.start()
    try:
        wait_for(lambda: child.keep_alive() or (tmp_path / "daemon.log.1").exists())
        first = int((tmp_path / "daemon.log.1").read_text().splitlines()[-2].split()[1])
        wait_for(lambda: log.stat().st_size > 100)
        assert int(log.read_text().splitlines()[1].split()[1]) > first
    finally:
        child.stop()
