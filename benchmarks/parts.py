"""The parts of cleaning, of marts and of a whole command, each with its seconds: what `floors.py` runs in children."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
from sqlglot import exp

from benchmarks.cleaning import bare, casting_copy, casts
from benchmarks.measure import processor_seconds
from taxi_platform.marts.computing import MonthOfMarts
from taxi_platform.marts.tables import QUALITY, mart_names, mart_table
from taxi_platform.marts.transpiling import mart_select, parquet_relation, table_relation
from taxi_platform.trips.casting import literal
from taxi_platform.trips.cleaning import Cleaner, CleaningInput
from taxi_platform.trips.engine import Engine
from taxi_platform.trips.files import verify
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.trips.report import Report
from taxi_platform.warehouse import open_warehouse
from taxi_platform.warehouse.base import CleanFiles, trips_table
from taxi_platform.warehouse.tables import MartFile, Table


class MeasuredCleaner(Cleaner):
    """A cleaner that tells how much of its time was the report's."""

    report_seconds = 0.0, 0.0

    def _report(self, *arguments: Any) -> Report:
        reports: list[Report] = []
        self.report_seconds = _both(lambda: reports.append(super(MeasuredCleaner, self)._report(*arguments)))
        return reports[0]


def cleaning(raw: dict[str, Any], folder: str) -> dict[str, tuple[float, float]]:
    """In a child: the parts of cleaning a month, and plain ways; seconds that pass, and of processor time."""
    dataset_month = DatasetMonth.parse(*raw["dataset_month"].split())
    source, target, dataset = raw["path"], f"{folder}/plain.parquet", str(dataset_month.dataset)
    fields = {**raw, "dataset_month": dataset_month, "path": Path(source)}
    cleaner = MeasuredCleaner(CleaningInput(**fields), Path(folder))
    cleaner.clean()  # so that what is measured is not the first use of the engines and of memory
    whole = _both(cleaner.clean)
    names = ", ".join(column.name for column in trips_table(dataset_month.dataset).columns[:-2])
    clean = f"FROM read_parquet({literal(str(cleaner.trips))})"
    return {
        "bare COPY": _both(lambda: bare(source, target)),
        "plain casts of the file's own columns": _both(lambda: casts(source, target, dataset, False)),
        "plain casts to the clean schema": _both(lambda: casts(source, target, dataset)),
        "the step": whole,
        "of the step: the report": cleaner.report_seconds,
        "reading the clean file and hashing its rows": _of_query(f"SELECT sum(hash({names})) {clean}"),
        "… and counting the hashes that differ": _of_query(f"SELECT count(DISTINCT hash({names})) {clean}"),
    }


def marts(dataset: str, month: str, version: str, folder: str) -> dict[str, float]:
    """In a child: the seconds of the parts of a month's marts, in files and in DuckDB. The month is loaded first."""
    dataset_month, work = DatasetMonth.parse(dataset, month), Path(folder)
    clean, rejected = work / "trips.parquet", work / "rejected.parquet"
    warehouse = open_warehouse(f"duckdb://{work / 'marts.duckdb'}")
    warehouse.replace_month(CleanFiles(dataset_month, version, clean, rejected, "", ""))
    of_month = MonthOfMarts(dataset_month, version, [("read", "", 1)])
    names, trips = mart_names(dataset_month.dataset), trips_table(dataset_month.dataset).name
    _, fitting = _measured(lambda: [of_month.select(name)("duckdb", trips) for name in names])
    paths, computing = _measured(lambda: of_month.compute(clean, work, Engine()))
    files = [
        MartFile(mart_table(dataset_month.dataset, name), path, "", dataset_month, version, of_month.select(name))
        for name, path in paths.items()
    ]
    _, replacing = _measured(lambda: warehouse.replace_marts(files))
    queries = [name for name in names if name != QUALITY]
    over_file = [mart_select(dataset_month, name, version, parquet_relation(str(clean)), "duckdb") for name in queries]
    over_table = [
        mart_select(dataset_month, name, version, table_relation(trips, "duckdb"), "duckdb") for name in queries
    ]
    with warehouse.session("read") as session:
        _, asking = _measured(lambda: [session.execute(_counted(sql)) for sql in over_table])
    return {
        "fitting their SQL by sqlglot": fitting,
        "their files": computing,
        "of these: the bare queries": sum(_of_query(_counted(sql))[1] for sql in over_file),
        "their tables, compared with the files": replacing,
        "of these: the bare queries over the table": asking,
    }


