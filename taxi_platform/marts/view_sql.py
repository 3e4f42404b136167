"""The views' SQL for each engine: fitted to the datasets and their tables, and written in its dialect by sqlglot.

Everything is done on the syntax tree, so sqlglot does all quoting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache

import duckdb
import sqlglot
from sqlglot import exp

from taxi_platform.marts.tables import MARTS, mart_names, mart_table, mart_tables
from taxi_platform.marts.transpiling import data_type, table_relation
from taxi_platform.marts.views import View, labels
from taxi_platform.trips.casting import literal
from taxi_platform.trips.contract import Column
from taxi_platform.trips.known import ZONE_COLUMNS, taxi_zones
from taxi_platform.trips.months import Dataset
from taxi_platform.warehouse.tables import zones_table

Names = Callable[[str], str]
"""A table's name → its name in an engine's SQL, qualified and quoted."""


def view_select(view: View, datasets: Sequence[Dataset], dialect: str, names: Names) -> str:
    """The query of a view over the marts of these datasets; its columns are the declared ones, in order and type."""
    tables = [zones_table(), *(table for dataset in datasets for table in mart_tables(dataset))]
    named = tuple((table.name, names(table.name)) for table in tables)
    return _written(view, tuple(datasets), dialect, named)


@cache
def _written(view: View, datasets: tuple[Dataset, ...], dialect: str, named: tuple[tuple[str, str], ...]) -> str:
    """The query; written once in a process, as every month asks for the same."""
    tree = _parsed(view).copy()
    if [projection.alias_or_name for projection in tree.selects] != [column.name for column in view.columns]:
        raise ValueError(f"sql/views/{view.name}.sql does not select {view.columns}.")  # a mistake in the package
    tree.set(
        "expressions",
        [
            # A bare column has its type already, and a cast could keep an engine from pruning months.
            projection
            if isinstance(projection.unalias(), exp.Column)
            else exp.alias_(exp.cast(projection.unalias(), data_type(column, dialect)), column.name)
            for projection, column in zip(tree.selects, view.columns, strict=True)
        ],
    )
    sources = _sources(datasets, dialect, dict(named).__getitem__)
    for table in list(tree.find_all(exp.Table)):
        if source := sources.get(table.name):
            table.replace(source(table.alias_or_name))
    return tree.sql(dialect, identify=True, comments=False)


def create_zones(con: duckdb.DuckDBPyConnection) -> None:
    """Make `taxi_zones` a table of this DuckDB database."""
    columns = ", ".join(f"{column.name} {column.duckdb_type}" for column in ZONE_COLUMNS)
    con.execute(f"CREATE TABLE taxi_zones ({columns})")
    # No bound parameters: the first one makes DuckDB import pandas, half a second.
    rows = (f"({number}, {', '.join(map(literal, names))})" for number, *names in taxi_zones())
    con.execute(f"INSERT INTO taxi_zones VALUES {', '.join(rows)}")


@cache
def _parsed(view: View) -> exp.Select:
    return sqlglot.parse_one(view.sql, dialect="duckdb").assert_is(exp.Select)


def _sources(datasets: Sequence[Dataset], dialect: str, names: Names) -> Mapping[str, Callable[[str], exp.Expr]]:
    """Name in the SQL files → what stands there instead, by its alias."""

    def table(alias: str) -> exp.Expr:
        return exp.alias_(table_relation(names(zones_table().name), dialect), alias, table=True)

    def union(selects: Sequence[exp.Select]) -> Callable[[str], exp.Expr]:
        whole = exp.union(*selects, distinct=False) if len(selects) > 1 else selects[0]
        return lambda alias: whole.copy().subquery(alias)

    marts = {f"all_{mart}": union(_selects(mart, datasets, dialect, names)) for mart in MARTS}
    words = {
        name: union([exp.select(_value(code, "code"), _value(label, "label")) for code, label in by_code.items()])
        for name, by_code in labels().items()
    }
    return {"taxi_zones": table} | marts | words


def _selects(mart: str, datasets: Sequence[Dataset], dialect: str, names: Names) -> list[exp.Select]:
    """A SELECT from the mart of each dataset that has it; if none has, one without rows."""
    selects = []
    for dataset in datasets:
        if mart in mart_names(dataset):
            table = mart_table(dataset, mart)
            columns = [exp.column(column.name) for column in table.columns]
            source = table_relation(names(table.name), dialect)
            selects.append(exp.select(_value(str(dataset), "dataset"), *columns).from_(source))
    return selects or [exp.select(*_nulls(mart, dialect)).limit(0)]


def _nulls(mart: str, dialect: str) -> Iterator[exp.Expr]:
    owner = next(dataset for dataset in Dataset if mart in mart_names(dataset))
    for column in (Column("dataset", "S", ""), *mart_table(owner, mart).columns):
        yield exp.alias_(exp.cast(exp.null(), data_type(column, dialect)), column.name)


def _value(value: str | int, name: str) -> exp.Expr:
    return exp.alias_(exp.convert(value), name)
