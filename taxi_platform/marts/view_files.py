"""The files in a lake that a view over the marts is made of, and its rows from them, computed by DuckDB."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import duckdb

from taxi_platform.lake.base import Lake
from taxi_platform.lake.mart_month import MartMonth, complete_marts
from taxi_platform.lake.months import LakeMonth
from taxi_platform.marts.frames import parquet_rows
from taxi_platform.marts.tables import mart_names, mart_table, mart_version
from taxi_platform.marts.views import View
from taxi_platform.trips.casting import identifier
from taxi_platform.trips.errors import UserError
from taxi_platform.trips.months import Dataset, DatasetMonth
from taxi_platform.trips.text import listed_names
from taxi_platform.warehouse.tables import Table


@dataclass(frozen=True)
class ViewFiles:
    """The months' files of each mart that a view reads, in the order of the datasets."""

    view: View
    datasets: Sequence[Dataset]
    by_table: Mapping[Table, Sequence[str]]

    @property
    def keys(self) -> list[str]:
        """All keys in the lake."""
        return [key for keys in self.by_table.values() for key in keys]

    def rows(self, con: duckdb.DuckDBPyConnection, files: Sequence[Path]) -> duckdb.DuckDBPyRelation:
        """The view's rows, sorted; `files` are local copies of `keys`, in their order."""
        from taxi_platform.marts.view_sql import create_zones, view_select

        remaining = iter(files)
        for table, keys in self.by_table.items():
            paths = [next(remaining) for _ in keys]
            con.execute(f"CREATE VIEW {identifier(table.name)} AS {parquet_rows(table.columns, paths)}")
        create_zones(con)
        return con.sql(f"SELECT * FROM ({view_select(self.view, self.datasets, 'duckdb', identifier)}) ORDER BY ALL")


def view_files(
    lake: Lake, view: View, datasets: Sequence[Dataset], dataset_months: Sequence[DatasetMonth]
) -> ViewFiles:
    """The files that the view over these datasets needs for these months.

    Raises `UserError` for months whose marts are missing, or of another version than the month's clean file.
    """
    by_table: dict[Table, list[str]] = {
        mart_table(dataset, mart): [] for dataset in datasets for mart in view.marts_of(dataset)
    }
    for dataset, of_dataset in groupby(dataset_months, lambda dataset_month: dataset_month.dataset):
        names, version = mart_names(dataset), mart_version(dataset)
        complete = complete_marts(lake, dataset, names)
        missing = []
        for dataset_month in of_dataset:
            footer = LakeMonth(lake, dataset_month).footer()
            if footer is None or complete.get(dataset_month.month) != (footer.file_version, version):
                missing.append(str(dataset_month.month))
                continue
            month = MartMonth(lake, dataset_month, names, footer.file_version, version)
            for mart in view.marts_of(dataset):
                by_table[mart_table(dataset, mart)].append(month.key(mart))
        if missing:
            raise UserError(
                f"Without marts of their present trips in the lake {lake.url}: {dataset} {listed_names(missing)}.",
                f"Bring them up to date, for example with taxi ingest {dataset} {missing[0]}.",
            )
    return ViewFiles(view, datasets, by_table)
