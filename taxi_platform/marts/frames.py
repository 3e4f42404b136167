"""Parquet files of the lake as data frames: the columns and rows that are asked for, in the form that is asked for.

Belongs here: reading, filtering, the estimate of memory. Does not belong here: which files to read (`python_api.py`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, Literal

import duckdb
import psutil

from taxi_platform.lake.base import Lake
from taxi_platform.trips.casting import escape_glob, literal, null_columns
from taxi_platform.trips.contract import Column
from taxi_platform.trips.errors import IntegrityError, UserError
from taxi_platform.trips.in_memory import is_unreadable

Form = Literal["pandas", "arrow", "polars", "duckdb"]
FORMS = ("pandas", "arrow", "polars", "duckdb")

SHARE_OF_MEMORY = 0.5
"""Of the memory that is available: a frame is rarely used without a copy of it."""
FIXED_BYTES = {"I": 8, "F": 8, "D": 8, "M": 16, "TOTAL": 16, "DATE": 4, "BOOL": 1}
"""What a value takes in Arrow, by the letter of its type; texts are measured."""
OFFSET_BYTES = 4
LONG_TEXT_BYTES = 32
"""More than texts have on average: flags have 1 character, base numbers 6, names of zones at most 45."""
ATTEMPTS = 3
"""DuckDB opens a file twice, and fails if its month was replaced in between."""


Rows = Callable[[duckdb.DuckDBPyConnection, Sequence[Path]], duckdb.DuckDBPyRelation]
"""The rows that these files make, as a relation of this connection."""


def load_frame(
    lake: Lake,
    keys: Sequence[str],
    known: Sequence[Column],
    names: Sequence[str] | None,
    where: str | None,
    form: Form,
    max_bytes: int | None,
    rows: Rows | None = None,
) -> Any:
    """The rows of these objects, or those that `rows` makes of them; no more rows than the objects have together.

    `known` are all columns, `names` those that are wanted. Raises `UserError`, `IntegrityError` or `LakeError`.
    """
    if form not in FORMS:
        raise UserError(f"{form!r} is not a form of data.", f"as_ takes one of {', '.join(FORMS)}.")
    import pyarrow as pa

    columns = _chosen(known, names)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with _local_files(lake, keys) as (files, temporary):
                relation = partial(_relation, rows or _stored(known), files, columns, where)
                if form == "duckdb" and not temporary:
                    return relation()
                _check_size(files, relation, columns, max_bytes)
                table = _read(files, columns) if where is None and not rows else relation().to_arrow_table()
                return _in_form(table, form)
        except (duckdb.Error, pa.ArrowException, FileNotFoundError) as error:
            if isinstance(error, duckdb.Error) and not is_unreadable(error):  # a text that is compared with a number
                raise _not_an_expression(error) from error
            if attempt == ATTEMPTS:
                problem = str(error).splitlines()[0]
                raise IntegrityError(
                    f"A file of {lake.url} cannot be read: {problem}", "Run taxi ingest for the months."
                ) from error
    raise AssertionError("the last attempt returns or raises")


def _chosen(known: Sequence[Column], names: Sequence[str] | None) -> list[Column]:
    """The columns by these names, in their order; raises `UserError` for unknown and repeated ones."""
    if names is None:
        return list(known)
    if isinstance(names, str) or not names:
        raise UserError("columns is not a list of names.", "Write it as columns=['pickup_datetime', 'fare_amount'].")
    by_name = {column.name: column for column in known}
    for position, name in enumerate(names):
        if name not in by_name:
            close = get_close_matches(str(name), by_name, 1)
            suggestion = f"Did you mean {close[0]}?" if close else f"Choose from {', '.join(by_name)}."
            raise UserError(f"{name!r} is not a column.", suggestion)
        if name in names[:position]:
            raise UserError(f"The column {name} is named twice.", "Name each column once.")
    return [by_name[name] for name in names]


@contextmanager
def _local_files(lake: Lake, keys: Sequence[str]) -> Iterator[tuple[list[Path], bool]]:
    """The objects as files to read, and whether these vanish afterwards."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="taxi-")))
        files = []
        for number, key in enumerate(keys):
            own = folder / str(number)  # all files of clean trips have the same name
            own.mkdir()
            files.append(stack.enter_context(lake.local_copy(key, own)))
        yield files, any(folder in file.parents for file in files)


