"""What every warehouse can do: replace one month whole, tell which version of it is loaded, and fingerprint it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taxi_platform.trips.contract import PROVENANCE, REJECTED_COLUMNS, Column, contract_of
from taxi_platform.trips.errors import IntegrityError
from taxi_platform.trips.known import ZONE_COLUMNS
from taxi_platform.trips.months import Dataset, DatasetMonth
from taxi_platform.trips.plan import Change
from taxi_platform.warehouse.fingerprint import Fingerprint


@dataclass(frozen=True)
class Table:
    """A published table: its name, columns and meaning, the same in every warehouse."""

    name: str
    columns: tuple[Column, ...]
    description: str

    @property
    def by_month(self) -> bool:
        """Whether it is made of months, to be partitioned by them."""
        return any(column.name == PROVENANCE[0].name for column in self.columns)


@dataclass(frozen=True)
class CleanFiles:
    """One cleaned month to load: its two Parquet files here, and their URIs in the lake."""

    dataset_month: DatasetMonth
    file_version: str
    trips: Path
    rejected: Path
    trips_uri: str
    rejected_uri: str


@dataclass(frozen=True)
class StoredRows:
    """What a table holds of a month: its rows, and the file versions they carry (one, unless something is wrong)."""

    rows: int
    file_versions: tuple[str, ...]


@dataclass(frozen=True)
class LoadResult:
    """What a load left in the tables; `links` lead to it, for people (label → URL)."""

    rows: int
    rejected_rows: int
    fingerprint: Fingerprint
    links: dict[str, str] = field(default_factory=dict, compare=False)


def trips_table(dataset: Dataset) -> Table:
    contract = contract_of(dataset)
    return Table(f"{dataset}_trips", contract.table_columns, f"{contract.description}: clean trips.")


def rejected_table(dataset: Dataset) -> Table:
    contract = contract_of(dataset)
    return Table(
        f"{dataset}_rejected_trips", REJECTED_COLUMNS, f"{contract.description}: rows that do not fit, and why."
    )


def zones_table() -> Table:
    return Table("taxi_zones", ZONE_COLUMNS, "The TLC's taxi zones: the borough and name behind each location id.")


class Warehouse(ABC):
    """Tables by month. Raises `WarehouseError`; `WarehouseBusy` where waiting may help."""

    url: str
    """Where it is, without any secret."""

    def uri(self, table: str) -> str:
        """Where a person finds the table."""
        return f"{self.url}#{table}"

    def links(self, table: str) -> dict[str, str]:
        """What leads a person to the table in a browser: label → URL."""
        return {}

    def for_polling(self) -> Warehouse:
        """The same warehouse for a caller who never waits: raises `WarehouseLocked` where another holds it."""
        return self

    @abstractmethod
    def example_query(self, table: str) -> str:
        """A line to paste into a shell that asks the table something."""

    @abstractmethod
    def plan(self, tables: Sequence[Table]) -> Iterator[Change]:
        """What has to be made for these tables, the container first; loading a month makes it as well.

        Raises `WarehouseError` where the warehouse cannot be reached or a table clashes with the contract.
        """

    @abstractmethod
    def replace_month(self, files: CleanFiles) -> LoadResult:
        """Replace the month in both tables at once: readers see the old month or the new one.

        Compares what arrived with the files and raises `IntegrityError`, leaving the old month, when they differ.
        """

    @abstractmethod
    def replace_reference(self, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        """Replace a small table without months by these rows, at once."""

    @abstractmethod
    def loaded_months(self, table: str) -> dict[str, StoredRows]:
        """Month (2021-01) → what the table holds; empty where there is no such table."""

    @abstractmethod
    def loaded_month(self, table: str, dataset_month: DatasetMonth) -> StoredRows | None:
        """What the table holds of one month; None for no rows."""

    @abstractmethod
    def fingerprint(self, table: Table, dataset_month: DatasetMonth) -> Fingerprint:
        """The fingerprint of one month of a table."""

    def is_loaded(self, dataset_month: DatasetMonth, file_version: str, rows: int, rejected_rows: int) -> bool:
        """Whether both tables hold exactly this version of the month, by its rows."""

        def holds(table: Table, expected: int) -> bool:
            loaded = self.loaded_month(table.name, dataset_month)
            return loaded == (StoredRows(expected, (file_version,)) if expected else None)

        return holds(trips_table(dataset_month.dataset), rows) and holds(
            rejected_table(dataset_month.dataset), rejected_rows
        )


def check_arrived(table: Table, expected: Fingerprint, arrived: Fingerprint) -> None:
    """Raise `IntegrityError` where a table's month is not what the file holds."""
    if arrived != expected:
        raise IntegrityError(
            f"{table.name} does not hold what its file does ({'; '.join(arrived.differences(expected)[:5])}).",
            "The month was not replaced. Run it again; if it stays so, please report it.",
        )
