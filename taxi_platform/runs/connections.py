"""Connections to Dagster's SQLite files, kept open while runs are executed here.

Dagster makes an engine for each query: 190 times in the run of a month it opens and closes the file, compiles the
statement and, being the last to close, moves the write-ahead log into the file. That took a third of a small month.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import threading
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import QueuePool

from taxi_platform.runs.dagster_internals import sql_module, sqlite_event_log_class, sqlite_modules

FILES_HELD = 6
"""Engines, one a file: the index, runs, schedules, and the latest runs' own events."""


class _Engines:
    """One engine a file, each with its connections and compiled statements; the least recently used are disposed of."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._engines: OrderedDict[str, Engine] = OrderedDict()

    def engine(self, url: str, **options: Any) -> Engine:
        with self._lock:
            if url not in self._engines:
                options |= {"poolclass": QueuePool, "pool_size": 1, "max_overflow": -1}
                engine = create_engine(url, **options)
                event.listen(engine, "connect", _sync_at_checkpoints)
                engine.dispose = lambda close=True: None  # type: ignore[method-assign]  # Dagster's, after each query
                self._engines[url] = engine
            engine = self._engines[url]
            self._engines.move_to_end(url)
            outdated = [self._engines.popitem(last=False)[1] for _ in range(len(self._engines) - FILES_HELD)]
        for other in outdated:
            Engine.dispose(other)
        return engine

    def close(self) -> None:
        with self._lock:
            while self._engines:
                Engine.dispose(self._engines.popitem()[1])


def _sync_at_checkpoints(connection: sqlite3.Connection, record: object) -> None:
    """Sync the log when it is moved into the file, not at each of a month's 190 commits.

    A power failure may then undo the last events of a run, never damage the file; a killed process loses nothing. What
    is done is decided by lake and warehouse, whose files are synced.
    """
    connection.execute("PRAGMA synchronous = NORMAL").close()


@contextmanager
def held_connections() -> Iterator[None]:
    """Reuse connections to Dagster's SQLite files in this process until the end; then they are closed."""
    engines, modules = _Engines(), sqlite_modules()
    originals = [module.create_engine for module in modules]
    events = sqlite_event_log_class()
    make_file = events._initdb
    _read_migrations_once()
    try:
        for module in modules:
            module.create_engine = engines.engine
        events._initdb = _initialized_by_copy(make_file)
        yield
    finally:
        events._initdb = make_file
        for module, original in zip(modules, originals, strict=True):
            module.create_engine = original
        engines.close()


def _initialized_by_copy(make_file: Any) -> Any:
    """Dagster's `_initdb`, but a new run's file is a copy of an empty one: 60 statements less for each run."""

    def initdb(self: Any, engine: Engine, for_index_shard: bool = False) -> None:
        path, index = Path(str(engine.url.database)), Path(self.path_for_shard("index"))
        if for_index_shard or path.exists() or path == index or not (content := _empty_file(index)):
            make_file(self, engine, for_index_shard)
            return
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):  # another process was first
                os.link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    return initdb


@cache
def _empty_file(index: Path) -> bytes:
    """A file with the tables of the index, which are those of every run, and its revision; empty if it has none."""
    with closing(sqlite3.connect(f"{index.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        query = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY rowid"
        statements = [sql for (sql,) in connection.execute(query)]
        if not any("alembic_version" in sql for sql in statements):
            return b""
        revisions = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    if not revisions:
        return b""
    with tempfile.TemporaryDirectory(prefix="taxi-") as folder:
        path = Path(folder) / "empty.db"
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(";\n".join(statements))
            connection.executemany("INSERT INTO alembic_version VALUES (?)", revisions)
            connection.commit()
        return path.read_bytes()


@cache
def _read_migrations_once() -> None:
    """Dagster compiles its 89 migrations for each file that it opens, to know which is the latest."""
    sql = sql_module()
    read = sql.ScriptDirectory.from_config

    class ReadOnce:
        @staticmethod
        def from_config(config: Any) -> Any:
            location = config.get_main_option("script_location")
            if location not in _migrations:
                _migrations[location] = read(config)
            return _migrations[location]

    sql.ScriptDirectory = ReadOnce


_migrations: dict[str, Any] = {}
