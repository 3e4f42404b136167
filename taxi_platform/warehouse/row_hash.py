"""A hash of every row, as SQL that gives equal numbers for a table and for its Parquet file, which DuckDB reads.

The hash is of all columns in the contract's order, and is summed over the rows: whatever is changed in one row, swapped
between two, lost or doubled changes the sum, but for a chance of one in 2^60. Only 0.0 and -0.0 count as equal.
DuckDB's own `hash` takes a tenth of the time of a text's md5, so that is left to the engines that lack it. In that text
a null is nothing, texts carry their length, and commas end the fields: two different rows never have the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from taxi_platform.trips.contract import Column


@dataclass(frozen=True)
class Dialect:
    """How an engine spells it: `field` is a column in a row, by its type's letter; `total` adds up the rows' hashes.

    `total` names the hash once, because PostgreSQL would compute it each time that it is named.
    """

    field: Mapping[str, str]
    separator: str
    row: str
    total: str
    name: str = "{0}"
    """A column's name as its SQL takes it: `rows` is a reserved word of BigQuery's."""

    def select(self, groups: Sequence[Sequence[Column]], relation: str) -> str:
        """The SELECT over `relation` (what follows FROM): the rows, and a sum for each group of columns."""
        hashes = ", ".join(f"{self._hash(group)} AS h{i}" for i, group in enumerate(groups))
        sums = ", ".join(self.total.format(f"h{i}") for i in range(len(groups)))
        return f"SELECT count(*), {sums} FROM (SELECT {hashes} FROM {relation}) AS hashed"

    def _hash(self, columns: Sequence[Column]) -> str:
        names = [self.name.format(column.name) for column in columns]
        fields = (self.field[column.type].format(name) for column, name in zip(columns, names, strict=True))
        return self.row.format(self.separator.join(fields))


@dataclass(frozen=True)
class RowHash:
    """A hash that a warehouse computes of its table, and DuckDB of the file."""

    table: Dialect
    file: Dialect


ZERO = "CASE WHEN {0} = 0 THEN 0 ELSE {0} END"
TEXT = "length({0}) || ':' || {0}"
DIGITS = 15
"""Hex digits of a md5 that become a number, which is positive and fits the integers of every engine."""

NATIVE = Dialect(
    # Hashed twice, because the first hash combines the columns by XOR, which a swap between two rows may survive.
    dict.fromkeys(("I", "M", "TOTAL", "D", "F", "S", "DATE"), "{0}"),
    ", ",
    "hash(hash({0}))",
    "sum({0})",
)
POSTGRES = Dialect(
    {
        "I": "{0}",
        "M": "{0}",
        "TOTAL": "{0}",
        "D": "{0}",
        "F": f"encode(float8send({ZERO}), 'hex')",
        "S": TEXT,
        "DATE": "{0}",
    },
    ", ',', ",
    "md5(convert_to(concat({0}), 'UTF8'))",
    f"sum(('x' || left({{0}}, {DIGITS}))::bit({DIGITS * 4})::bigint)",
)
BIGQUERY = Dialect(
    {
        "I": "CAST({0} AS STRING)",
        "M": "FORMAT('%.2f', {0})",
        "TOTAL": "FORMAT('%.2f', {0})",
        "D": "CAST(DATETIME_DIFF({0}, DATETIME '1970-01-01', MICROSECOND) AS STRING)",
        "F": f"FORMAT('%.16e', {ZERO})",
        "S": "CONCAT(CAST(CHAR_LENGTH({0}) AS STRING), ':', {0})",
        "DATE": "CAST({0} AS STRING)",
    },
    ", ",
    "TO_HEX(MD5(ARRAY_TO_STRING([{0}], ',', '')))",
    f"SUM(CAST(CAST(CONCAT('0x', SUBSTR({{0}}, 1, {DIGITS})) AS INT64) AS NUMERIC))",
    "`{0}`",
)


def _file(times: str, floats: str) -> Dialect:
    """The md5 of the same text in DuckDB, with these texts of a time and of a float."""
    return Dialect(
        {
            "I": "{0}",
            "M": "{0}",
            "TOTAL": "{0}",
            "D": times,
            "F": floats,
            "S": TEXT,
            "DATE": "{0}",
        },
        ", ',', ",
        "md5(concat({0}))",
        f"sum(CAST('0x' || substr({{0}}, 1, {DIGITS}) AS BIGINT))",
    )


IN_DUCKDB = RowHash(NATIVE, NATIVE)
IN_POSTGRES = RowHash(POSTGRES, _file("{0}", f"lower(hex(CAST(CAST({ZERO} AS BIT) AS BLOB)))"))
"""Times as text, which both trim alike; floats by their 64 bits."""
IN_BIGQUERY = RowHash(BIGQUERY, _file("epoch_us({0})", f"printf('%.16e', {ZERO})"))
"""Times as microseconds since 1970; floats by 17 digits, which no two floats share."""
