"""The marts' SQL for each engine: parsed once, fitted to the dataset, and written in the engine's dialect by sqlglot.

That is done on the syntax tree. A month's values are then put into the text, each as sqlglot writes it, so that sqlglot
does all quoting.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache

import sqlglot
from sqlglot import exp

from taxi_platform.marts.quality import QualityRow
from taxi_platform.marts.tables import MARTS, QUALITY, mart_sql, mart_table, trip_columns
from taxi_platform.trips.casting import escape_glob
from taxi_platform.trips.contract import Column
from taxi_platform.trips.months import Dataset, DatasetMonth

TRIPS = "trips"
"""The name of the relation in the SQL of the marts."""


def parquet_relation(path: str) -> exp.Expr:
    """A Parquet file, for DuckDB to read."""
    return exp.Table(this=exp.func("read_parquet", exp.Literal.string(escape_glob(path)), dialect="duckdb"))


def table_relation(name: str, dialect: str) -> exp.Expr:
    """A table, by its name in the engine's own SQL, qualified and quoted."""
    return exp.to_table(name, dialect=dialect)


@cache
def data_type(column: Column, dialect: str) -> exp.DataType:
    """The column's type in the engine's dialect; not to be changed."""
    spelling = {
        "duckdb": column.column_type.duckdb,
        "postgres": column.column_type.postgres,
        "bigquery": column.column_type.bigquery_sql,
    }[dialect]
    return exp.DataType.build(spelling, dialect=dialect)


def mart_select(dataset_month: DatasetMonth, name: str, file_version: str, trips: exp.Expr, dialect: str) -> str:
    """The query of a month's mart over the relation `trips`; its columns are the table's, in their order and types."""
    values = {**_provenance(dataset_month, file_version), TRIPS: trips}
    return _filled(_mart_template(dataset_month.dataset, name, dialect), values, dialect)


def quality_select(dataset_month: DatasetMonth, file_version: str, rows: Sequence[QualityRow], dialect: str) -> str:
    """The rows of a month's mart `quality` as a query without a table, in the same columns and types."""
    template, provenance = _quality_template(dataset_month.dataset, dialect), _provenance(dataset_month, file_version)
    names = MARTS[QUALITY].keys + MARTS[QUALITY].measures
    values = [dict(zip(names, map(exp.convert, row), strict=True)) for row in rows]
    return " UNION ALL ".join(_filled(template, {**row, **provenance}, dialect) for row in values)


@cache
def _mart_template(dataset: Dataset, name: str, dialect: str) -> str:
    """The query with marks for what differs from month to month: sqlglot takes 7 ms for each, and a month has ten."""
    tree = sqlglot.parse_one(mart_sql(name), dialect="duckdb").assert_is(exp.Select)
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
    fitted = tree.transform(_fit_to_dataset, dataset).transform(_fit_to_engine, dialect)
    return fitted.sql(dialect, identify=True, comments=False)


@cache
def _quality_template(dataset: Dataset, dialect: str) -> str:
    """One row of `quality`, with marks for all values."""
    columns = mart_table(dataset, QUALITY).columns
    return exp.select(*(_typed(_mark(c.name), c, dialect) for c in columns)).sql(dialect, identify=True)


def _mark(name: str) -> exp.Expr:
    """What stands in a template for a value of this name: a string, which every engine writes in the same way."""
    return exp.Literal.string(f"<{name}>")


def _filled(template: str, values: Mapping[str, exp.Expr], dialect: str) -> str:
    """The template with these values in place of its marks; in one pass, as values may hold what looks like a mark."""
    texts = {f"'<{name}>'": value.sql(dialect, identify=True) for name, value in values.items()}
    return re.sub("|".join(map(re.escape, texts)), lambda mark: texts[mark[0]], template)


def _provenance(dataset_month: DatasetMonth, file_version: str) -> dict[str, exp.Expr]:
    values = {"file_month": dataset_month.month.first_day.isoformat(), "file_version": file_version}
    return {name: exp.Literal.string(value) for name, value in values.items()}


def _fit_to_dataset(node: exp.Expr, dataset: Dataset) -> exp.Expr:
    match node:
        case exp.Placeholder():
            return exp.cast(_mark(node.name), "date") if node.name == "file_month" else _mark(node.name)
        case exp.Table():
            return _mark(TRIPS)
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


def _is_known(value: exp.Expr, dataset: Dataset) -> bool:
    """Whether the dataset has all columns of this value; otherwise it is null."""
    return all(trip_columns(dataset, column.name) for column in value.find_all(exp.Column))


def _typed(value: exp.Expr, column: Column, dialect: str) -> exp.Expr:
    return exp.alias_(exp.cast(value, data_type(column, dialect)), column.name)
