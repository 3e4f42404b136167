"""An open connection to a warehouse: the few operations in which backends differ."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from taxi_platform.trips.casting import literal
from taxi_platform.trips.contract import Column
from taxi_platform.trips.errors import WarehouseError
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.warehouse.tables import MartFile, Table, TableFile, trips_table


class MissingTable(WarehouseError):
    """A query names a table, or a whole database, that does not exist."""


@dataclass(frozen=True)
class StagedRows:
    """The rows of a `TableFile` before they are published; `relation` is what follows FROM in a query of them."""

    relation: str
    links: dict[str, str] = field(default_factory=dict)


class Session(ABC):
    """An open connection to a warehouse. Its methods, and opening it, are all that a backend has to implement."""

    dialect: str
    """The engine's SQL, by its name in sqlglot."""

    @abstractmethod
    def name(self, table: str) -> str:
        """The table's name in this warehouse's SQL, qualified and quoted."""

    @abstractmethod
    def type_of(self, column: Column) -> str:
        """The type that the column must have, as `columns` spells it."""

    @abstractmethod
    def columns(self, table: Table) -> dict[str, str]:
        """Column → type of the existing table; empty if there is none.

        Raises `WarehouseError` if the existing table is not partitioned as `table` must be.
        """

    @abstractmethod
    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Run one SQL statement and return its rows. Raises `MissingTable`."""

    @abstractmethod
    def transaction(self, dataset_month: DatasetMonth) -> AbstractContextManager[None]:
        """What is staged inside is published when it ends, or discarded when an exception ends it.

        If two loads of a month could mix in this warehouse, it also waits for the other one.
        """

    @abstractmethod
    def stage(self, file: TableFile) -> AbstractContextManager[StagedRows]:
        """Bring the file's rows into the warehouse; the caller compares them with the file inside the context."""

    @abstractmethod
    def replace_rows(self, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        """Replace all rows of a small table without months, atomically."""

    @abstractmethod
    def relations(self) -> dict[str, str | None]:
        """Every table and view → the version that `replace_view` gave it; None for all that it did not make."""

    def replace_view(self, view: Table, select: str, version: str) -> None:
        """Make a view, or replace the one that this method made before. Columns have `view`'s names and meanings."""
        name = self.name(view.name)
        self.execute(f"CREATE OR REPLACE VIEW {name} AS {select}")
        self.execute(f"COMMENT ON VIEW {name} IS {literal(f'{view.description} (version {version})')}")
        for column in view.columns:
            self.execute(f"COMMENT ON COLUMN {name}.{column.name} IS {literal(column.description)}")

    def insert_month(self, file: MartFile) -> None:
        """Replace the month's rows of a mart by those of its query, inside a transaction."""
        columns = ", ".join(column.name for column in file.table.columns)
        self.execute(f"DELETE FROM {month_relation(self, file.table, file.dataset_month)}")
        self.execute(f"INSERT INTO {self.name(file.table.name)} ({columns}) {self.query_of(file)}")

    def query_of(self, file: MartFile) -> str:
        """The mart's query over this warehouse's trips."""
        return file.select(self.dialect, self.name(trips_table(file.dataset_month.dataset).name))

    def partitioning(self, table: Table) -> str:
        """The clause of CREATE TABLE after the columns."""
        return ""

    def create_or_widen(self, table: Table) -> None:
        """Create the table, or add the columns that it lacks. Safe while another session does the same."""
        name, existing = self.name(table.name), self.columns(table)
        if not existing:
            columns = ", ".join(f"{column.name} {self.type_of(column)}" for column in table.columns)
            self.execute(f"CREATE TABLE {name} ({columns}) {self.partitioning(table)}")
            self.execute(f"COMMENT ON TABLE {name} IS {literal(table.description)}")
        for column in table.columns:
            if existing and column.name not in existing:
                self.execute(f"ALTER TABLE {name} ADD COLUMN {column.name} {self.type_of(column)}")
            if column.name not in existing:
                self.execute(f"COMMENT ON COLUMN {name}.{column.name} IS {literal(column.description)}")


def view_version(comment: str | None) -> str | None:
    """The version in a view's comment."""
    match = re.search(r" \(version (\w+)\)$", comment or "")
    return match[1] if match else None


def is_month(dataset_month: DatasetMonth) -> str:
    """The SQL condition for the rows of a month."""
    return f"file_month = DATE {literal(str(dataset_month.month.first_day))}"


def month_relation(session: Session, table: Table, dataset_month: DatasetMonth) -> str:
    """One month of a table, as what follows FROM."""
    return f"{session.name(table.name)} WHERE {is_month(dataset_month)}"
