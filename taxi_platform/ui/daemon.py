"""Dagster's daemon, which waits for locked SQLite files: `python -m taxi_platform.ui.daemon run -w WORKSPACE`."""

from __future__ import annotations

import runpy

from taxi_platform.runs.connections import held_connections
from taxi_platform.runs.sqlite import wait_for_locked_files

if __name__ == "__main__":
    wait_for_locked_files()
    with held_connections():
        runpy.run_module("dagster._daemon", run_name="__main__", alter_sys=True)
