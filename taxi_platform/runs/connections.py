"""Connections to Dagster's SQLite files, or to its PostgreSQL, kept open while runs are executed here.

Dagster makes an engine for each query: 190 times in the run of a month it opens and closes the file, compiles the
statement and, being the last to close, moves the write-ahead log into the file. That took a third of a small month.
To PostgreSQL it connects anew for each query, 300 times a month, with a password that is slow to compare by design.
"""

from __future__ import annotations

import os
import select
import sqlite3
import tempfile
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError, DisconnectionError, InvalidRequestError, OperationalError
from sqlalchemy.pool import QueuePool
from tenacity import Retrying, retry_if_exception_type, wait_random

from taxi_platform.runs.dagster_internals import daemon_command, sql_module, sqlite_event_log_class, sqlite_modules
from taxi_platform.runs.sqlite_events import events_stored_with_less_work

T = TypeVar("T")

FILES_HELD = 6
"""Engines, one a file: the index, runs, schedules, and the latest runs' own events."""
CONNECTIONS_HELD = 5
"""To PostgreSQL, in each process at most: as many as it has ever used at once. A run uses two."""
STORAGE_SECONDS = 180
"""How long a run waits for a PostgreSQL that is down or restarts. Dagster gives up after 11 s, and fails the step."""
IDLE_SECONDS = 30
"""Idle for longer, a connection is asked whether it still works: a network in between may have forgotten it."""

_away_since: dict[Engine, float] = {}
"""When a server was first away, in seconds since the boot: Dagster repeats what has failed, and would wait as often."""
_held: list[_Engines] = []
"""Those of `held_connections`, for `close_connections`."""


