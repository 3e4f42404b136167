"""What every warehouse does: replace a month as a whole, say which version is loaded, and fingerprint it.

Everything that the backends share is in this module. A backend is two classes: a `Warehouse` that opens sessions, and a
`Session` with the SQL or API calls in which it differs. `duckdb.py` is the shortest example.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from taxi_platform.trips.contract import Column
from taxi_platform.trips.errors import IntegrityError, WarehouseError, WarehouseLocked
from taxi_platform.trips.faults import fault_point
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.trips.plan import Change
from taxi_platform.warehouse.fingerprint import (
    LOOKS,
    Fingerprint,
    check_file_types,
    check_version,
    compare,
    file_fingerprint,
    load_again,
)
from taxi_platform.warehouse.row_hash import RowHash
from taxi_platform.warehouse.session import MissingTable, Session, is_month, month_relation
from taxi_platform.warehouse.tables import (
    KnownBytes,
    MartFile,
    Table,
    TableFile,
    rejected_table,
    trips_table,
    zones_table,
)

__all__ = [
    "CleanFiles",
    "LoadResult",
    "StoredRows",
    "Table",
    "Warehouse",
    "rejected_table",
    "trips_table",
    "zones_table",
]

Action = Literal["read", "create", "load"]
"""What a session is opened for."""

OTHER_RUN_WAIT_SECONDS = 1800
"""How long to wait for another run that loads into the same place; the largest load takes minutes."""

DROP_TABLE = "Rename or drop that table; its months will be loaded again from the lake."


@dataclass(frozen=True)
class CleanFiles:
    """One cleaned month to load: its two Parquet files on this machine, and their URIs in the lake."""

    dataset_month: DatasetMonth
    file_version: str
    trips: Path
    rejected: Path
    trips_uri: str
    rejected_uri: str
    known_trips: KnownBytes | None = None


@dataclass(frozen=True)
class StoredRows:
    """The rows that a table holds of a month, and their file versions: exactly one, unless something is wrong."""

    rows: int
    file_versions: tuple[str, ...]


@dataclass(frozen=True)
class LoadResult:
    """What the tables hold after a load. `links` are web pages that show it: label → URL."""

    rows: int
    rejected_rows: int
    fingerprint: Fingerprint
    links: dict[str, str] = field(default_factory=dict, compare=False)


class Warehouse(ABC):
    """Tables by month. Every method raises `WarehouseError`, or `WarehouseBusy` if waiting may help."""

    url: str
    """Where it is, without any secret."""

    row_hash: RowHash
    """By which its tables are compared with files."""

    @abstractmethod
    def session(self, action: Action) -> AbstractContextManager[Session]:
        """Open the warehouse for one short use, translating its client's errors into ours.

        Opening it to `read` raises `MissingTable` if there is no database yet.
        """

    def for_polling(self) -> Warehouse:
        """The same warehouse for a caller that must not wait: raises `WarehouseLocked` if another process holds it."""
        return self

    @abstractmethod
    def example_query(self, table: str) -> str:
        """A shell command that queries the table."""

    def uri(self, table: str) -> str:
        """The table's address, for people."""
        return f"{self.url}#{table}"

    def links(self, table: str) -> dict[str, str]:
        """Web pages that show the table: label → URL."""
        return {}

    def plan(self, tables: Sequence[Table]) -> Iterator[Change]:
        """What must exist before these tables can be loaded; loading a month creates it as well.

        Raises `WarehouseError` if the warehouse cannot be reached or a table contradicts the contract.
        """
        missing = {table: list(table.columns) for table in tables}
        try:
            with self.session("read") as session:
                missing = {table: self._missing_columns(session, table) for table in tables}
        except MissingTable:
            pass  # no database yet: everything is missing
        for table in tables:
            yield Change(
                f"table {table.name} in {self.url}", bool(missing[table]), partial(self.create_tables, [table])
            )

    def replace_month(self, files: CleanFiles) -> LoadResult:
        """Replace the month in both tables at once: readers see the old month or the new one.

        Compares the rows that arrived with the files. Raises `IntegrityError` if they differ, and `Conflict` if another
        version of the month arrived meanwhile; the old month then stays, except in BigQuery.
        """
        table_files = _table_files(files)
        expected = [file_fingerprint(self.row_hash, file) for file in table_files]
        for file in table_files:
            check_file_types(file.table.name, file.table.columns, file.path)
        links = self.links(trips_table(files.dataset_month.dataset).name)
        with self.session("load") as session:
            for file in table_files:
                self._ensure(session, file.table)
            with session.transaction(files.dataset_month):
                found = []
                for file, fingerprint in zip(table_files, expected, strict=True):
                    with session.stage(file) as staged:
                        found.append(compare(self.row_hash, session, file, staged.relation, fingerprint))
                links |= staged.links
        return _result(found, links)

    def verify_month(self, files: CleanFiles) -> LoadResult:
        """Read both tables whole and compare them with the files, by every value of every row.

        Raises `IntegrityError` if they differ, and `Conflict` if a table holds another version of the month.
        """
        table_files = _table_files(files)
        expected = [file_fingerprint(self.row_hash, file) for file in table_files]
        with self.session("read") as session:
            found = [self._verify(session, *pair) for pair in zip(table_files, expected, strict=True)]
        return _result(found, self.links(trips_table(files.dataset_month.dataset).name))

    def replace_marts(self, marts: Sequence[MartFile]) -> list[int]:
        """Replace the same month in these tables by what their queries make of its trips; returns the rows of each.

        Compares each with its file, which has the same rows from elsewhere. Raises `IntegrityError` if they differ, and
        `Conflict` if the trips are of another version than the files; the old month then stays, except in BigQuery.
        """
        expected = [file_fingerprint(self.row_hash, file) for file in marts]
        with self.session("load") as session:
            for file in marts:
                self._ensure(session, file.table)
            with session.transaction(marts[0].dataset_month):
                for file, fingerprint in zip(marts, expected, strict=True):
                    self._replace_mart(session, file, fingerprint)
                    fault_point("mart_replaced")
        return [fingerprint.rows for fingerprint in expected]

    def verify_marts(self, marts: Sequence[TableFile]) -> list[int]:
        """Compare the month in these tables with their files, by every value; returns the rows of each.

        Raises `IntegrityError` if they differ, `Conflict` if a table holds another version, or `MissingTable`.
        """
        expected = [file_fingerprint(self.row_hash, file) for file in marts]
        with self.session("read") as session:
            for file, fingerprint in zip(marts, expected, strict=True):
                self._verify(session, file, fingerprint)
        return [fingerprint.rows for fingerprint in expected]

    def create_tables(self, tables: Sequence[Table]) -> None:
        """Create these tables where they are missing, or add the columns that they lack."""
        with self.session("create") as session:
            for table in tables:
                self._ensure(session, table)

    def replace_reference(self, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        """Replace a small table without months by these rows, atomically."""
        with self.session("load") as session:
            self._ensure(session, table)
            session.replace_rows(table, rows)

    def row_count(self, table: Table) -> int:
        """The rows of a table; 0 if there is no such table."""
        try:
            with self.session("read") as session:
                ((rows,),) = session.execute(f"SELECT count(*) FROM {session.name(table.name)}")
        except MissingTable:
            return 0
        return int(rows)

    def loaded_months(self, table: str, among: Sequence[DatasetMonth] = ()) -> dict[str, StoredRows]:
        """Month (2021-01) → what the table holds of it, of all months or of these; empty if there is no such table."""
        condition = " OR ".join(map(is_month, among)) or "file_month IS NOT NULL"
        return self._months(table, condition)

    def loaded_month(self, table: str, dataset_month: DatasetMonth) -> StoredRows | None:
        """What the table holds of one month; None for no rows."""
        return self._months(table, is_month(dataset_month)).get(str(dataset_month.month))

    def is_loaded(self, dataset_month: DatasetMonth, file_version: str, rows: int, rejected_rows: int) -> bool:
        """Whether both tables hold this version of the month and no other, judged by the number of rows."""
        dataset = dataset_month.dataset
        return self.holds(
            dataset_month, file_version, {trips_table(dataset): rows, rejected_table(dataset): rejected_rows}
        )

    def holds(self, dataset_month: DatasetMonth, file_version: str, rows: Mapping[Table, int]) -> bool:
        """Whether each table holds so many rows of the month, and all of this version."""
        try:
            with self.session("read") as session:
                return all(
                    self._stored_rows(session, table.name, is_month(dataset_month))
                    == ({str(dataset_month.month): StoredRows(count, (file_version,))} if count else {})
                    for table, count in rows.items()
                )
        except MissingTable:
            return not any(rows.values())

    def _ensure(self, session: Session, table: Table) -> None:
        if self._missing_columns(session, table):
            session.create_or_widen(table)

    def _missing_columns(self, session: Session, table: Table) -> list[Column]:
        """The columns that the table lacks; raises `WarehouseError` if one has another type."""
        existing = session.columns(table)
        for column in table.columns:
            actual, expected = existing.get(column.name), session.type_of(column)
            if actual not in (None, expected):
                problem = f"{table.name}.{column.name} in {self.url} is {actual}, not {expected}."
                raise WarehouseError(problem, DROP_TABLE)
        return [column for column in table.columns if column.name not in existing]

    def _replace_mart(self, session: Session, file: MartFile, expected: Fingerprint) -> None:
        """Replace one mart; again, if other runs had the trips of another version there and have brought back these."""
        for look in range(1, LOOKS + 1):
            session.insert_month(file)
            try:
                relation = month_relation(session, file.table, file.dataset_month)
                compare(self.row_hash, session, file, relation, expected)
                break
            except IntegrityError:
                check_version(session, file, trips_table(file.dataset_month.dataset))
                if look == LOOKS:
                    raise

    def _verify(self, session: Session, file: TableFile, expected: Fingerprint) -> Fingerprint:
        if missing := self._missing_columns(session, file.table):
            problem = f"{file.table.name} has lost {', '.join(column.name for column in missing)}."
            raise IntegrityError(problem, load_again(file.dataset_month))
        relation = month_relation(session, file.table, file.dataset_month)
        return compare(self.row_hash, session, file, relation, expected)

    def _months(self, table: str, condition: str) -> dict[str, StoredRows]:
        try:
            with self.session("read") as session:
                return self._stored_rows(session, table, condition)
        except MissingTable:
            return {}

    def _stored_rows(self, session: Session, table: str, condition: str) -> dict[str, StoredRows]:
        # Grouped by version as well, because PostgreSQL would sort every row for array_agg(DISTINCT …).
        query = "SELECT file_month, file_version, count(*) FROM {} WHERE {} GROUP BY 1, 2 ORDER BY 1, 2"
        months: dict[str, StoredRows] = {}
        for first_day, version, rows in session.execute(query.format(session.name(table), condition)):
            month = f"{first_day:%Y-%m}"
            stored = months.get(month, StoredRows(0, ()))
            months[month] = StoredRows(stored.rows + rows, (*stored.file_versions, version))
        return months


def busy_with_other_run(what: str, seconds: float = OTHER_RUN_WAIT_SECONDS) -> WarehouseLocked:
    """The error for a lock that another of our runs has held for `seconds`."""
    return WarehouseLocked(f"Another run has held {what} for more than {seconds:g} s.", "Stop that run if it is stuck.")


def _table_files(files: CleanFiles) -> tuple[TableFile, TableFile]:
    # Rejected rows first: without a common transaction, readers of new trips find what was rejected from them.
    dataset, month = files.dataset_month.dataset, (files.dataset_month, files.file_version)
    return (
        TableFile(rejected_table(dataset), files.rejected, files.rejected_uri, *month),
        TableFile(trips_table(dataset), files.trips, files.trips_uri, *month, known=files.known_trips),
    )


def _result(expected: Sequence[Fingerprint], links: dict[str, str]) -> LoadResult:
    rejected, trips = expected
    return LoadResult(trips.rows, rejected.rows, trips, links)
