"""The warehouse in PostgreSQL: one list partition per month, built as a separate table and attached as the last step.

A load is one transaction from the first row to the swap, so a run that is killed leaves nothing behind.
"""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import errors
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random

from taxi_platform.trips.casting import identifier, literal
from taxi_platform.trips.contract import PICKUP, Column
from taxi_platform.trips.errors import WarehouseBusy, WarehouseError
from taxi_platform.trips.faults import fault_point
from taxi_platform.trips.locks import LOG_SECONDS, counted_wait, log_wait, wait_logger
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.warehouse.base import (
    DROP_TABLE,
    OTHER_RUN_WAIT_SECONDS,
    Action,
    Warehouse,
    busy_with_other_run,
)
from taxi_platform.warehouse.postgres_connection import PostgresSchema
from taxi_platform.warehouse.postgres_copy import binary_copy
from taxi_platform.warehouse.row_hash import IN_POSTGRES
from taxi_platform.warehouse.session import MissingTable, Session, StagedRows, view_version
from taxi_platform.warehouse.tables import Table, TableFile

READER_WAIT_SECONDS = 300.0
"""A query over every month takes minutes, and the swap needs a moment without one."""

LOCK_TIMEOUT = "500ms"
"""How long new readers may queue behind one attempt of the swap; between attempts they pass."""


