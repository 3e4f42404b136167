"""The content of a month as one value: its rows, and the sum of their hashes, of a table or of its Parquet file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from taxi_platform.trips.casting import literal
from taxi_platform.trips.contract import Column
from taxi_platform.trips.errors import IntegrityError
from taxi_platform.trips.in_memory import in_memory
from taxi_platform.warehouse.row_hash import Dialect

CLEAN_AGAIN = "Materialize the clean trips again with force."


@dataclass(frozen=True)
class Fingerprint:
    """`rows`, and for each group of columns the sum of their hashes. Comparable within one kind of warehouse."""

    rows: int
    sums: tuple[int, ...]

    def __str__(self) -> str:
        return hashlib.sha256(repr((self.rows, self.sums)).encode()).hexdigest()[:12]

    @classmethod
    def of(cls, row: Sequence[Any]) -> Fingerprint:
        """The fingerprint from the one row of `Dialect.select`."""
        rows, *sums = (int(number or 0) for number in row)  # a sum over no rows is null
        return cls(rows, tuple(sums))

    def differences(self, file: Fingerprint, columns: Sequence[Column]) -> str:
        """How this table differs from its file, for messages; both must be of these columns one by one."""
        if self.rows != file.rows:
            return f"{self.rows:,} rows, not {file.rows:,}"
        pairs = zip(columns, self.sums, file.sums, strict=True)
        names = [column.name for column, own, of_file in pairs if own != of_file]
        return f"in {', '.join(names)}" if names else "values stand in other rows"


def parquet_fingerprint(dialect: Dialect, groups: Sequence[Sequence[Column]], path: Path) -> Fingerprint:
    """The fingerprint of a Parquet file on this machine; raises `IntegrityError` if it cannot be read."""
    select = dialect.select(groups, f"read_parquet({literal(str(path))})")
    try:
        with in_memory() as con:
            return Fingerprint.of(con.execute(select).fetchone() or ())
    except duckdb.Error as error:
        problem = f"{path.name} cannot be read: {str(error).splitlines()[0]}"
        raise IntegrityError(problem, CLEAN_AGAIN) from error


def check_file_types(table: str, columns: Sequence[Column], path: Path) -> None:
    """Raise `IntegrityError` if a Parquet file has other types than the contract: no load converts values."""
    import pyarrow.parquet as pq

    types = {field.name: str(field.type) for field in pq.read_schema(path)}
    for column in columns:
        actual, expected = types.get(column.name, "missing"), column.column_type.arrow
        if actual != expected:
            problem = f"{table}.{column.name} is {actual} in {path.name}, not {expected}."
            raise IntegrityError(problem, CLEAN_AGAIN)
