"""Which columns of which tables a column comes from, as sqlglot reads it from the SQL.

Of the marts the same is declared (`tables.lineage`), because a run of a month need not parse SQL to report it; a test
compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import sqlglot
from sqlglot import exp
from sqlglot.lineage import Node, lineage
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import build_scope

from taxi_platform.warehouse.tables import Table

TableColumn = tuple[str, str]
"""The names of a table and of one of its columns."""


def lineage_of(select: str, tables: Sequence[Table]) -> Mapping[str, Sequence[TableColumn]]:
    """Column of a query in DuckDB's dialect → the columns of these tables whose values it shows or adds up."""
    schema: dict[str, object] = {t.name: {column.name: column.duckdb_type for column in t.columns} for t in tables}
    query = qualify(sqlglot.parse_one(select, dialect="duckdb"), schema=schema, dialect="duckdb")
    nodes = lineage(None, query, schema, dialect="duckdb", scope=build_scope(query))
    return {column: sorted(set(_sources(node))) for column, node in nodes.items()}


def _sources(node: Node) -> Iterator[TableColumn]:
    for origin in node.walk():
        if isinstance(origin.source, exp.Table):
            yield origin.source.name, exp.to_column(origin.name, dialect="duckdb").name
