"""Cycles of objects are searched for seldom, and not when a process ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

CYCLE_AT_THE_END = (
    "class Loud:\n"
    "    def __del__(self):\n"
    "        print('collected', flush=True)\n"
    "def leave_a_cycle():\n"
    "    loud = Loud()\n"
    "    loud.itself = loud\n"
    "leave_a_cycle()\n"
)
DAEMON = (
    "import runpy, sys\n"
    "sys.argv = ['daemon', 'no-command']\n"
    "try:\n"
    "    runpy.run_module('taxi_platform.ui.daemon', run_name='__main__')\n"
    "except SystemExit:\n"
    "    pass\n"
)
WEBSERVER = (
    "from taxi_platform.ui import webserver\n"
    "try:\n"
    "    webserver.main('workspace.yaml', '0.0.0.0', 3000)\n"
    "except webserver.UserError:\n"
    "    pass\n"
)


@pytest.mark.parametrize(
    ("before", "printed"),
    [
        ("", "collected"),
        ("from taxi_platform.trips.collecting import collect_seldom; collect_seldom()\n", ""),
        ("from taxi_platform.definitions import defs; defs()\n", ""),
        (DAEMON, ""),
        (WEBSERVER, ""),
    ],
    ids=["Python's way", "ours", "a code location's", "the daemon's", "the webserver's"],
)
def test_a_process_does_not_collect_what_ends_with_it(monkeypatch, tmp_path, before, printed):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    child = subprocess.run(
        [sys.executable, "-c", before + CYCLE_AT_THE_END], capture_output=True, text=True, check=True
    )
    assert child.stdout.strip() == printed
