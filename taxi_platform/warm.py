"""What runs find imported and built: the process that a code server forks them from imports this module.

`fork_runs` in `runs/dagster_internals.py` says so. Nothing here may open a connection or leave a thread: a fork copies
only the thread that forks.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from multiprocessing.util import Finalize, register_after_fork

import dagster as dg
import duckdb

from taxi_platform import definitions
from taxi_platform.marts.view_sql import view_select
from taxi_platform.marts.views import VIEWS
from taxi_platform.runs.connections import held_connections, wait_for_postgres
from taxi_platform.runs.dagster_internals import import_what_runs_use
from taxi_platform.runs.mirroring import mirrored_by_threads
from taxi_platform.settings import Settings, load_settings
from taxi_platform.trips.casting import identifier
from taxi_platform.trips.months import Dataset
from taxi_platform.trips.processes import end_with_parent

WITHOUT_THREADS = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""NumPy and pyarrow start threads when they are imported, unless these say otherwise. Runs need neither."""


def warm_up() -> None:
    """Import and build what every run needs."""
    os.environ |= WITHOUT_THREADS
    import_what_runs_use()
    with held_connections(), dg.DagsterInstance.local_temp():
        pass  # what Dagster reads once in a process, such as its migrations, has now been read
    with suppress(Exception):  # a wrong setting: each run builds the definitions itself, and reports it
        settings = load_settings()
        for name in _modules(settings):
            importlib.import_module(name)
        for view in VIEWS.values():  # 0.1 s, as trips.duckdb has them
            view_select(view, list(Dataset), "duckdb", identifier)
        built = definitions.defs()
        built.get_repository_def()
        vars(definitions)["defs"] = built  # by this name Dagster finds them, built or to be built
    duckdb.default_connection().close()  # DuckDB opens it when it is imported, with a thread
    gc.collect()
    gc.freeze()  # what is here stays: a collection in a run would write to, and so copy, every page of it


def _modules(settings: Settings) -> Iterator[str]:
    """What is otherwise imported where it is used, as these settings use it."""
    yield from (
        "numpy",
        "pyarrow.dataset",
        "pyarrow.parquet",
        "taxi_platform.trips.cleaning",
        "taxi_platform.marts.computing",
    )
    if settings.source_url.startswith("sample:"):
        yield "taxi_platform.sources.sample.writing"
    urls = (settings.lake_url, settings.warehouse_url, settings.serving_url or "")
    if any(url.startswith(("gs:", "bigquery:")) for url in urls):
        yield "dagster_gcp"  # 1 s
    if any(url.startswith("postgres") for url in urls):
        yield "psycopg"


def _begin_run(warm_up: object) -> None:
    """In the process of a run, before it begins: one that the fork server forks, or an agent.

    The code server learns of a run's end from the process that forked it, so no run may outlive that: it would be run
    again.
    """
    end_with_parent(signal.SIGKILL)
    until_end = ExitStack()
    until_end.enter_context(held_connections())
    wait_for_postgres()
    until_end.enter_context(mirrored_by_threads())
    Finalize(None, until_end.close, exitpriority=1)


register_after_fork(warm_up, _begin_run)
warm_up()