def command(url: str, raw_file: dict[str, Any], folder: str) -> dict[str, tuple[float, float]]:
    """In a child: what a new month cannot do without, beside Dagster, by the barest way; seconds that pass, and of
    processor time."""
    work, dataset_month = Path(folder), DatasetMonth.parse(*raw_file["dataset_month"].split())
    raw = work / url.rpartition("/")[2]
    fetching = lambda: subprocess.run(["curl", "--silent", "--fail", "--output", raw, url], check=True)  # noqa: E731
    taken = {"download": _both(fetching)}
    with _bare_database(work / "bare.duckdb") as con:
        month = _month_parts(con, raw, dataset_month, work)
        taken |= {name: _both(part) for name, part in month.items()}
    fields = {**raw_file, "dataset_month": dataset_month, "path": raw}
    tested = _both(CleanerWithoutReport(CleaningInput(**fields), work).clean)
    plain = taken[PLAIN_CASTS]
    return taken | {"tests of every value, as cleaning makes them": (tested[0] - plain[0], tested[1] - plain[1])}


def tiny_months(source: str, dataset: str, month: str, folder: str, number: int, jobs: int) -> None:
    """In a child: what so many new months cannot do without, beside Dagster, by the barest way, in so many processes.

    Each month is the file `source` again, in a process that keeps its DuckDB.
    """
    parts = [(source, dataset, month, f"{folder}/{job}", number // jobs) for job in range(jobs)]
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(_tiny_months, *zip(*parts, strict=True)))


def _tiny_months(source: str, dataset: str, month: str, folder: str, number: int) -> None:
    work = Path(folder)
    work.mkdir(exist_ok=True)
    raw = work / Path(source).name
    with _bare_database(work / "bare.duckdb") as con:
        for _ in range(number):
            shutil.copyfile(source, raw)
            for part in _month_parts(con, raw, DatasetMonth.parse(dataset, month), work).values():
                part()


def unchanged(home: str, dataset: str, month: str) -> dict[str, tuple[float, float]]:
    """In a child: what an unchanged month of the home cannot do without, beside Dagster, as in `command`."""
    lake, dataset_month = Path(home) / "lake", DatasetMonth.parse(dataset, month)
    of_dataset, is_month = dataset_month.dataset, f"WHERE file_month = DATE '{dataset_month.month.first_day}'"
    trips, clean = trips_table(of_dataset), lake / f"clean/{dataset}/month={month}/trips.parquet"
    marts = {
        mart_table(of_dataset, name): next(lake.glob(f"marts/{dataset}/{name}/month={month}/*.parquet"))
        for name in mart_names(of_dataset)
    }
    with duckdb.connect(config={"memory_limit": "512MB"}) as con:

        def read(*statements: str) -> None:
            for statement in statements:
                con.execute(statement).fetchall()

        parts: dict[str, Callable[[], Any]] = {
            "attach the warehouse": lambda: read(
                f"ATTACH {literal(f'{home}/warehouse.duckdb')} AS warehouse (READ_ONLY); USE warehouse"
            ),
            "sha256 of the clean file": lambda: hashlib.sha256(clean.read_bytes()).hexdigest(),
            "hash the rows of the table": lambda: read(_hashed(trips, f"{trips.name} {is_month}")),
            "hash the rows of the marts, files and tables": lambda: read(
                *(_hashed(table, _parquet(path)) for table, path in marts.items()),
                *(_hashed(table, f"{table.name} {is_month}") for table in marts),
            ),
            "first rows of the clean file and the marts, for the UI": lambda: read(
                *(f"FROM {_parquet(path)} LIMIT 8" for path in (clean, *marts.values()))
            ),
        }
        return {name: _both(part) for name, part in parts.items()}


PLAIN_CASTS = "COPY with plain casts to the clean schema"


class CleanerWithoutReport(Cleaner):
    """A cleaner that only writes the two files."""

    def _report(self, *arguments: Any) -> Any:
        return SimpleNamespace(share_rejected=0.0)


@contextmanager
def _bare_database(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    path.unlink(missing_ok=True)
    with duckdb.connect(str(path), config={"memory_limit": "512MB"}) as con:
        con.execute("SET enable_progress_bar = false")
        yield con


def _month_parts(
    con: duckdb.DuckDBPyConnection, raw: Path, dataset_month: DatasetMonth, work: Path
) -> dict[str, Callable[[], Any]]:
    """What a new month cannot do without once its file is there, in this order. Marts without `quality`, which is made
    of the report."""
    dataset, clean = dataset_month.dataset, work / "plain.parquet"
    trips = trips_table(dataset)
    names = ", ".join(column.name for column in trips.columns)
    marts = {name: (mart_table(dataset, name), work / f"{name}.parquet") for name in mart_names(dataset)}
    del marts[QUALITY]

    def select(name: str, relation: exp.Expr) -> str:
        return mart_select(dataset_month, name, "0123456789ab", relation, "duckdb")

    def make_tables() -> None:
        for table in (trips, *(table for table, _ in marts.values())):
            typed = ", ".join(f"{column.name} {column.column_type.duckdb}" for column in table.columns)
            con.execute(f"CREATE TABLE IF NOT EXISTS {table.name} ({typed}); DELETE FROM {table.name}")

    def write_marts() -> None:
        for name, (_, path) in marts.items():
            query = f"SELECT * FROM ({select(name, parquet_relation(str(clean)))}) ORDER BY ALL"
            con.execute(f"COPY ({query}) TO {literal(str(path))} (FORMAT parquet)")
            _sync(path)

    def insert_marts() -> None:
        con.execute("BEGIN")
        for name, (table, _) in marts.items():
            con.execute(f"INSERT INTO {table.name} {select(name, table_relation(trips.name, 'duckdb'))}")
        con.execute("COMMIT")

    def compare(*relations: tuple[Table, str]) -> None:
        for table, relation in relations:
            ((rows, _),) = con.execute(_hashed(table, relation)).fetchall()
            assert rows, f"{relation} is empty, and so nothing is measured"

    def compare_marts() -> None:
        compare(*((table, _parquet(path)) for table, path in marts.values()))
        compare(*((table, table.name) for table, _ in marts.values()))

    make_tables()  # as the tables of all other months are there
    return {
        "hash the raw file, and count its rows": lambda: (hashlib.sha256(raw.read_bytes()).hexdigest(), verify(raw)),
        PLAIN_CASTS: lambda: con.execute(
            casting_copy(con, str(raw), str(clean), str(dataset), month=str(dataset_month.month))
        ),
        "count exact duplicates": lambda: con.execute(f"SELECT count(DISTINCT hash({names})) FROM {_parquet(clean)}"),
        "sync both files, sha256 of the clean file": lambda: (
            _sync(raw),
            _sync(clean),
            hashlib.sha256(clean.read_bytes()).hexdigest(),
        ),
        "INSERT into the table": lambda: con.execute(f"INSERT INTO {trips.name} SELECT {names} FROM {_parquet(clean)}"),
        "hash the rows of the file, and of the table": lambda: compare((trips, _parquet(clean)), (trips, trips.name)),
        "marts: write their files": write_marts,
        "marts: INSERT into their tables": insert_marts,
        "marts: hash the rows of files and tables": compare_marts,
        "the checks: sha256 of the file, hash the rows of the table": lambda: (
            hashlib.sha256(clean.read_bytes()).hexdigest(),
            compare((trips, trips.name)),
        ),
        "the checks: hash the rows of the marts": compare_marts,
    }


def _hashed(table: Table, relation: str) -> str:
    return f"SELECT count(*), sum(hash({', '.join(column.name for column in table.columns)})) FROM {relation}"


def _parquet(path: Path) -> str:
    return f"read_parquet({literal(str(path))})"


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _both(work: Callable[[], Any]) -> tuple[float, float]:
    """The seconds that the work takes: those that pass, and those of processor time."""
    started = time.perf_counter()
    _, processor = _measured(work)
    return time.perf_counter() - started, processor


def _measured(work: Callable[[], Any]) -> tuple[Any, float]:
    """What the work returns, and its seconds of processor time."""
    before = processor_seconds()
    return work(), processor_seconds() - before


def _of_query(sql: str) -> tuple[float, float]:
    with duckdb.connect(config={"memory_limit": "512MB"}) as con:
        return _both(lambda: con.execute(sql).fetchall())


def _counted(sql: str) -> str:
    """A query that computes every column of another and returns one row."""
    return f"SELECT count(*), sum(hash(part)) FROM ({sql}) AS part"
