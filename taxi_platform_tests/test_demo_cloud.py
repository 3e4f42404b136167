"""`make demo-cloud`: months in the emulators, read by Google's clients, and nothing left, also after Ctrl-C."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from taxi_platform_tests.support.emulators.fixtures import require_bigquery_emulator

pytestmark = pytest.mark.bigquery
SCRIPT = Path(__file__).parents[1] / "scripts" / "demo_cloud.py"


@pytest.fixture
def started(tmp_path):
    """The demo, begun; nothing that it started, and no file of it, is there after the test."""
    require_bigquery_emulator()
    environment = {**os.environ, "TMPDIR": str(tmp_path), "COLUMNS": "200"}
    command = [sys.executable, str(SCRIPT)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, text=True
    ) as demo:
        try:
            yield demo
        finally:
            demo.kill()


def children_until(demo, text):
    """What the demo prints up to a line with this text, and the processes that it has then."""
    printed = []
    while text not in (line := demo.stdout.readline()):
        assert line, "".join(printed)
        printed.append(line)
    return "".join(printed), psutil.Process(demo.pid).children(recursive=True)


def test_three_months_are_loaded_and_read_again_by_googles_clients(started, tmp_path):
    before, children = children_until(started, "$ taxi ingest")
    rest = started.stdout.read()
    assert started.wait(300) == 0, rest
    assert re.search(r"export STORAGE_EMULATOR_HOST='http://127\.0\.0\.1:\d+'\n", before)
    by_month = re.search(r"from the table green_trips *\n.*\n((?:20.*\n){3})", rest)
    assert by_month, rest
    trips = [int(line.split()[1].replace(",", "")) for line in by_month[1].splitlines()]
    assert [count for count in trips if not 1990 <= count < 2000] == []  # a row in 2,000 is rejected
    assert re.findall(r"taxi/raw/green +(\d+) ", rest) == ["6"]  # three files and three manifests
    assert re.search(r"^view +daily_zones hours ", rest, re.MULTILINE)
    _, alive = psutil.wait_procs(children, 10)
    assert alive == []
    assert list(tmp_path.glob("taxi-*")) == []


@pytest.mark.soak
def test_ctrl_c_ends_everything_that_it_started(started, tmp_path):
    _, children = children_until(started, "$ taxi bootstrap")
    assert len(children) >= 2
    started.send_signal(signal.SIGINT)
    rest = started.stdout.read()
    assert started.wait(300) == 130, rest
    assert "Traceback" not in rest
    assert "Stopped. Nothing is left." in rest
    _, alive = psutil.wait_procs(children, 10)
    assert alive == []
    assert list(tmp_path.glob("taxi-*")) == []
