"""Dagster's daemon, patient with its databases, which runs killed runs again, and looks at backfills often.

Run as `python -m taxi_platform.ui.daemon run -w WORKSPACE`.
"""

from __future__ import annotations

import os
import runpy
from pathlib import Path

from taxi_platform.runs.connections import held_connections, hold_postgres_in_daemon
from taxi_platform.runs.dagster_internals import look_for_backfills_every
from taxi_platform.runs.retries import retry_killed_runs
from taxi_platform.runs.sqlite import wait_for_locked_files
from taxi_platform.trips.collecting import collect_seldom
from taxi_platform.trips.locks import lock_file

END_SECONDS = 120
"""How long an earlier daemon may take to end whose supervisor was killed: two at once would both launch what is due."""
BACKFILL_SECONDS = 5
"""Between two looks at backfills, as at sensors. One takes 2 ms with no backfill, and 0.3 s with one in progress.
Dagster's own 30 s save 5 % of a core meanwhile, and have people wait for the first run and again for the end."""
RECOUNTED_EVENTS = "1000"
"""How many events each look reads once more. On PostgreSQL an event may appear after others with higher numbers, and a
month whose event is passed over never counts as done; this is what all runs together write in seconds."""

if __name__ == "__main__":
    collect_seldom()
    # Otherwise Dagster ends a backfill for good if it looks at it while the code server starts again.
    os.environ.setdefault("DAGSTER_BACKFILL_RETRY_DEFINITION_CHANGED_ERROR", "1")
    os.environ.setdefault("ASSET_BACKFILL_CURSOR_OFFSET", RECOUNTED_EVENTS)
    look_for_backfills_every(BACKFILL_SECONDS)
    home = Path(os.environ["DAGSTER_HOME"])
    wait_for_locked_files()
    retry_killed_runs()
    hold_postgres_in_daemon()
    with lock_file(home / "daemon.lock", "the end of the earlier daemon", END_SECONDS), held_connections():
        runpy.run_module("dagster._daemon", run_name="__main__", alter_sys=True)
