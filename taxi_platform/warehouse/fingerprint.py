"""The content of a month as one value that is the same in every engine: counts, sums and extremes of each column.

`ColumnType.measures` says what is measured of each type, in addition to the number of values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb

from taxi_platform.trips.casting import literal
from taxi_platform.trips.contract import Column
from taxi_platform.trips.errors import IntegrityError


@dataclass(frozen=True)
class Fingerprint:
    """`rows`, and each measure of each column by name (`sum fare_amount`) as text. Equal contents compare equal."""

    rows: int
    measures: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return hashlib.sha256(repr((self.rows, self.measures)).encode()).hexdigest()[:12]

    def differences(self, other: Fingerprint) -> list[str]:
        """Each measure that differs, for messages: `rows 500 and 499`, this one's value first."""
        values, other_values = dict(self.measures), dict(other.measures)
        names = [name for name in values if values[name] != other_values.get(name)]
        rows = [f"rows {self.rows:,} and {other.rows:,}"] if self.rows != other.rows else []
        return rows + [f"{name} {values[name]} and {other_values.get(name)}" for name in names]


def fingerprint_select(columns: Sequence[Column], relation: str) -> str:
    """The SELECT over `relation` (what follows FROM) whose one row `fingerprint_of` reads, in plain SQL."""
    measures = ", ".join(expression for _, expression in _measures(columns))
    return f"SELECT count(*), {measures} FROM {relation}"


def fingerprint_of(columns: Sequence[Column], row: Sequence[Any]) -> Fingerprint:
    """The fingerprint from the one row of `fingerprint_select`."""
    names = [name for name, _ in _measures(columns)]
    return Fingerprint(int(row[0]), tuple(zip(names, map(_text, row[1:]), strict=True)))


def parquet_fingerprint(columns: Sequence[Column], path: Path) -> Fingerprint:
    """The fingerprint of a Parquet file on this machine; raises `IntegrityError` if it cannot be read."""
    select = fingerprint_select(columns, f"read_parquet({literal(str(path))})")
    try:
        with duckdb.connect() as con:
            return fingerprint_of(columns, con.execute(select).fetchone() or ())
    except duckdb.Error as error:
        problem = f"{path.name} cannot be read: {str(error).splitlines()[0]}"
        raise IntegrityError(problem, "Materialize the clean trips again with force.") from error


def check_file_types(table: str, columns: Sequence[Column], path: Path) -> None:
    """Raise `IntegrityError` if a Parquet file has other types than the contract: no load converts values."""
    import pyarrow.parquet as pq

    types = {field.name: str(field.type) for field in pq.read_schema(path)}
    for column in columns:
        actual, expected = types.get(column.name, "missing"), column.column_type.arrow
        if actual != expected:
            problem = f"{table}.{column.name} is {actual} in {path.name}, not {expected}."
            raise IntegrityError(problem, "Materialize the clean trips again with force.")


def _measures(columns: Sequence[Column]) -> list[tuple[str, str]]:
    """Name and SQL expression of every measure."""
    measures = []
    for column in columns:
        measures.append((f"count {column.name}", f"count({column.name})"))
        for measure in column.column_type.measures:
            expression = f"sum(char_length({column.name}))" if measure == "length" else f"{measure}({column.name})"
            measures.append((f"{measure} {column.name}", expression))
    return measures


def _text(value: Any) -> str:
    """One spelling for what engines spell differently: HUGEINT and NUMERIC sums, dates, floats, -0.0."""
    if value is None:
        return "none"
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, float):
        return repr(value + 0.0)
    return format(Decimal(value).normalize(), "f")
