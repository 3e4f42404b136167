"""What systemd is told, on a real datagram socket, and the lines that the journal reads."""

import logging
import os
import socket
import subprocess
import sys
import time

import pytest

from taxi_platform.ui.service_manager import LineFormatter, ServiceManager


@pytest.fixture(params=["path", "abstract"])
def listener(request, tmp_path):
    """A socket as systemd's, and its name in NOTIFY_SOCKET."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@taxi-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name.replace("@", "\0", 1) if request.param == "abstract" else name)
        receiver.settimeout(5)
        yield receiver, name


def test_fields_arrive_at_the_socket_which_children_do_not_inherit(listener):
    receiver, name = listener
    variables = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "4000000", "WATCHDOG_PID": str(os.getpid()), "HOME": "/"}
    manager = ServiceManager(variables)
    assert variables == {"HOME": "/"}
    manager.tell(READY=1, STATUS="Running")
    assert receiver.recv(1000) == b"READY=1\nSTATUS=Running"
    manager.status("one\ntwo")
    manager.status("one\ntwo")
    manager.sign_of_life()
    manager.sign_of_life()
    manager.reloading()
    assert receiver.recv(1000) == b"STATUS=one two"
    assert receiver.recv(1000) == b"WATCHDOG=1"
    first, second = receiver.recv(1000).decode().split("\n")
    assert first == "RELOADING=1"
    assert abs(int(second.removeprefix("MONOTONIC_USEC=")) / 1e6 - time.monotonic()) < 5


def test_the_watchdog_of_another_process_is_not_fed(listener):
    receiver, name = listener
    manager = ServiceManager({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"})
    manager.sign_of_life()
    manager.tell(READY=1)
    assert receiver.recv(1000) == b"READY=1"


def test_a_manager_that_does_not_listen_disturbs_nothing(tmp_path):
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).tell(READY=1)
    ServiceManager({}).tell(READY=1)


def test_a_line_for_the_journal_has_its_priority_and_never_a_second_line():
    record = logging.makeLogRecord({"msg": "one\ntwo", "levelno": logging.WARNING, "levelname": "WARNING"})
    assert LineFormatter(for_journal=True).format(record) == "<4>one two"
    assert LineFormatter(for_journal=False).format(record).endswith("WARNING one two")


CODE = "from taxi_platform.ui.service_manager import goes_to_journal; print(goes_to_journal())"


@pytest.mark.parametrize(("offset", "expected"), [(0, "True\n"), (1, "False\n")])
def test_only_stderr_itself_counts_as_the_journal(offset, expected):
    read, write = os.pipe()
    status = os.fstat(write)
    variables = {**os.environ, "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino + offset}"}
    command = [sys.executable, "-c", CODE]
    answer = subprocess.run(command, env=variables, stderr=write, stdout=subprocess.PIPE, text=True, timeout=300)
    os.close(read)
    os.close(write)
    assert answer.stdout == expected
