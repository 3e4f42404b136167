"""What runs find imported and built: the process that a code server forks them from imports this module.

`fork_runs` in `runs/dagster_internals.py` says so. Nothing here may open a connection or leave a thread: a fork copies
only the thread that forks.
"""

from __future__ import annotations

import gc
import signal
from contextlib import suppress
from multiprocessing.util import register_after_fork

import duckdb

from taxi_platform.definitions import defs
from taxi_platform.runs.dagster_internals import import_what_runs_use
from taxi_platform.trips.processes import end_with_parent


def warm_up() -> None:
    """Import and build what every run needs, which takes a run from 2 s of processor time to 0.5 s."""
    import_what_runs_use()
    with suppress(Exception):  # a wrong setting: each run builds the definitions itself, and reports it
        defs().get_repository_def()
    duckdb.default_connection().close()  # DuckDB opens it when it is imported, with a thread
    gc.collect()
    gc.freeze()  # what is here stays: a collection in a run would write to, and so copy, every page of it


def _begin_run(module: object) -> None:
    """The code server learns of a run's end from this process, so no run may outlive it: it would be run again."""
    end_with_parent(signal.SIGKILL)


register_after_fork(warm_up, _begin_run)
warm_up()
