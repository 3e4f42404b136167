"""The warehouse as one DuckDB file. It is attached for one short use and never held: a writer locks out all others.

Our own runs take turns with the help of a lock file beside it. The DuckDB that it is attached to stays open for the
process: opening one takes 19 to 40 ms, eight times a month, and attaching the file 3 ms.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb
from filelock import Timeout
from tenacity import Retrying, retry_if_exception_message, stop_after_delay, wait_random_exponential

from taxi_platform.trips.casting import identifier, literal
from taxi_platform.trips.contract import Column
from taxi_platform.trips.errors import WarehouseError, WarehouseLocked
from taxi_platform.trips.faults import fault_point
from taxi_platform.trips.locks import lock_file, wait_logger
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.trips.os_errors import number_in, remedy
from taxi_platform.warehouse.base import OTHER_RUN_WAIT_SECONDS, Action, Warehouse, busy_with_other_run
from taxi_platform.warehouse.row_hash import IN_DUCKDB
from taxi_platform.warehouse.session import MissingTable, Session, StagedRows, month_relation, view_version
from taxi_platform.warehouse.tables import Table, TableFile

OTHER_PROGRAM_WAIT_SECONDS = 20.0
"""How long to wait for another program, which may keep the file open for as long as somebody uses it."""

STORAGE_VERSION = "v1.5.0"
"""The format of new database files, which DuckDB 1.5 and 2 read and write. 1.5 cannot open what 2 makes by default."""

POLLING_SECONDS = 0.5
"""For a caller that must not wait: long enough for another short read to end, not for a load."""

OTHERWISE = "Check the disk and the file. A table that you drop will be loaded again from the lake."
OWN_FILE = "Set TAXI_WAREHOUSE_URL to a file that you own."

ATTACHED_AS = "warehouse"
"""The file's name inside our DuckDB, whatever the file is called."""

_open: dict[tuple[int, str, str, int], duckdb.DuckDBPyConnection] = {}
"""Process, folder to spill to, memory limit and threads → the DuckDB that such files are attached to. By process,
because one that a fork inherits has lost its threads."""


