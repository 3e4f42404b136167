"""The warehouse as one DuckDB file: opened for one transaction, never held, because an open writer locks all out."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
from filelock import FileLock, Timeout
from tenacity import Retrying, retry_if_exception_message, stop_after_delay, wait_random_exponential

from taxi_platform.trips.casting import identifier, literal
from taxi_platform.trips.errors import WarehouseError, WarehouseLocked
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

OUR_WAIT_SECONDS = 1800
"""For other runs of ours: they take turns at a lock file, the largest load takes about a minute."""

POLLING_SECONDS = 0.5
"""Without waiting: long enough for another such look to end, never for a load."""

OTHERS_WAIT_SECONDS = 20.0
"""For other programs, which may hold the file for as long as somebody looks at it."""


class DuckDBWarehouse(Warehouse):
    """Tables in a DuckDB database file."""

    def __init__(
        self,
        path: Path,
        memory_limit: str = "512MB",
        threads: int = 2,
        wait_seconds: float = OTHERS_WAIT_SECONDS,
        our_wait_seconds: float = OUR_WAIT_SECONDS,
    ) -> None:
        self.path = path.absolute()
        self.url = f"duckdb://{self.path}"
        self.memory_limit = memory_limit
        self.threads = threads
        self.wait_seconds = wait_seconds
        self.our_wait_seconds = our_wait_seconds

    def for_polling(self) -> DuckDBWarehouse:
        return DuckDBWarehouse(self.path, self.memory_limit, self.threads, POLLING_SECONDS, POLLING_SECONDS)

    def example_query(self, table: str) -> str:
        query = f"SELECT file_month, count(*) AS trips FROM {table} GROUP BY 1 ORDER BY 1"
        program = f"import duckdb; duckdb.connect('{self.path}', read_only=True).sql('{query}').show()"
        return f'{shlex.quote(sys.executable)} -c "{program}"'

    def plan(self, tables: Sequence[Table]) -> Iterator[Change]:
        existing: dict[str, dict[str, str]] = {}
        if self._is_there():
            with self._connect(read_only=True) as con:
                existing = {table.name: self._columns(con, table.name) for table in tables}
        for table in tables:
            found = existing.get(table.name, {})
            _check_types(self.url, table, found)
            missing = any(column.name not in found for column in table.columns)
            yield Change(f"table {table.name} in {self.url}", missing, partial(self._make, table))

    def _is_there(self) -> bool:
        try:
            return self.path.exists()
        except OSError as error:
            raise WarehouseError(
                f"Cannot read {self.path}: {error.strerror}.", "Set TAXI_WAREHOUSE_URL to a file that you own."
            ) from error

    def _make(self, table: Table) -> None:
        with self._connect() as con:
            self._ensure(con, table)

    def replace_month(self, files: CleanFiles) -> LoadResult:
        dataset_month = files.dataset_month
        pairs = (
            (trips_table(dataset_month.dataset), files.trips),
            (rejected_table(dataset_month.dataset), files.rejected),
        )
        expected = [parquet_fingerprint(table.columns, path) for table, path in pairs]
        with self._connect() as con:
            con.execute("BEGIN")
            for (table, path), fingerprint in zip(pairs, expected, strict=True):
                self._ensure(con, table)
                names = ", ".join(column.name for column in table.columns)
                con.execute(f"DELETE FROM {table.name} WHERE file_month = DATE '{dataset_month.month.first_day}'")
                con.execute(
                    f"INSERT INTO {table.name} ({names}) SELECT {names} FROM read_parquet({literal(str(path))})"
                )
                # Leaving before COMMIT, by an exception, rolls back: the old month stays.
                check_arrived(table, fingerprint, self._fingerprint(con, table, dataset_month))
                fault_point("duckdb_inserted")
            con.execute("COMMIT")
            fault_point("duckdb_committed")
        return LoadResult(expected[0].rows, expected[1].rows, expected[0])

    def replace_reference(self, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        with self._connect() as con:
            con.execute("BEGIN")
            self._ensure(con, table)
            con.execute(f"DELETE FROM {table.name}")
            con.executemany(f"INSERT INTO {table.name} VALUES ({', '.join('?' * len(table.columns))})", rows)
            con.execute("COMMIT")

    def loaded_months(self, table: str) -> dict[str, StoredRows]:
        if not self._is_there():
            return {}
        with self._connect(read_only=True) as con:
            return self._loaded(con, table, "TRUE")

    def loaded_month(self, table: str, dataset_month: DatasetMonth) -> StoredRows | None:
        if not self._is_there():
            return None
        with self._connect(read_only=True) as con:
            where = f"file_month = DATE {literal(str(dataset_month.month.first_day))}"
            return self._loaded(con, table, where).get(str(dataset_month.month))

    def fingerprint(self, table: Table, dataset_month: DatasetMonth) -> Fingerprint:
        with self._connect(read_only=True) as con:
            return self._fingerprint(con, table, dataset_month)

    def _fingerprint(self, con: duckdb.DuckDBPyConnection, table: Table, dataset_month: DatasetMonth) -> Fingerprint:
        relation = f"{table.name} WHERE file_month = DATE {literal(str(dataset_month.month.first_day))}"
        return fingerprint_of(table.columns, con.execute(fingerprint_select(table.columns, relation)).fetchone() or ())

    def _loaded(self, con: duckdb.DuckDBPyConnection, table: str, where: str) -> dict[str, StoredRows]:
        # No bound parameters where months are concerned: the first one makes DuckDB import pandas, half a second.
        if not con.execute(f"SELECT 1 FROM duckdb_tables() WHERE table_name = {literal(table)}").fetchone():
            return {}
        rows = con.execute(
            f"SELECT strftime(file_month, '%Y-%m'), count(*), list(DISTINCT file_version ORDER BY file_version) "
            f"FROM {identifier(table)} WHERE {where} GROUP BY 1 ORDER BY 1"
        ).fetchall()
        return {month: StoredRows(count, tuple(versions)) for month, count, versions in rows}

    def _columns(self, con: duckdb.DuckDBPyConnection, table: str) -> dict[str, str]:
        rows = con.execute(
            f"SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = {literal(table)}"
        ).fetchall()
        return dict(rows)

    def _ensure(self, con: duckdb.DuckDBPyConnection, table: Table) -> None:
        """Create the table, or add the columns the contract has gained; raises where a column has another type."""
        existing = self._columns(con, table.name)
        if not existing:
            columns = ", ".join(f"{column.name} {column.duckdb_type}" for column in table.columns)
            con.execute(f"CREATE TABLE {table.name} ({columns})")
            con.execute(f"COMMENT ON TABLE {table.name} IS {literal(table.description)}")
        _check_types(self.url, table, existing)
        for column in table.columns:
            if existing and column.name not in existing:
                con.execute(f"ALTER TABLE {table.name} ADD COLUMN {column.name} {column.duckdb_type}")
            if column.name not in existing:
                con.execute(f"COMMENT ON COLUMN {table.name}.{column.name} IS {literal(column.description)}")

    @contextmanager
    def _connect(self, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the file for one short use, waiting for whoever has it; an uncommitted transaction is rolled back."""
        turn = FileLock(self.path.with_name(self.path.name + ".lock"))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with turn.acquire(timeout=self.our_wait_seconds):
                con = self._open(read_only)
                try:
                    yield con
                finally:
                    con.close()
        except Timeout:
            raise WarehouseLocked(
                f"Another run has held {self.path} for more than {self.our_wait_seconds:g} s.", "End it if it is stuck."
            ) from None
        except PermissionError as error:
            raise WarehouseError(
                f"Cannot write {self.path}: {error.strerror}.", "Set TAXI_WAREHOUSE_URL to a file that you own."
            ) from error
        except (duckdb.Error, OSError) as error:
            raise WarehouseError(
                f"{self.path} failed: {str(error).splitlines()[0]}",
                "Check the disk and the file; a table that is dropped is loaded again from the lake.",
            ) from error

    def _open(self, read_only: bool) -> duckdb.DuckDBPyConnection:
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": self.memory_limit,
            "threads": self.threads,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        try:
            for attempt in Retrying(
                retry=retry_if_exception_message(match=r"(?s).*Could not set lock"),
                stop=stop_after_delay(self.wait_seconds),
                wait=wait_random_exponential(0.05, 1),
                reraise=True,
            ):
                with attempt:
                    con = duckdb.connect(str(self.path), read_only=read_only, config=config)
        except duckdb.IOException as error:
            if "Could not set lock" in str(error):
                found = re.search(r"held in (.+?\(PID \d+\))", str(error))
                holder = found[1] if found else ""
                raise WarehouseLocked(
                    f"Another program holds {self.path} open{f' ({holder})' if holder else ''}.",
                    "Close it there, or let it open the file read-only for a moment, and run again.",
                ) from error
            raise
        if not read_only:  # nobody else has the file open now: what lies beside it, a killed load has spilled
            shutil.rmtree(self.path.with_name(f"{self.path.name}.tmp"), ignore_errors=True)
        con.execute("SET enable_progress_bar = false")
        return con


def _check_types(url: str, table: Table, existing: Mapping[str, str]) -> None:
    for column in table.columns:
        if existing.get(column.name, column.duckdb_type) != column.duckdb_type:
            raise WarehouseError(
                f"{table.name}.{column.name} in {url} is {existing[column.name]}, not {column.duckdb_type}.",
                "Rename or drop that table; its months are loaded again from the lake.",
            )
