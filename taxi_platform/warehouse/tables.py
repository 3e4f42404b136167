"""The published tables: their names, columns and meaning, the same in every warehouse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from taxi_platform.trips.contract import PROVENANCE, REJECTED_COLUMNS, Column, contract_of
from taxi_platform.trips.known import ZONE_COLUMNS
from taxi_platform.trips.months import Dataset, DatasetMonth


@dataclass(frozen=True)
class Table:
    """One published table."""

    name: str
    columns: tuple[Column, ...]
    description: str
    small: bool = False
    """Whether its months are too small for a table of their own, which a partition is in PostgreSQL."""

    @property
    def by_month(self) -> bool:
        """Whether its rows belong to months, so that it is partitioned by `file_month`."""
        return any(column.name == PROVENANCE[0].name for column in self.columns)


@dataclass(frozen=True)
class KnownBytes:
    """What the bytes of a file on this machine are, as was just compared, and the folder where its fingerprints are
    kept: equal bytes are equal rows."""

    sha256: str
    folder: Path


@dataclass(frozen=True)
class TableFile:
    """The Parquet file that becomes one month of one table."""

    table: Table
    path: Path
    uri: str
    dataset_month: DatasetMonth
    file_version: str
    known: KnownBytes | None = field(default=None, kw_only=True)

    @property
    def is_rejected(self) -> bool:
        """Whether it holds rejected trips."""
        return self.table == rejected_table(self.dataset_month.dataset)


@dataclass(frozen=True)
class MartFile(TableFile):
    """One month of a mart: the query by which a warehouse makes it, and the Parquet file with which it is compared.

    `select` takes the engine's name in sqlglot (`Session.dialect`) and the name of the trips' table in that engine's
    SQL. The query returns the columns of `table`, in their order and types.
    """

    select: Callable[[str, str], str]


def trips_table(dataset: Dataset) -> Table:
    """The table of a dataset's clean trips."""
    contract = contract_of(dataset)
    return Table(f"{dataset}_trips", contract.table_columns, f"{contract.description}: clean trips.")


def rejected_table(dataset: Dataset) -> Table:
    """The table of a dataset's rejected trips."""
    description = f"{contract_of(dataset).description}: rows that do not fit, and why."
    return Table(f"{dataset}_rejected_trips", REJECTED_COLUMNS, description)


def zones_table() -> Table:
    """The reference table of taxi zones."""
    return Table("taxi_zones", ZONE_COLUMNS, "The TLC's taxi zones: the borough and name behind each location id.")