class PostgresSession(Session):
    """An open connection to one schema; statements commit by themselves unless inside a transaction."""

    dialect = "postgres"

    def __init__(self, connection: psycopg.Connection, schema: PostgresSchema, wait_seconds: float) -> None:
        self.connection = connection
        self.schema = schema
        self.wait_seconds = wait_seconds
        self._staged: list[tuple[str, str]] = []
        """Parent and new table of each table staged in the open transaction."""

    def name(self, table: str) -> str:
        return f"{identifier(self.schema.name)}.{identifier(table)}"

    def type_of(self, column: Column) -> str:
        return column.column_type.postgres

    def columns(self, table: Table) -> dict[str, str]:
        rows = self.execute(
            "SELECT attname, format_type(atttypid, atttypmod), pg_get_partkeydef(attrelid) FROM pg_attribute "
            f"WHERE attrelid = to_regclass({literal(self.name(table.name))}) AND attnum > 0 AND NOT attisdropped "
            "ORDER BY attnum"
        )
        if rows and _is_partitioned(table) and rows[0][2] != "LIST (file_month)":
            problem = f"{table.name} in {self.schema.url} is not partitioned by LIST (file_month)."
            raise WarehouseError(problem, DROP_TABLE)
        return {name: type_name for name, type_name, _ in rows}

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        try:
            cursor = self.connection.execute(statement)
        except errors.UndefinedTable as error:
            problem = f"{self.schema.url}: {str(error).splitlines()[0]}."
            raise MissingTable(problem, "Load a month, or run taxi bootstrap.") from error
        return cursor.fetchall() if cursor.description else []

    def relations(self) -> dict[str, str | None]:
        relations = self.execute(
            "SELECT relname, CASE relkind WHEN 'v' THEN obj_description(oid, 'pg_class') END FROM pg_class "
            f"WHERE relnamespace = to_regnamespace({literal(identifier(self.schema.name))}) "
            "AND relkind IN ('r', 'p', 'v', 'm', 'f')"
        )
        return {name: view_version(comment) for name, comment in relations}

    def replace_view(self, view: Table, select: str, version: str) -> None:
        """See the base. A view with other columns than before is dropped first, with the grants on it."""

        def replace() -> None:
            self._lock("")
            try:
                with self.connection.transaction():
                    super(PostgresSession, self).replace_view(view, select, version)
            except errors.InvalidTableDefinition:
                self.execute(f"DROP VIEW {self.name(view.name)}")
                super(PostgresSession, self).replace_view(view, select, version)

        try:
            self._without_readers(replace)
        except errors.DependentObjectsStillExist as error:
            problem = f"{view.name} in {self.schema.url} gets other columns, but your own views depend on it."
            raise WarehouseError(problem, "Drop those views, run again, and make them anew.") from error

    def partitioning(self, table: Table) -> str:
        return "PARTITION BY LIST (file_month)" if _is_partitioned(table) else ""

    def create_or_widen(self, table: Table) -> None:
        def create() -> None:
            self._lock("")
            # Not IF NOT EXISTS, which requires the right to create a schema even if it exists.
            if not self.execute(f"SELECT 1 FROM pg_namespace WHERE nspname = {literal(self.schema.name)}"):
                self.execute(f"CREATE SCHEMA {identifier(self.schema.name)}")
            is_new = not self.columns(table)
            super(PostgresSession, self).create_or_widen(table)
            if is_new:
                self._index_pickup(table, self.name(table.name))
            if is_new and table.small:
                self.execute(f"CREATE INDEX ON {self.name(table.name)} (file_month)")

        self._without_readers(create)

    @contextmanager
    def transaction(self, dataset_month: DatasetMonth) -> Iterator[None]:
        """See the base. Other loads of the month wait until it ends; readers notice only the swap."""
        with self.connection.transaction():
            self._lock_month(dataset_month)
            self._staged = []
            yield
            self._without_readers(lambda: self._swap(dataset_month))
            fault_point("postgres_swapped")
        fault_point("postgres_committed")

    @contextmanager
    def stage(self, file: TableFile) -> Iterator[StagedRows]:
        """Build the month as a table of its own. Not by LIKE, which would lock the parent until the end."""
        month = file.dataset_month.month
        # The token distinguishes it from the month to be replaced, which may have the same version.
        token = f"{month.year:04}_{month.month:02}_{file.file_version}_{secrets.token_hex(3)}"
        parent, name = self.name(file.table.name), self.name(f"{file.table.name}_{token}")
        definitions = [f"{identifier(column)} {type_name}" for column, type_name in self.columns(file.table).items()]
        # With exactly this condition, ATTACH need not scan the table while it holds its lock.
        definitions.append(f"CHECK (file_month IS NOT NULL AND file_month = DATE '{month.first_day}')")
        self.execute(f"CREATE TABLE {name} ({', '.join(definitions)})")
        columns = ", ".join(column.name for column in file.table.columns)
        # Frozen rows are not written a second time later, and snapshots older than the swap see them too.
        with self.connection.cursor().copy(f"COPY {name} ({columns}) FROM STDIN (FORMAT binary, FREEZE)") as copy:
            for block in binary_copy(file.path, file.table.columns):
                copy.write(block)
                fault_point("postgres_copying")
        self._index_pickup(file.table, name)
        yield StagedRows(name)
        self._staged.append((parent, name))
        fault_point("postgres_built")

    def replace_rows(self, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        name, values = self.name(table.name), ", ".join("%s" for _ in table.columns)
        with self.connection.transaction():
            self._lock("")
            self.execute(f"DELETE FROM {name}")
            self.connection.cursor().executemany(f"INSERT INTO {name} VALUES ({values})", rows)

    def _lock(self, what: str) -> None:
        """Wait for other runs that change the same thing; the lock ends with the transaction."""
        key = literal(f"taxi_platform {self.schema.name}{what}")
        with counted_wait():
            self.execute(f"SELECT pg_advisory_xact_lock(hashtextextended({key}, 0))")

    def _lock_month(self, dataset_month: DatasetMonth) -> None:
        """Wait for other loads of the month; a wait of more than a few seconds is logged."""
        longest = f"SET LOCAL lock_timeout = '{OTHER_RUN_WAIT_SECONDS}s'"
        try:
            with self.connection.transaction():
                self.execute(f"SET LOCAL lock_timeout = '{LOG_SECONDS}s'")
                self._lock(f" {dataset_month}")
                self.execute(longest)
        except errors.LockNotAvailable:
            log_wait(f"{dataset_month} in {self.schema.url}", self._sessions("locktype = 'advisory'"))
            self.execute(longest)
            try:
                self._lock(f" {dataset_month}")
            except errors.LockNotAvailable as error:
                raise busy_with_other_run(f"the lock of {dataset_month}") from error

    def _sessions(self, condition: str) -> str:
        """The other sessions that hold such locks in this database, for a person who looks for them."""
        sessions = self.execute(
            "SELECT DISTINCT pid, application_name, state FROM pg_locks JOIN pg_stat_activity USING (pid) "
            f"WHERE granted AND pid <> pg_backend_pid() AND datname = current_database() AND {condition} LIMIT 5"
        )
        return ", ".join(f"session {pid} ({name or 'unnamed'}, {state})" for pid, name, state in sessions)

    def _readers(self) -> str:
        tables = f"SELECT oid FROM pg_class WHERE relnamespace = to_regnamespace({literal(self.schema.name)})"
        return self._sessions(f"relation IN ({tables})")

    def _index_pickup(self, table: Table, name: str) -> None:
        if any(column.name == PICKUP for column in table.columns):
            self.execute(f"CREATE INDEX ON {name} ({PICKUP})")

    def _swap(self, dataset_month: DatasetMonth) -> None:
        """Make the staged tables the month's partitions of their parents."""
        bound = f"FOR VALUES IN ('{dataset_month.month.first_day}')"
        for parent, name in self._staged:
            old_partitions = self.execute(
                "SELECT inhrelid::regclass::text FROM pg_inherits JOIN pg_class ON oid = inhrelid "
                f"WHERE inhparent = to_regclass({literal(parent)}) "
                f"AND pg_get_expr(relpartbound, oid) = {literal(bound)}"
            )
            for (quoted_name,) in old_partitions:
                self.execute(f"DROP TABLE {quoted_name}")
            self.execute(f"ALTER TABLE {parent} ATTACH PARTITION {name} {bound}")

    def _without_readers(self, step: Callable[[], None]) -> None:
        """Run what needs tables without readers, in many short attempts, so that readers never queue for long."""
        contended = (errors.LockNotAvailable, errors.DeadlockDetected)
        try:
            for attempt in Retrying(
                retry=retry_if_exception_type(contended),
                stop=stop_after_delay(self.wait_seconds),
                wait=wait_random(0.05, 0.5),
                before_sleep=wait_logger(f"the tables of {self.schema.url}", lambda _: self._readers()),
                reraise=True,
            ):
                with attempt, self.connection.transaction():
                    self.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
                    step()
        except contended as error:
            raise WarehouseBusy(
                f"Other sessions have been using the tables of {self.schema.url} for {self.wait_seconds:g} seconds.",
                "End their transactions (pg_stat_activity lists them, often 'idle in transaction') and run again.",
            ) from error


def _is_partitioned(table: Table) -> bool:
    return table.by_month and not table.small


class PostgresWarehouse(Warehouse):
    """Tables in one schema of a PostgreSQL database."""

    row_hash = IN_POSTGRES

    def __init__(
        self, uri: str, variable: str = "TAXI_WAREHOUSE_URL", wait_seconds: float = READER_WAIT_SECONDS
    ) -> None:
        self.schema = PostgresSchema(uri, variable)
        self.url = self.schema.url
        self.wait_seconds = wait_seconds

    def example_query(self, table: str) -> str:
        query = f'SELECT file_month, count(*) AS trips FROM "{self.schema.name}".{table} GROUP BY 1 ORDER BY 1'
        return f"psql {shlex.quote(self.schema.address)} -c {shlex.quote(query)}"

    @contextmanager
    def session(self, action: Action) -> Iterator[PostgresSession]:
        with self.schema.connect() as connection:
            yield PostgresSession(connection, self.schema, self.wait_seconds)
