"""The content of a month in one value that is the same in every engine: counts, sums, extremes of each column.

Sums of floats depend on the order of addition, so floats count by presence and extremes; texts by presence and length.
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

AGGREGATES = {"D": ("min", "max"), "DATE": ("min", "max"), "I": ("sum",), "M": ("sum",), "F": ("min", "max")}


@dataclass(frozen=True)
class Fingerprint:
    """`rows`, and each measure of each column by name (`sum fare_amount`) as text; equal contents are equal."""

    rows: int
    measures: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return hashlib.sha256(repr((self.rows, self.measures)).encode()).hexdigest()[:12]

    def differences(self, other: Fingerprint) -> list[str]:
        """What differs, in words a person can follow."""
        mine, theirs = dict(self.measures), dict(other.measures)
        names = [name for name in mine if mine[name] != theirs.get(name)]
        rows = [f"rows {self.rows:,} and {other.rows:,}"] if self.rows != other.rows else []
        return rows + [f"{name} {mine[name]} and {theirs.get(name)}" for name in names]


def fingerprint_select(columns: Sequence[Column], relation: str, text_length: str = "length") -> str:
    """The SELECT whose one row `fingerprint_of` reads; plain SQL but for the name of the length in characters."""
    measures = ", ".join(expression for _, expression in _measures(columns, text_length))
    return f"SELECT count(*), {measures} FROM {relation}"


def fingerprint_of(columns: Sequence[Column], row: Sequence[Any]) -> Fingerprint:
    names = [name for name, _ in _measures(columns, "length")]
    return Fingerprint(int(row[0]), tuple(zip(names, map(_text, row[1:]), strict=True)))


def parquet_fingerprint(columns: Sequence[Column], path: Path) -> Fingerprint:
    """The fingerprint of a Parquet file on this machine; raises `IntegrityError` where it cannot be read."""
    select = fingerprint_select(columns, f"read_parquet({literal(str(path))})")
    try:
        with duckdb.connect() as con:
            return fingerprint_of(columns, con.execute(select).fetchone() or ())
    except duckdb.Error as error:
        problem = f"{path.name} cannot be read: {str(error).splitlines()[0]}"
        raise IntegrityError(problem, "Materialize the clean trips again with force.") from error


def _measures(columns: Sequence[Column], text_length: str) -> list[tuple[str, str]]:
    measures = []
    for column in columns:
        measures.append((f"count {column.name}", f"count({column.name})"))
        if column.type == "S":
            measures.append((f"length {column.name}", f"sum({text_length}({column.name}))"))
        else:
            measures += [(f"{f} {column.name}", f"{f}({column.name})") for f in AGGREGATES[column.type]]
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
