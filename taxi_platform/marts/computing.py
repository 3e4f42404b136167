"""The marts of one month, computed by DuckDB from its clean file: one Parquet file each.

The same SQL runs in the warehouse over its own table, and the two results are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
from sqlglot import exp

from taxi_platform.marts.quality import QualityRow
from taxi_platform.marts.tables import QUALITY, mart_names, mart_version
from taxi_platform.marts.transpiling import mart_select, parquet_relation, quality_select, table_relation
from taxi_platform.trips.casting import literal
from taxi_platform.trips.engine import Engine
from taxi_platform.trips.errors import LakeError
from taxi_platform.trips.in_memory import writing_files
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.trips.stored_json import FORMAT_VERSION, NUMBER

PARQUET_OPTIONS = "FORMAT parquet, COMPRESSION snappy"


@dataclass(frozen=True)
class MonthOfMarts:
    """What the marts of a month are made of, beside its trips: its version, and the rows of `quality`."""

    dataset_month: DatasetMonth
    file_version: str
    quality: Sequence[QualityRow]

    def compute(self, clean: Path, folder: Path, engine: Engine) -> dict[str, Path]:
        """Mart → its Parquet file in `folder`, with the rows in order of their keys. `clean` is the clean file.

        Raises `LakeError` if there is no room for the work.
        """
        trips = parquet_relation(str(clean))
        paths = {name: folder / f"{name}.parquet" for name in mart_names(self.dataset_month.dataset)}
        options = f"{PARQUET_OPTIONS}, KV_METADATA {{{self._footer()}}}"
        try:
            with writing_files(engine, folder / "spill") as con:
                for name, path in paths.items():
                    query = f"SELECT * FROM ({self._select(name, 'duckdb', trips)}) ORDER BY ALL"
                    con.execute(f"COPY ({query}) TO {literal(str(path))} ({options})")
        except duckdb.Error as error:
            raise LakeError(
                f"The marts of {self.dataset_month} could not be computed: {str(error).splitlines()[0]}",
                "Free some disk space under TAXI_HOME, or raise TAXI_MEMORY_LIMIT.",
            ) from error
        return paths

    def select(self, name: str) -> Callable[[str, str], str]:
        """The query of a mart for a warehouse; see `MartFile.select`."""
        return lambda dialect, trips: self._select(name, dialect, table_relation(trips, dialect))

    def _select(self, name: str, dialect: str, trips: exp.Expr) -> str:
        if name == QUALITY:
            return quality_select(self.dataset_month, self.file_version, self.quality, dialect)
        return mart_select(self.dataset_month, name, self.file_version, trips, dialect)

    def _footer(self) -> str:
        """What the files say about themselves, as the clean file does."""
        footer = {
            NUMBER: str(FORMAT_VERSION),
            "file_version": self.file_version,
            "mart_version": mart_version(self.dataset_month.dataset),
            "dataset": str(self.dataset_month.dataset),
            "month": str(self.dataset_month.month),
        }
        return ", ".join(f"{key}: {literal(value)}" for key, value in footer.items())