class _Engines:
    """One engine a file, each with its connections and compiled statements; the least recently used are disposed of."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._engines: OrderedDict[str, Engine] = OrderedDict()

    def engine(self, url: str, **options: Any) -> Engine:
        with self._lock:
            if url not in self._engines:
                # Two: while Dagster holds one, it asks by another whether a table exists, nine times a month.
                options |= {"poolclass": QueuePool, "pool_size": 2, "max_overflow": -1, "pool_use_lifo": True}
                engine = create_engine(url, **options)
                event.listen(engine, "connect", _sync_at_checkpoints)
                _read_schema_once(engine, "get_columns", "has_table")
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
    _held.append(engines)
    try:
        for module in modules:
            module.create_engine = engines.engine
        events._initdb = _initialized_by_copy(make_file)
        with events_stored_with_less_work():
            yield
    finally:
        _held.remove(engines)
        events._initdb = make_file
        for module, original in zip(modules, originals, strict=True):
            module.create_engine = original
        engines.close()


@contextmanager
def held_postgres(instance: dg.DagsterInstance) -> Iterator[None]:
    """Reuse connections to the PostgreSQL of this instance, if it has one, until the end; then they are closed.

    Its storages share them. One that the server has closed meanwhile is opened anew.
    """
    engines: dict[Any, Engine] = {}
    try:
        for storage in _postgres_storages(instance):
            database = (storage.postgres_url, id(storage._token_provider))
            if database not in engines:
                engines[database] = _pooled(storage)
            storage._engine = engines[database]
        yield
    finally:
        for engine in engines.values():
            engine.dispose()


def check_postgres(instance: dg.DagsterInstance) -> None:
    """In a webserver, which keeps connections itself but answers with an error once after the server has restarted."""
    for storage in _postgres_storages(instance):
        _checked(storage._engine)


def close_connections(instance: dg.DagsterInstance) -> None:
    """Close what is held and nobody uses; it is opened anew when it is needed. Before a fork: no two may share one."""
    for engines in _held:
        engines.close()
    for storage in _postgres_storages(instance):
        storage._engine.dispose()


def read_schema(instance: dg.DagsterInstance) -> None:
    """Ask PostgreSQL, before forks, for the tables and columns that each run would ask for: see `_read_once`."""
    events: Any = instance.event_log_storage
    runs: Any = instance.run_storage
    if events in _postgres_storages(instance):
        for table in ("asset_event_tags", "asset_check_executions", "concurrency_slots"):
            events.has_table(table)
        _ = events.has_default_pool_limit_col
        events.has_asset_key_index_cols()
        runs.has_run_stats_index_cols()


def wait_for_postgres() -> None:
    """In a process that only executes runs: have them wait for Dagster's PostgreSQL where it is down or restarts.

    Otherwise a step fails that cannot store its event, and what failed by itself is not run again.
    """
    Engine._connection_cls = _Waiting


class _Waiting(Connection):
    """A connection that is waited for, and whose statement is repeated if the server ends meanwhile.

    Dagster commits each statement by itself. One that was executed just before the server's end is executed twice: an
    event is then stored twice.
    """

    def __init__(self, engine: Engine, *arguments: Any, **options: Any) -> None:
        _try_long(engine, lambda: super(_Waiting, self).__init__(engine, *arguments, **options))

    def execute(self, *arguments: Any, **options: Any) -> Any:
        if str(getattr(arguments[0], "text", "")).startswith("NOTIFY"):
            return None  # with each event, to versions of Dagster that listened: a quarter of a run's statements
        try:
            return super().execute(*arguments, **options)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            self.rollback()
            try:
                return _try_long(self.engine, lambda: super(_Waiting, self).execute(*arguments, **options))
            except InvalidRequestError:  # in a transaction, which would have to be repeated as a whole
                raise error from None


def _try_long(engine: Engine, attempt: Callable[[], T]) -> T:
    try:
        result = attempt()  # before what it costs to prepare for more
        _away_since.pop(engine, None)
        return result
    except OperationalError:
        if engine.dialect.name != "postgresql":
            raise
    since = _away_since.setdefault(engine, time.monotonic())
    result = Retrying(
        retry=retry_if_exception_type(OperationalError),
        stop=lambda _: time.monotonic() - since > STORAGE_SECONDS,
        wait=wait_random(0.2, 2),
        reraise=True,
    )(attempt)
    _away_since.pop(engine, None)
    return result


def _postgres_storages(instance: dg.DagsterInstance) -> list[Any]:
    storages = (instance.run_storage, instance.event_log_storage, instance.schedule_storage)
    return [storage for storage in storages if hasattr(storage, "postgres_url")]


def hold_postgres_in_daemon() -> None:
    """In a daemon, which otherwise connects 25 times a second. Called once, before it starts."""
    command = daemon_command()
    open_instance = command.get_instance_for_cli

    @contextmanager
    def held(*arguments: Any, **options: Any) -> Iterator[dg.DagsterInstance]:
        with open_instance(*arguments, **options) as instance, held_postgres(instance):
            yield instance

    command.get_instance_for_cli = held


def _pooled(storage: Any) -> Engine:
    from dagster_postgres.utils import create_pg_engine

    # Dagster often asks something while it holds a connection: with a pool of one, each such time costs a new one.
    options = {"isolation_level": "AUTOCOMMIT", "pool_size": CONNECTIONS_HELD, "max_overflow": -1}
    options["use_native_hstore"] = False  # Dagster has no such column, and each connection would look for the type
    return _checked(create_pg_engine(storage.postgres_url, storage._token_provider, pool_use_lifo=True, **options))


def _checked(engine: Engine) -> Engine:
    event.listen(engine, "checkin", _note_the_time)
    event.listen(engine, "checkout", _check_connection)
    _read_schema_once(engine, "get_columns", "get_table_names", "has_table")
    return engine


def _note_the_time(connection: Any, record: Any) -> None:
    record.info["idle since"] = time.monotonic()


def _check_connection(connection: Any, record: Any, proxy: Any) -> None:
    """Have a connection that the server has closed be replaced by a new one.

    Its socket says so, without a question to the server, but not that a network in between has forgotten it.
    """
    if (since := record.info.get("idle since")) is None:  # it is new
        return
    try:
        socket = select.poll()
        socket.register(connection.fileno(), select.POLLIN)
        if socket.poll(0) or time.monotonic() - since > IDLE_SECONDS:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
    except connection.Error as error:
        raise DisconnectionError from error


def _read_schema_once(engine: Engine, *names: str) -> None:
    """Dagster asks for the tables and columns of its own 90 times a month; what is there, stays."""
    for name in names:
        setattr(engine.dialect, name, _read_once(getattr(engine.dialect, name)))


def _read_once(read: Any) -> Any:
    known: dict[Any, Any] = {}

    def read_once(connection: Any, *names: Any, **options: Any) -> Any:
        options.pop("info_cache", None)
        key = names, *sorted(options.items())
        if not known.get(key):
            known[key] = read(connection, *names, **options)
        return known[key]

    return read_once


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
            os.link(temporary, path)
        except OSError:
            # Who looks at the run that begins was first, and may not have made the tables yet. Or the file system has
            # no hard links, as exFAT; or the disk is full, as Dagster then says.
            make_file(self, engine, for_index_shard)
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