def parquet_rows(columns: Sequence[Column], files: Sequence[Path]) -> str:
    """The SELECT of Parquet files' rows; columns that a file's older contract lacks are null. No file has no rows."""
    none = f"SELECT {null_columns(columns)} WHERE false"
    if not files:
        return none
    paths = ", ".join(literal(escape_glob(str(file))) for file in files)
    read = f"read_parquet([{paths}], union_by_name = true, hive_partitioning = false)"
    return f"{none} UNION ALL BY NAME SELECT * FROM {read}"


def _stored(columns: Sequence[Column]) -> Rows:
    return lambda con, files: con.sql(parquet_rows(columns, files))


def _relation(rows: Rows, files: Sequence[Path], columns: Sequence[Column], where: str | None) -> Any:
    """The columns of the rows that satisfy `where`. Raises `UserError` if that is not one expression."""
    con = duckdb.connect(config={"autoinstall_known_extensions": False})
    con.execute("SET enable_progress_bar = false; SET TimeZone = 'UTC'")
    relation = rows(con, files)
    try:
        filtered = relation if where is None else relation.filter(where)
    except duckdb.Error as error:
        raise _not_an_expression(error) from error
    return filtered.select(*(column.name for column in columns))


def _not_an_expression(error: duckdb.Error) -> UserError:
    return UserError(
        f"where cannot be evaluated: {str(error).splitlines()[0]}",
        'Write an expression over the columns, as in SQL after WHERE: where="fare_amount > 50".',
    )


def _check_size(
    files: Sequence[Path], relation: Callable[[], Any], columns: Sequence[Column], max_bytes: int | None
) -> None:
    """Raise `UserError` if the result would take more memory than it may.

    The footers tell how many rows there are before the filter: where even these fit, nothing is read, and DuckDB is not
    opened, which takes a third of the time of four columns of a month.
    """
    import pyarrow.parquet as pq

    limit = int(psutil.virtual_memory().available * SHARE_OF_MEMORY) if max_bytes is None else max_bytes
    texts = [column.name for column in columns if column.column_type.letter not in FIXED_BYTES]
    fixed = sum(FIXED_BYTES.get(column.column_type.letter, OFFSET_BYTES) for column in columns)
    rows = sum(pq.read_metadata(file).num_rows for file in files)
    if rows * (fixed + len(texts) * LONG_TEXT_BYTES) <= limit:
        return
    measures = ["count(*)", *(f"coalesce(sum(strlen({name})), 0)" for name in texts)]
    [(rows, *lengths)] = relation().aggregate(", ".join(measures)).fetchall()
    size = int(rows * fixed + sum(lengths))
    if size > limit:
        raise UserError(
            f"{rows:,} rows of {len(columns)} columns would take {size / 1e6:,.1f} MB of memory; "
            f"the limit is {limit / 1e6:,.1f} MB.",
            "Ask for fewer months or columns, filter with where, use as_='duckdb', or raise max_bytes.",
        )


def _read(files: Sequence[Path], columns: Sequence[Column]) -> Any:
    """Whole columns as an Arrow table: pyarrow reads them in half of DuckDB's time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [column.name for column in columns]
    tables = []
    for path in files:
        with pq.ParquetFile(path) as file:
            stored = set(file.schema_arrow.names)
            table = file.read([name for name in names if name in stored])
        missing = [column for column in columns if column.name not in stored]
        if missing:
            nulls: Any = duckdb.sql(f"SELECT {null_columns(missing)}")  # None only where the SQL is not a query
            for field in nulls.to_arrow_table().schema:
                table = table.append_column(field, pa.nulls(table.num_rows, field.type))
        tables.append(table.select(names).replace_schema_metadata(None))
    return pa.concat_tables(tables)


def _in_form(table: Any, form: Form) -> Any:
    if form == "arrow":
        return table
    if form == "duckdb":
        return duckdb.connect().from_arrow(table)
    if form == "polars":
        try:
            import polars  # type: ignore[import-not-found, unused-ignore]
        except ImportError as error:
            raise UserError("The package polars is not installed.", "Install it, or use another as_.") from error
        return polars.from_arrow(table)
    import pandas

    return table.to_pandas(types_mapper=pandas.ArrowDtype)
