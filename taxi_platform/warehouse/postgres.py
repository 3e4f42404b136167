"""The warehouse in PostgreSQL: one list partition per month, built aside and swapped in as the last, short step.

A load is one transaction from the first row to the swap: a run that is killed leaves nothing behind.
"""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from psycopg import errors, sql
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random

from taxi_platform.trips.contract import PICKUP
from taxi_platform.trips.errors import WarehouseBusy, WarehouseError
from taxi_platform.trips.faults import fault_point
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.trips.plan import Change
from taxi_platform.warehouse.base import (
    CleanFiles,
    LoadResult,
    StoredRows,
    Table,
    Warehouse,
    check_arrived,
    rejected_table,
    trips_table,
)
from taxi_platform.warehouse.fingerprint import Fingerprint, fingerprint_of, fingerprint_select, parquet_fingerprint
from taxi_platform.warehouse.postgres_connection import PostgresSchema
from taxi_platform.warehouse.postgres_copy import binary_copy

TYPES = {
    "D": "timestamp(6) without time zone",
    "I": "bigint",
    "F": "double precision",
    "M": "numeric(10,2)",
    "S": "text",
    "DATE": "date",
}
OUR_WAIT_SECONDS = 1800
"""For another run that loads the same month: the largest load takes minutes."""

OTHERS_WAIT_SECONDS = 300.0
"""For readers: a query over every month takes minutes, and the swap needs a moment without one."""

LOCK_TIMEOUT = "500ms"
"""How long new readers may queue behind one try of the swap; between tries they pass."""

OTHER_TABLE = "Rename or drop that table; its months are loaded again from the lake."


