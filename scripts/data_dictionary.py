"""Prints the data dictionary from contracts and marts: `python scripts/data_dictionary.py > docs/columns.md`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from taxi_platform.marts.tables import KEYS, MARTS, MEASURES, OWN_DATES, QUALITY, lineage, mart_names, mart_table
from taxi_platform.marts.views import VIEWS
from taxi_platform.trips.contract import REJECTED_COLUMNS, Column, contract_of
from taxi_platform.trips.known import ZONE_COLUMNS
from taxi_platform.trips.months import Dataset


def dictionary() -> str:
    """All published tables as Markdown."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Tables and columns"
    yield ""
    yield "Generated from contracts and marts by `python scripts/data_dictionary.py`; a test keeps it up to date."
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
    for name, mart in MARTS.items():
        datasets = [dataset for dataset in Dataset if name in mart_names(dataset)]
        description = f"{mart.description[0].upper()}{mart.description[1:]}; {', '.join(datasets)}."
        yield from (
            "",
            f"## {{dataset}}_{name}",
            "",
            description if name == QUALITY else f"{description} {OWN_DATES}",
            "",
        )
        yield from _mart(name, datasets)
    for view in VIEWS.values():
        yield from ("", f"## {view.name}", "", f"A view over all datasets. {view.description}", "")
        yield from _table(view.columns)
    yield from ("", "## taxi_zones", "", "The TLC's zone lookup, as shipped with this package.", "")
    yield from _table(ZONE_COLUMNS)


def _table(columns: Iterable[Column]) -> Iterator[str]:
    yield "| column | DuckDB, Parquet | BigQuery | PostgreSQL | published as | meaning |"
    yield "|---|---|---|---|---|---|"
    for column in columns:
        aliases = ", ".join(f"`{alias}`" for alias in column.aliases)
        yield f"| `{column.name}` | {_types(column)} | {aliases} | {column.description} |"


def _mart(name: str, datasets: Sequence[Dataset]) -> Iterator[str]:
    yield "| column | DuckDB, Parquet | BigQuery | PostgreSQL | from columns of the trips | meaning |"
    yield "|---|---|---|---|---|---|"
    for column in mart_table(datasets[0], name).columns:
        by_sources: dict[tuple[str, ...], list[str]] = {}
        for dataset in datasets:
            by_sources.setdefault(lineage(dataset, name).get(column.name, ()), []).append(dataset)
        described = {tuple(f"`{source}`" for source in sources): owners for sources, owners in by_sources.items()}
        if len(described) == 1:
            origin = ", ".join(next(iter(described)))
        else:
            origin = "; ".join(
                f"{', '.join(owners)}: {', '.join(names) or 'null'}" for names, owners in described.items()
            )
        _, meaning, _ = (KEYS | MEASURES).get(column.name, ("", column.description, ()))
        yield f"| `{column.name}` | {_types(column)} | {origin} | {meaning} |"


def _types(column: Column) -> str:
    return f"{column.column_type.duckdb} | {column.column_type.bigquery_sql} | {column.column_type.postgres}"


if __name__ == "__main__":
    print(dictionary(), end="")  # noqa: T201
