"""DuckDB without a database file, for queries over Parquet files: one for the process, as opening one takes 11 ms."""

from __future__ import annotations

import os
from functools import cache

import duckdb


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


def is_unreadable(error: duckdb.Error) -> bool:
    """Whether a query failed because of a file that it reads, not because of its expressions."""
    # What DuckDB 2 says of a damaged footer or page has no class of its own.
    return isinstance(error, duckdb.IOException | duckdb.InvalidInputException) or type(error) is duckdb.Error