class PostgresWarehouse(Warehouse):
    """Tables in one schema of a PostgreSQL database."""

    def __init__(
        self, uri: str, variable: str = "TAXI_WAREHOUSE_URL", wait_seconds: float = OTHERS_WAIT_SECONDS
    ) -> None:
        self.schema = PostgresSchema(uri, variable)
        self.url = self.schema.url
        self.wait_seconds = wait_seconds

    def example_query(self, table: str) -> str:
        query = f'SELECT file_month, count(*) AS trips FROM "{self.schema.name}".{table} GROUP BY 1 ORDER BY 1'
        return f"psql {shlex.quote(self.schema.address)} -c {shlex.quote(query)}"

    def plan(self, tables: Sequence[Table]) -> Iterator[Change]:
        with self.schema.connect() as con:
            existing = {table.name: self._columns(con, table) for table in tables}
        for table in tables:
            missing = any(column.name not in existing[table.name] for column in table.columns)
            if not missing:
                self._make(table)  # nothing to make, but types to compare
            yield Change(f"table {table.name} in {self.url}", missing, partial(self._make, table))

    def _make(self, table: Table) -> None:
        with self.schema.connect() as con:
            self._ensure(con, table)

    def replace_month(self, files: CleanFiles) -> LoadResult:
        dataset_month = files.dataset_month
        pairs = (
            (trips_table(dataset_month.dataset), files.trips),
            (rejected_table(dataset_month.dataset), files.rejected),
        )
        expected = [parquet_fingerprint(table.columns, path) for table, path in pairs]
        with self.schema.connect() as con:
            tables = {table.name: self._ensure(con, table) for table, _ in pairs}
            with con.transaction():
                self._lock_month(con, dataset_month)
                asides = []
                for (table, path), fingerprint in zip(pairs, expected, strict=True):
                    aside = self._create_aside(con, table, files, tables[table.name])
                    self._fill(con, table, aside, path)
                    check_arrived(table, fingerprint, self._fingerprint(con, table, aside))
                    asides.append((self._name(table.name), aside))
                    fault_point("postgres_built")
                self._when_free(con, lambda: self._swap(con, dataset_month, asides))
                fault_point("postgres_swapped")
            fault_point("postgres_committed")
        return LoadResult(expected[0].rows, expected[1].rows, expected[0])

    def replace_reference(self, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        name = self._name(table.name)
        values = sql.SQL(", ").join([sql.Placeholder()] * len(table.columns))
        with self.schema.connect() as con, con.transaction():
            self._create_or_widen(con, table)
            con.execute(sql.SQL("DELETE FROM {}").format(name))
            con.cursor().executemany(sql.SQL("INSERT INTO {} VALUES ({})").format(name, values), rows)

    def loaded_months(self, table: str) -> dict[str, StoredRows]:
        return self._loaded(table, sql.SQL(""))

    def loaded_month(self, table: str, dataset_month: DatasetMonth) -> StoredRows | None:
        return self._loaded(table, self._where(dataset_month)).get(str(dataset_month.month))

    def fingerprint(self, table: Table, dataset_month: DatasetMonth) -> Fingerprint:
        with self.schema.connect() as con:
            return self._fingerprint(con, table, self._name(table.name) + self._where(dataset_month))

    def _name(self, table: str) -> sql.Composed:
        return sql.Composed([sql.Identifier(self.schema.name, table)])

    def _where(self, dataset_month: DatasetMonth) -> sql.Composed:
        return sql.SQL(" WHERE file_month = {}").format(sql.Literal(dataset_month.month.first_day))

    def _fingerprint(self, con: psycopg.Connection, table: Table, relation: sql.Composed) -> Fingerprint:
        select = fingerprint_select(table.columns, relation.as_string(con))
        return fingerprint_of(table.columns, con.execute(select).fetchone() or ())

    def _loaded(self, table: str, where: sql.Composable) -> dict[str, StoredRows]:
        # In two steps, because array_agg(DISTINCT …) would sort every row.
        counts = sql.SQL("SELECT file_month, file_version, count(*) AS rows FROM {}{} GROUP BY 1, 2").format(
            self._name(table), where
        )
        months = sql.SQL(
            "SELECT to_char(file_month, 'YYYY-MM'), sum(rows)::bigint, array_agg(file_version ORDER BY file_version) "
            "FROM ({}) AS counts GROUP BY 1 ORDER BY 1"
        ).format(counts)
        with self.schema.connect() as con:
            try:
                rows = con.execute(months).fetchall()
            except errors.UndefinedTable:
                return {}
        return {month: StoredRows(count, tuple(versions)) for month, count, versions in rows}

    def _lock_month(self, con: psycopg.Connection, dataset_month: DatasetMonth) -> None:
        """Wait for other loads of this month; the lock ends with the transaction."""
        con.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(f"{OUR_WAIT_SECONDS}s")))
        key = f"taxi_platform {self.schema.name} {dataset_month}"
        try:
            con.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [key])
        except errors.LockNotAvailable as error:
            problem = f"Another run has been loading {dataset_month} for half an hour."
            raise WarehouseBusy(problem, "End it if it is stuck.") from error

    def _create_aside(
        self, con: psycopg.Connection, table: Table, files: CleanFiles, columns: dict[str, str]
    ) -> sql.Composed:
        """Create the month's new table, seen by nobody yet. Not LIKE the parent: that would lock it until the end."""
        month = files.dataset_month.month
        # A token, because the month to be replaced may be of the same version.
        token = f"{str(month).replace('-', '_')}_{files.file_version}_{secrets.token_hex(3)}"
        aside = self._name(f"{table.name}_{token}")
        fields = [sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind)) for name, kind in columns.items()]
        # This very condition spares ATTACH a scan under its lock.
        fields += [sql.SQL("CHECK (file_month IS NOT NULL AND file_month = {})").format(month.first_day)]
        con.execute(sql.SQL("CREATE TABLE {} ({})").format(aside, sql.SQL(", ").join(fields)))
        return aside

    def _fill(self, con: psycopg.Connection, table: Table, aside: sql.Composed, path: Path) -> None:
        names = sql.SQL(", ").join(sql.Identifier(column.name) for column in table.columns)
        # Frozen rows are not written a second time later, and snapshots older than the swap see them too.
        copy = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary, FREEZE)").format(aside, names)
        with con.cursor().copy(copy) as sink:
            for block in binary_copy(path, table.columns):
                sink.write(block)
                fault_point("postgres_copying")
        if any(column.name == PICKUP for column in table.columns):
            con.execute(sql.SQL("CREATE INDEX ON {} ({})").format(aside, sql.Identifier(PICKUP)))

    def _swap(
        self, con: psycopg.Connection, dataset_month: DatasetMonth, asides: list[tuple[sql.Composed, sql.Composed]]
    ) -> None:
        """Make the tables aside the month's partitions of their parents."""
        month = dataset_month.month.first_day
        for parent, aside in asides:
            old = con.execute(
                "SELECT inhrelid::regclass::text FROM pg_inherits JOIN pg_class ON oid = inhrelid "
                "WHERE inhparent = to_regclass(%s) AND pg_get_expr(relpartbound, oid) = %s",
                [parent.as_string(con), f"FOR VALUES IN ('{month}')"],
            ).fetchall()
            for (quoted,) in old:
                con.execute(sql.SQL("DROP TABLE {}").format(sql.SQL(quoted)))
            con.execute(sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES IN ({})").format(parent, aside, month))

    def _when_free(self, con: psycopg.Connection, step: Callable[[], None]) -> None:
        """Do what needs tables without readers, in many short tries, so that readers never queue for long."""
        contended = (errors.LockNotAvailable, errors.DeadlockDetected)
        try:
            for attempt in Retrying(
                retry=retry_if_exception_type(contended),
                stop=stop_after_delay(self.wait_seconds),
                wait=wait_random(0.05, 0.5),
                reraise=True,
            ):
                with attempt, con.transaction():
                    con.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(LOCK_TIMEOUT)))
                    step()
        except contended as error:
            raise WarehouseBusy(
                f"Other sessions have been using the tables of {self.url} for {self.wait_seconds:g} seconds.",
                "End their transactions (pg_stat_activity lists them, often 'idle in transaction') and run again.",
            ) from error

    def _ensure(self, con: psycopg.Connection, table: Table) -> dict[str, str]:
        """Create the table, or add the columns the contract has gained; returns its columns and their types.

        Raises `WarehouseError` where there is another table of that name, or a column has another type.
        """
        existing = self._columns(con, table)
        if any(column.name not in existing for column in table.columns):
            self._when_free(con, lambda: self._create_or_widen(con, table))
            existing = self._columns(con, table)
        for column in table.columns:
            if existing[column.name] != TYPES[column.type]:
                raise WarehouseError(
                    f"{table.name}.{column.name} in {self.url} is {existing[column.name]}, not {TYPES[column.type]}.",
                    OTHER_TABLE,
                )
        return existing

    def _columns(self, con: psycopg.Connection, table: Table) -> dict[str, str]:
        rows = con.execute(
            "SELECT attname, format_type(atttypid, atttypmod), pg_get_partkeydef(attrelid) FROM pg_attribute "
            "WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            [self._name(table.name).as_string(con)],
        ).fetchall()
        if rows and table.by_month and rows[0][2] != "LIST (file_month)":
            raise WarehouseError(f"{table.name} in {self.url} is not partitioned by LIST (file_month).", OTHER_TABLE)
        return {name: kind for name, kind, _ in rows}

    def _create_or_widen(self, con: psycopg.Connection, table: Table) -> None:
        con.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"taxi_platform {self.schema.name}"])
        # Not IF NOT EXISTS, which asks for the right to create even where there is nothing to create.
        if not con.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [self.schema.name]).fetchone():
            con.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(self.schema.name)))
        name, existing = self._name(table.name), self._columns(con, table)
        types = {column.name: sql.SQL(TYPES[column.type]) for column in table.columns}
        if not existing:
            fields = sql.SQL(", ").join(sql.SQL("{} {}").format(sql.Identifier(c), kind) for c, kind in types.items())
            partitions = sql.SQL("PARTITION BY LIST (file_month)" if table.by_month else "")
            con.execute(sql.SQL("CREATE TABLE {} ({}) {}").format(name, fields, partitions))
            con.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(name, table.description))
            if PICKUP in types:
                con.execute(sql.SQL("CREATE INDEX ON {} ({})").format(name, sql.Identifier(PICKUP)))
        for column in table.columns:
            field = sql.Identifier(column.name)
            if existing and column.name not in existing:
                con.execute(sql.SQL("ALTER TABLE {} ADD COLUMN {} {}").format(name, field, types[column.name]))
            if column.name not in existing:
                con.execute(sql.SQL("COMMENT ON COLUMN {}.{} IS {}").format(name, field, column.description))
