"""What runs and workers find imported and built.

Nothing here may open a connection or leave a thread: a fork copies only the thread that forks.
"""

from __future__ import annotations

import gc
import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress

from taxi_platform.settings import Settings, load_settings
from taxi_platform.trips.collecting import collect_seldom

WITHOUT_THREADS = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""NumPy and pyarrow start threads when they are imported, unless these say otherwise. Runs need neither."""


def warm_up(also: Callable[[], None] = lambda: None) -> None:
    """Import what every run needs, and do what else is wanted."""
    collect_seldom()
    os.environ |= WITHOUT_THREADS
    with suppress(Exception):  # a full disk, or a wrong setting: each run does this itself, and reports it
        _import_modules()
        also()
    import duckdb

    duckdb.default_connection().close()  # DuckDB opens it when it is imported, with a thread
    gc.freeze()  # what is here stays: a collection in a run would write to, and so copy, every page of it


def _import_modules() -> None:
    from taxi_platform.marts.view_sql import view_select
    from taxi_platform.marts.views import VIEWS
    from taxi_platform.runs.dagster_internals import import_what_runs_use
    from taxi_platform.trips.casting import identifier
    from taxi_platform.trips.months import Dataset

    import_what_runs_use()
    for name in _modules(load_settings()):
        importlib.import_module(name)
    for view in VIEWS.values():  # 0.1 s, as trips.duckdb has them
        view_select(view, list(Dataset), "duckdb", identifier)


def _modules(settings: Settings) -> Iterator[str]:
    """What is otherwise imported where it is used, as these settings use it."""
    yield from (
        "numpy",
        "pyarrow.dataset",
        "pyarrow.parquet",
        "taxi_platform.definitions",
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
