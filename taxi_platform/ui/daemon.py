"""Dagster's daemon, which waits for locked SQLite files: `python -m taxi_platform.ui.daemon run -w WORKSPACE`."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

from taxi_platform.runs.connections import held_connections
from taxi_platform.runs.retries import retry_killed_runs
from taxi_platform.runs.sqlite import wait_for_locked_files
from taxi_platform.trips.locks import lock_file

END_SECONDS = 120
"""How long an earlier daemon may take to end whose supervisor was killed: two at once would both launch what is due."""

if __name__ == "__main__":
    # Otherwise Dagster ends a backfill for good if it looks at it while the code server starts again.
    os.environ.setdefault("DAGSTER_BACKFILL_RETRY_DEFINITION_CHANGED_ERROR", "1")
    home = Path(os.environ["DAGSTER_HOME"])
    wait_for_locked_files()
    retry_killed_runs()
    with lock_file(home / "daemon.lock", "the end of the earlier daemon", END_SECONDS), held_connections():
        runpy.run_module("dagster._daemon", run_name="__main__", alter_sys=True)
