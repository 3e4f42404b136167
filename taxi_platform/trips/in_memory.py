"""DuckDB without a database file: one for the process' queries over Parquet files, and one for what it writes.

Both stay open, as opening and closing one takes 24 ms.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import duckdb

from taxi_platform.trips.casting import literal
from taxi_platform.trips.engine import NOT_BY_STATISTICS, Engine

_idle: dict[tuple[int, Engine], duckdb.DuckDBPyConnection] = {}
"""Process and what may be used → the DuckDB that wrote files and has nothing to do. By process, because one that a fork
inherits has lost its threads."""


def in_memory() -> duckdb.DuckDBPyConnection:
    """A connection of its own, for this thread; close it after use."""
    return _database(os.getpid()).cursor()


@cache
def _database(process: int) -> duckdb.DuckDBPyConnection:
    # Parts of files are not kept: they would fill the memory of a process that handles many months.
    config: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": False,
        "enable_external_file_cache": False,
    }
    return duckdb.connect(":memory:", config=config)


@contextmanager
def writing_files(engine: Engine, spill: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that writes files, with a DuckDB to itself that spills into the folder `spill`.

    That one is used again, unless it failed or spilled: it could then not spill into another folder.
    """
    key = os.getpid(), engine
    database = _idle.pop(key, None) or _for_files(engine)
    is_usable = False
    try:
        database.execute(f"SET temp_directory = {literal(str(spill))}")
        with database.cursor() as connection:
            connection.execute("SET enable_progress_bar = false; SET TimeZone = 'UTC'")
            yield connection
        is_usable = not spill.exists()
    finally:
        if is_usable:
            _idle[key] = database
        else:
            database.close()


def _for_files(engine: Engine) -> duckdb.DuckDBPyConnection:
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": engine.memory_limit,
        "threads": engine.threads,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "disabled_optimizers": NOT_BY_STATISTICS,
        "enable_external_file_cache": False,
    }
    return duckdb.connect(":memory:", config=config)


def is_unreadable(error: duckdb.Error) -> bool:
    """Whether a query failed because of a file that it reads, not because of its expressions."""
    # What DuckDB 2 says of a damaged footer or page has no class of its own.
    return isinstance(error, duckdb.IOException | duckdb.InvalidInputException) or type(error) is duckdb.Error
