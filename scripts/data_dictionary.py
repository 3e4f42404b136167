"""Prints the data dictionary from the contracts: `python scripts/data_dictionary.py > docs/columns.md`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from taxi_platform.trips.contract import REJECTED_COLUMNS, Column, contract_of
from taxi_platform.trips.known import ZONE_COLUMNS
from taxi_platform.trips.months import Dataset


def dictionary() -> str:
    """All published tables as Markdown."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Tables and columns"
    yield ""
    yield "Generated from the contracts by `python scripts/data_dictionary.py`; a test keeps it up to date."
    yield "Times are New York local time. A column that a month's file does not have is null."
    for dataset in Dataset:
        contract = contract_of(dataset)
        yield from ("", f"## {dataset}_trips", "", f"{contract.description}, from {dataset.first_month}.", "")
        yield from _table(contract.table_columns)
        yield from ("", f"Suspicious rules of {dataset}:", "")
        yield from (f"- `{rule}`: `{sql}`" for rule, sql in contract.suspicious.items())
    yield from (
        "",
        "## {dataset}_rejected_trips",
        "",
        "Rows that cannot be stored as published, and why.",
        "",
    )
    yield from _table(REJECTED_COLUMNS)
    yield from ("", "## taxi_zones", "", "The TLC's zone lookup, as shipped with this package.", "")
    yield from _table(ZONE_COLUMNS)


def _table(columns: Iterable[Column]) -> Iterator[str]:
    yield "| column | DuckDB, Parquet | BigQuery | PostgreSQL | published as | meaning |"
    yield "|---|---|---|---|---|---|"
    for column in columns:
        aliases = ", ".join(f"`{alias}`" for alias in column.aliases)
        types = f"{column.column_type.duckdb} | {column.column_type.bigquery_sql} | {column.column_type.postgres}"
        yield f"| `{column.name}` | {types} | {aliases} | {column.description} |"


if __name__ == "__main__":
    print(dictionary(), end="")  # noqa: T201
