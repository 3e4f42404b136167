"""One daemon for each instance of Dagster, on one machine and on several."""

import os
import socket
import subprocess
import sys

import pytest

from taxi_platform.runs.instance import open_instance
from taxi_platform.settings import load_settings
from taxi_platform.trips.errors import TaxiError, UserError
from taxi_platform.trips.processes import process_name
from taxi_platform.ui import only_server
from taxi_platform.ui.only_server import DatabaseHold, hold_home

OTHER_MACHINE, SINCE = "another-machine/17@1.00", "2026-01-01 00:00:00"


@pytest.fixture
def instance():
    with open_instance(load_settings()) as instance:
        yield instance


@pytest.fixture
def hold(instance):
    return DatabaseHold(instance, process_name(os.getpid()), "2026-01-02 00:00:00")


@pytest.mark.fault(122)
def test_the_second_on_a_home_learns_who_holds_it(tmp_path):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom taxi_platform.ui.only_server import hold_home\n"
        "with hold_home(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"already serving .*: process {holder.pid} \(.*since 20\d\d-"):
            hold_home(tmp_path).__enter__()
    finally:
        holder.kill()
        holder.wait()
    with hold_home(tmp_path):  # the kernel released the killed process's lock
        pass


def test_one_that_is_stopped_while_it_watches_another_leaves_that_ones_entry_alone(instance, hold):
    other = DatabaseHold(instance, OTHER_MACHINE, SINCE)
    other.take()
    hold.take(lambda: True)
    other.renew()


@pytest.mark.fault(122)
def test_a_daemon_on_another_machine_that_is_alive_keeps_this_one_away(instance, hold, monkeypatch):
    other = DatabaseHold(instance, OTHER_MACHINE, SINCE)
    other.take()
    monkeypatch.setattr(only_server.time, "sleep", lambda seconds: other.renew())
    with pytest.raises(
        UserError, match=r"already serving this database: process 17 on another-machine, since 2026-01-01"
    ):
        hold.take()


def test_one_that_is_gone_does_not(instance, hold, monkeypatch):
    DatabaseHold(instance, OTHER_MACHINE, SINCE).take()
    monkeypatch.setattr(only_server, "WATCH_SECONDS", 0.1)
    hold.take()
    hold.renew()
    hold.release()
    monkeypatch.setattr(only_server, "WATCH_SECONDS", 60)
    DatabaseHold(instance, OTHER_MACHINE, SINCE).take()  # at once, because the entry was removed


def test_a_process_of_this_machine_that_died_is_not_waited_for(instance, hold, monkeypatch):
    DatabaseHold(instance, f"{socket.gethostname()}/1@1.00", SINCE).take()
    monkeypatch.setattr(only_server.time, "sleep", lambda seconds: pytest.fail("waited"))
    hold.take()


def test_one_that_lost_its_entry_to_another_stops(instance, hold, monkeypatch):
    hold.take()
    monkeypatch.setattr(only_server, "WATCH_SECONDS", 0.1)
    other = DatabaseHold(instance, OTHER_MACHINE, SINCE)
    other.take()
    with pytest.raises(
        TaxiError, match=r"begun to serve this database elsewhere: process 17 on another-machine, since"
    ):
        hold.renew()
    hold.release()
    other.renew()  # the entry that is not ours was left alone
