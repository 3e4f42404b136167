"""The data dictionary, made from the contracts: `python scripts/data_dictionary.py > docs/columns.md`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from taxi_platform.trips.contract import REJECTED_COLUMNS, Column, contract_of
from taxi_platform.trips.known import ZONE_COLUMNS
from taxi_platform.trips.months import Dataset

TYPE_NAMES = {
    "D": ("TIMESTAMP", "DATETIME", "timestamp"),
    "I": ("BIGINT", "INT64", "bigint"),
    "F": ("DOUBLE", "FLOAT64", "double precision"),
    "M": ("DECIMAL(10,2)", "NUMERIC(10,2)", "numeric(10,2)"),
    "S": ("VARCHAR", "STRING", "text"),
    "DATE": ("DATE", "DATE", "date"),
}
"""Contract type → its name in DuckDB and Parquet, BigQuery, PostgreSQL."""


def dictionary() -> str:
    """All published tables as Markdown."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Tables and columns"
    yield ""
    yield "Made from the contracts by `python scripts/data_dictionary.py`; a test holds it to them."
    yield "Times are New York wall clock. A column that a month's file does not have is null."
    for dataset in Dataset:
        contract = contract_of(dataset)
        yield from ("", f"## {dataset}_trips", "", f"{contract.description}, from {dataset.first_month}.", "")
        yield from _table(contract.table_columns)
        yield from ("", f"Suspicious rules of {dataset}:", "")
        yield from (f"- `{rule}`: `{sql}`" for rule, sql in contract.suspicious.items())
    yield from ("", "## {dataset}_rejected_trips", "", "Rows that cannot be stored truthfully, and why.", "")
    yield from _table(REJECTED_COLUMNS)
    yield from ("", "## taxi_zones", "", "The TLC's zone lookup, as shipped.", "")
    yield from _table(ZONE_COLUMNS)


def _table(columns: Iterable[Column]) -> Iterator[str]:
    yield "| column | DuckDB, Parquet | BigQuery | PostgreSQL | published as | meaning |"
    yield "|---|---|---|---|---|---|"
    for column in columns:
        names = ", ".join(f"`{alias}`" for alias in column.aliases)
        yield f"| `{column.name}` | {' | '.join(TYPE_NAMES[column.type])} | {names} | {column.description} |"


if __name__ == "__main__":
    print(dictionary(), end="")  # noqa: T201
