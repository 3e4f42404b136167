"""Months of the lake as data frames: `from taxi_platform import load_trips, load_rejected, months`.

The lake is the one that TAXI_LAKE_URL names, by default the folder `lake` in TAXI_HOME. Only published months are read,
and only the columns and rows that are asked for. Nothing here imports Dagster, and no load is blocked.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import duckdb
import psutil

from taxi_platform.lake import open_lake
from taxi_platform.lake.base import Lake
from taxi_platform.lake.months import LakeMonth
from taxi_platform.settings import load_settings
from taxi_platform.trips.casting import escape_glob, literal, null_columns
from taxi_platform.trips.contract import REJECTED_COLUMNS, Column, contract_of
from taxi_platform.trips.errors import IntegrityError, LakeError, UserError
from taxi_platform.trips.months import Dataset, DatasetMonth, Month

Form = Literal["pandas", "arrow", "polars", "duckdb"]
FORMS = ("pandas", "arrow", "polars", "duckdb")

SHARE_OF_MEMORY = 0.5
"""Of the memory that is available: a frame is rarely used without a copy of it."""
FIXED_BYTES = {"I": 8, "F": 8, "D": 8, "M": 16, "DATE": 4}
"""What a value takes in Arrow, by the letter of its type; texts are measured."""
OFFSET_BYTES = 4
LONG_TEXT_BYTES = 32
"""More than the texts of trips have on average: flags have 1 character, base numbers 6."""
ATTEMPTS = 3
"""DuckDB opens a file twice, and fails if its month was replaced in between."""


def months(dataset: str) -> list[str]:
    """The months of a dataset that are in the lake, oldest first, such as `["2021-01", "2021-02"]`.

    Raises `UserError` for an unknown dataset and `LakeError` where the lake cannot be read.
    """
    return [str(month) for month in _months_of(open_lake(load_settings().lake_url), Dataset.parse(dataset))]


def load_trips(
    dataset: str,
    first: str,
    last: str | None = None,
    *,
    columns: Sequence[str] | None = None,
    where: str | None = None,
    as_: Form = "pandas",
    max_bytes: int | None = None,
) -> Any:
    """The clean trips of a month, or of a range of months with both ends included, in the order of the files.

    >>> trips = load_trips("yellow", "2021-01", "2021-03", columns=["pickup_datetime", "fare_amount"])
    >>> airport = load_trips("green", "2021-01", where="dropoff_location_id IN (1, 132, 138)", as_="arrow")

    Args:
        dataset: `yellow`, `green`, `fhv` or `fhvhv`.
        first: The first month, such as `2021-01`.
        last: The last month; by default the first one alone.
        columns: Names from `docs/columns.md`, in the order wanted; by default all of the dataset.
        where: An SQL expression over the dataset's columns, in DuckDB's dialect. Other columns than the ones asked
            for may be used. Rows for which it is null are left out.
        as_: `pandas` (a DataFrame with Arrow-backed types, so that integers may be null and money is exact), `arrow`
            (a Table), `polars` (a DataFrame; needs the extra `polars`) or `duckdb` (a relation that reads only when
            it is used).
        max_bytes: The size above which nothing is loaded; by default half of the memory that is available.

    Returns:
        One row per trip. Times are New York wall clock time in microseconds without zone, money is decimal dollars,
        distances are miles, `trip_time` is seconds.

    Raises:
        UserError: An unknown dataset, month, column or form, a range whose months are not all in the lake, a `where`
            that is not an expression, or a result that would not fit into memory.
        LakeError: The lake cannot be read.
        IntegrityError: A file in it is damaged.
    """
    parsed = Dataset.parse(dataset)
    lake = open_lake(load_settings().lake_url)
    keys = [LakeMonth(lake, dataset_month).clean_key for dataset_month in _range(lake, parsed, first, last)]
    return _load(lake, keys, contract_of(parsed).table_columns, columns, where, as_, max_bytes)


def load_rejected(
    dataset: str,
    first: str,
    last: str | None = None,
    *,
    columns: Sequence[str] | None = None,
    where: str | None = None,
    as_: Form = "pandas",
    max_bytes: int | None = None,
) -> Any:
    """The rejected rows of a month, or of a range of months: why each was rejected, and its text.

    >>> load_rejected("yellow", "2021-01", columns=["reason", "column_name", "line"])

    Takes, returns and raises what `load_trips` does. `line` counts from 1, the header included; it is null for rows of
    Parquet files.
    """
    lake = open_lake(load_settings().lake_url)
    keys = []
    for dataset_month in _range(lake, Dataset.parse(dataset), first, last):
        month = LakeMonth(lake, dataset_month)
        footer = month.footer()
        if footer is None:
            raise LakeError(f"{dataset_month} was removed from the lake meanwhile.", "Load it again.")
        keys.append(month.rejected_key(footer.file_version))
    return _load(lake, keys, REJECTED_COLUMNS, columns, where, as_, max_bytes)


def _months_of(lake: Lake, dataset: Dataset) -> list[Month]:
    keys = set(lake.list(f"clean/{dataset}/"))
    possible = dataset.first_month.until(Month.of(date.today()))
    return [month for month in possible if LakeMonth(lake, DatasetMonth(dataset, month)).clean_key in keys]


def _range(lake: Lake, dataset: Dataset, first: str, last: str | None) -> list[DatasetMonth]:
    """The months of a range; raises `UserError` unless all are in the lake."""
    start = DatasetMonth.parse(dataset, first).month
    end = DatasetMonth.parse(dataset, last or first).month
    if end < start:
        raise UserError(f"{last} is before {first}.", "Name the first month first.")
    wanted = list(start.until(end))
    missing = sorted(set(wanted) - set(_months_of(lake, dataset)))
    if missing:
        names = ", ".join(map(str, missing[:12])) + (f" and {len(missing) - 12} more" if len(missing) > 12 else "")
        raise UserError(
            f"Not in the lake {lake.url}: {dataset} {names}.",
            f"Load the months first, for example with taxi ingest {dataset} {missing[0]}.",
        )
    return [DatasetMonth(dataset, month) for month in wanted]


def _load(
    lake: Lake,
    keys: Sequence[str],
    known: Sequence[Column],
    names: Sequence[str] | None,
    where: str | None,
    form: Form,
    max_bytes: int | None,
) -> Any:
    if form not in FORMS:
        raise UserError(f"{form!r} is not a form of data.", f"as_ takes one of {', '.join(FORMS)}.")
    import pyarrow as pa

    columns = _chosen(known, names)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with _local_files(lake, keys) as (files, temporary):
                if form == "duckdb" and not temporary:
                    return _rows(files, known, columns, where)
                _check_size(files, known, columns, where, max_bytes)
                table = _read(files, columns) if where is None else _rows(files, known, columns, where).to_arrow_table()
                return _in_form(table, form)
        except (duckdb.IOException, duckdb.InvalidInputException, pa.ArrowException) as error:
            if attempt == ATTEMPTS:
                problem = str(error).splitlines()[0]
                raise IntegrityError(
                    f"A file of {lake.url} cannot be read: {problem}", "Run taxi ingest for the months."
                ) from error
        except duckdb.Error as error:  # such as a text that is compared with a number
            raise _not_an_expression(error) from error
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


def _rows(
    files: Sequence[Path], known: Sequence[Column], columns: Sequence[Column], where: str | None
) -> duckdb.DuckDBPyRelation:
    """The columns of the rows that satisfy `where`; columns that a file's older contract lacks are null.

    Raises `UserError` if `where` is not one expression.
    """
    con = duckdb.connect(config={"autoinstall_known_extensions": False})
    con.execute("SET enable_progress_bar = false; SET TimeZone = 'UTC'")
    paths = ", ".join(literal(escape_glob(str(file))) for file in files)
    relation = con.sql(
        f"SELECT {null_columns(known)} WHERE false UNION ALL BY NAME "
        f"SELECT * FROM read_parquet([{paths}], union_by_name = true, hive_partitioning = false)"
    )
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
    files: Sequence[Path],
    known: Sequence[Column],
    columns: Sequence[Column],
    where: str | None,
    max_bytes: int | None,
) -> None:
    """Raise `UserError` if the result would take more memory than it may.

    The footers tell how many rows there are before the filter: where even these fit, nothing is read.
    """
    import pyarrow.parquet as pq

    limit = int(psutil.virtual_memory().available * SHARE_OF_MEMORY) if max_bytes is None else max_bytes
    texts = [column.name for column in columns if column.column_type.letter not in FIXED_BYTES]
    fixed = sum(FIXED_BYTES.get(column.column_type.letter, OFFSET_BYTES) for column in columns)
    rows = sum(pq.read_metadata(file).num_rows for file in files)
    if rows * (fixed + len(texts) * LONG_TEXT_BYTES) <= limit:
        return
    measures = ["count(*)", *(f"coalesce(sum(strlen({name})), 0)" for name in texts)]
    rows, *lengths = _rows(files, known, columns, where).aggregate(", ".join(measures)).fetchone() or (0,)
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
            schema = duckdb.sql(f"SELECT {null_columns(missing)}").to_arrow_table().schema
            for field in schema:
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