class DuckDBSession(Session):
    """A connection to the attached file; closing it rolls back what is not committed.

    No parameters are bound where months are concerned: the first one makes DuckDB import pandas, half a second.
    """

    dialect = "duckdb"

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection
        self._columns: dict[str, dict[str, str]] = {}
        """Table → column → type, while nobody else can change them and this session has not."""

    def name(self, table: str) -> str:
        return identifier(table)

    def type_of(self, column: Column) -> str:
        return column.column_type.duckdb

    def columns(self, table: Table) -> dict[str, str]:
        # Of all tables at once: 2.1 ms, and 1.1 ms for each of seven in the run of a month. `pragma_table_info` takes
        # 0.4 ms, but fails without a table, and DuckDB 2 then ends the transaction.
        if not self._columns:
            for name, column, data_type in self.execute(
                "SELECT table_name, column_name, data_type FROM duckdb_columns() "
                "WHERE database_name = current_database() AND schema_name = current_schema() ORDER BY column_index"
            ):
                self._columns.setdefault(name, {})[column] = data_type
        return self._columns.get(table.name, {})

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        try:
            return self.connection.execute(statement).fetchall()
        except duckdb.CatalogException as error:
            raise MissingTable(str(error).splitlines()[0], "Load a month, or run taxi bootstrap.") from error

    def relations(self) -> dict[str, str | None]:
        relations = self.execute(
            "SELECT table_name, NULL FROM duckdb_tables() WHERE database_name = current_database() UNION ALL "
            "SELECT view_name, comment FROM duckdb_views() WHERE database_name = current_database() AND NOT internal"
        )
        return {name: view_version(comment) for name, comment in relations}

    def replace_view(self, view: Table, select: str, version: str) -> None:
        with self._committed():
            super().replace_view(view, select, version)

    def create_or_widen(self, table: Table) -> None:
        with self._committed():
            super().create_or_widen(table)
        self._columns = {}

    @contextmanager
    def transaction(self, dataset_month: DatasetMonth) -> Iterator[None]:
        with self._committed():
            yield
        fault_point("duckdb_committed")

    @contextmanager
    def stage(self, file: TableFile) -> Iterator[StagedRows]:
        relation = month_relation(self, file.table, file.dataset_month)
        name, columns = self.name(file.table.name), ", ".join(column.name for column in file.table.columns)
        self.execute(f"DELETE FROM {relation}")
        self.execute(f"INSERT INTO {name} ({columns}) SELECT {columns} FROM read_parquet({literal(str(file.path))})")
        yield StagedRows(relation)
        fault_point("duckdb_inserted")

    def replace_rows(self, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        name, values = self.name(table.name), ", ".join("?" for _ in table.columns)
        with self._committed():
            self.execute(f"DELETE FROM {name}")
            self.connection.executemany(f"INSERT INTO {name} VALUES ({values})", rows)

    @contextmanager
    def _committed(self) -> Iterator[None]:
        self.execute("BEGIN")
        yield
        self.execute("COMMIT")


class DuckDBWarehouse(Warehouse):
    """Tables in a DuckDB database file."""

    row_hash = IN_DUCKDB

    def __init__(
        self,
        path: Path,
        memory_limit: str = "512MB",
        threads: int = 2,
        wait_seconds: float = OTHER_PROGRAM_WAIT_SECONDS,
        other_run_wait_seconds: float = OTHER_RUN_WAIT_SECONDS,
    ) -> None:
        self.path = path.absolute()
        self.url = f"duckdb://{self.path}"
        self.memory_limit = memory_limit
        self.threads = threads
        self.wait_seconds = wait_seconds
        self.other_run_wait_seconds = other_run_wait_seconds

    def for_polling(self) -> DuckDBWarehouse:
        return DuckDBWarehouse(self.path, self.memory_limit, self.threads, POLLING_SECONDS, POLLING_SECONDS)

    def example_query(self, table: str) -> str:
        query = f"SELECT file_month, count(*) AS trips FROM {table} GROUP BY 1 ORDER BY 1"
        program = f"import duckdb; duckdb.connect('{self.path}', read_only=True).sql('{query}').show()"
        return f'{shlex.quote(sys.executable)} -c "{program}"'

    @contextmanager
    def session(self, action: Action) -> Iterator[DuckDBSession]:
        """See the base. Waits for other runs, then for other programs that have the file open."""
        if action == "read" and not self._exists():
            raise MissingTable(f"{self.path} does not exist.", "Load a month, or run taxi bootstrap.")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with ExitStack() as stack:
                try:
                    lock = self.path.with_name(self.path.name + ".lock")
                    stack.enter_context(lock_file(lock, str(self.path), self.other_run_wait_seconds))
                except OSError as error:  # who may only read here does so without our lock: DuckDB has its own
                    if action != "read" or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                        raise
                yield DuckDBSession(stack.enter_context(self._attached(read_only=action == "read")))
        except Timeout:
            raise busy_with_other_run(str(self.path), self.other_run_wait_seconds) from None
        except PermissionError as error:
            raise WarehouseError(f"Cannot write {self.path}: {error.strerror}.", OWN_FILE) from error
        except (duckdb.Error, OSError) as error:
            said = str(error).splitlines()[0].rstrip(".")
            number = number_in(said)
            raise WarehouseError(
                f"{self.path} failed: {said}.",
                remedy(number, "TAXI_WAREHOUSE_URL") if number else OTHERWISE,
            ) from error

    def _exists(self) -> bool:
        try:
            return self.path.exists()
        except OSError as error:
            raise WarehouseError(f"Cannot read {self.path}: {error.strerror}.", OWN_FILE) from error

    @contextmanager
    def _attached(self, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection with the file as its current database. After any failure DuckDB itself is opened anew."""
        spilled = self.path.with_name(f"{self.path.name}.tmp")
        key = os.getpid(), str(spilled), self.memory_limit, self.threads
        is_usable = False
        try:
            if key not in _open:
                _open[key] = self._without_file(spilled)
            with _open[key].cursor() as connection:
                self._attach(connection, read_only)
                if not read_only:  # nobody else has the file open now, so spilled files are those of a killed load
                    shutil.rmtree(spilled, ignore_errors=True)
                yield connection
                # A checkpoint may lack room; what is committed is in the file's log then.
                with suppress(duckdb.Error):
                    connection.execute(f"USE memory; DETACH {ATTACHED_AS}")
                    is_usable = not spilled.exists()  # DuckDB makes this folder once, and another process removes it
        finally:
            if not is_usable and key in _open:
                _open.pop(key).close()

    def _without_file(self, spilled: Path) -> duckdb.DuckDBPyConnection:
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": self.memory_limit,
            "threads": self.threads,
            "temp_directory": str(spilled),
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "storage_compatibility_version": STORAGE_VERSION,
            # In the file's order, each of its row groups would become row groups of the table. A CSV month's are 1 %
            # larger than DuckDB's, which joined the remainders by rewriting most of the table: 1.4 s of 1.37 million
            # rows after the load, and 0.75 s after the next write.
            "preserve_insertion_order": False,
        }
        connection = duckdb.connect(":memory:", config=config)
        connection.execute("SET enable_progress_bar = false")
        return connection

    def _attach(self, connection: duckdb.DuckDBPyConnection, read_only: bool) -> None:
        mode = "READ_ONLY" if read_only else "READ_WRITE"
        try:
            for attempt in Retrying(
                retry=retry_if_exception_message(match=r"(?s).*Could not set lock"),
                stop=stop_after_delay(self.wait_seconds),
                wait=wait_random_exponential(0.05, 1),
                before_sleep=wait_logger(str(self.path), lambda error: _program(error, "{}")),
                reraise=True,
            ):
                with attempt:
                    connection.execute(f"ATTACH {literal(str(self.path))} AS {ATTACHED_AS} (TYPE duckdb, {mode})")
        except duckdb.IOException as error:
            if "Could not set lock" not in str(error):
                raise
            raise WarehouseLocked(
                f"Another program holds {self.path} open{_program(error, ' ({})')}.",
                "Close it there and run again. To query during loads, open trips.duckdb in TAXI_HOME instead.",
            ) from error
        connection.execute(f"USE {ATTACHED_AS}")


def _program(error: BaseException | None, form: str) -> str:
    """The program that holds the file, as DuckDB names it; empty if it does not."""
    holder = re.search(r"held in (.+?\(PID \d+\))", str(error))
    return form.format(holder[1]) if holder else ""
