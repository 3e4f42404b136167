"""The marts' SQL for each engine: parsed once, fitted to the dataset, and written in the engine's dialect by sqlglot.

Everything is done on the syntax tree, values and names included, so sqlglot does all quoting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import sqlglot
from sqlglot import exp

from taxi_platform.marts.quality import QualityRow
from taxi_platform.marts.tables import QUALITY, mart_sql, mart_table, trip_columns
from taxi_platform.trips.casting import escape_glob
from taxi_platform.trips.contract import Column
from taxi_platform.trips.months import Dataset, DatasetMonth


def parquet_relation(path: str) -> exp.Expr:
    """A Parquet file, for DuckDB to read."""
    return exp.Table(this=exp.func("read_parquet", exp.Literal.string(escape_glob(path)), dialect="duckdb"))


def table_relation(name: str, dialect: str) -> exp.Expr:
    """A table, by its name in the engine's own SQL, qualified and quoted."""
    return exp.to_table(name, dialect=dialect)


def data_type(column: Column, dialect: str) -> exp.DataType:
    """The column's type in the engine's dialect."""
    spelling = {
        "duckdb": column.column_type.duckdb,
        "postgres": column.column_type.postgres,
        "bigquery": column.column_type.bigquery_sql,
    }[dialect]
    return exp.DataType.build(spelling, dialect=dialect)


def mart_select(dataset_month: DatasetMonth, name: str, file_version: str, trips: exp.Expr, dialect: str) -> str:
    """The query of a month's mart over the relation `trips`; its columns are the table's, in their order and types."""
    dataset = dataset_month.dataset
    tree = _parsed(name).copy()
    values = {projection.alias_or_name: projection.unalias() for projection in tree.selects}
    if list(values) != [column.name for column in mart_table(dataset, name).columns]:
        raise ValueError(f"sql/{name}.sql selects {', '.join(values)}.")  # a mistake in the package
    tree.set(
        "expressions",
        [
            _typed(values[column.name] if _is_known(values[column.name], dataset) else exp.null(), column, dialect)
            for column in mart_table(dataset, name).columns
        ],
    )
    parameters = {"file_month": _date(dataset_month), "file_version": exp.Literal.string(file_version)}
    fitted = tree.transform(_fit_to_dataset, dataset, trips, parameters).transform(_fit_to_engine, dialect)
    return fitted.sql(dialect, identify=True, comments=False)


def quality_select(dataset_month: DatasetMonth, file_version: str, rows: Sequence[QualityRow], dialect: str) -> str:
    """The rows of a month's mart `quality` as a query without a table, in the same columns and types."""
    columns = mart_table(dataset_month.dataset, QUALITY).columns
    provenance = _date(dataset_month), exp.Literal.string(file_version)
    selects = [
        exp.select(*map(_typed, (*map(exp.convert, row), *provenance), columns, [dialect] * len(columns)))
        for row in rows
    ]
    return exp.union(*selects, distinct=False).sql(dialect, identify=True)


def _fit_to_dataset(node: exp.Expr, dataset: Dataset, trips: exp.Expr, parameters: Mapping[str, exp.Expr]) -> exp.Expr:
    match node:
        case exp.Placeholder():
            return parameters[node.name].copy()
        case exp.Table():
            return trips
        case exp.Column():
            total: exp.Expr
            total, *others = map(exp.column, trip_columns(dataset, node.name))
            for other in others:
                total = exp.Add(this=total, expression=exp.Coalesce(this=other, expressions=[exp.Literal.number(0)]))
            return total
    return node


def _fit_to_engine(node: exp.Expr, dialect: str) -> exp.Expr:
    """Functions whose name in BigQuery depends on the type of their argument, which sqlglot does not know."""
    if dialect == "bigquery" and isinstance(node, exp.DateDiff | exp.TimestampTrunc):
        function = exp.DatetimeDiff if isinstance(node, exp.DateDiff) else exp.DatetimeTrunc
        names = function.arg_types.keys() & node.args.keys()
        return function(**{name: node.args[name] for name in names})
    return node


@cache
def _parsed(name: str) -> exp.Select:
    return sqlglot.parse_one(mart_sql(name), dialect="duckdb").assert_is(exp.Select)


def _is_known(value: exp.Expr, dataset: Dataset) -> bool:
    """Whether the dataset has all columns of this value; otherwise it is null."""
    return all(trip_columns(dataset, column.name) for column in value.find_all(exp.Column))


def _typed(value: exp.Expr, column: Column, dialect: str) -> exp.Expr:
    return exp.alias_(exp.cast(value, data_type(column, dialect)), column.name)


def _date(dataset_month: DatasetMonth) -> exp.Expr:
    return exp.cast(exp.Literal.string(dataset_month.month.first_day.isoformat()), exp.DataType.Type.DATE)
