"""The parts of cleaning, of marts and of a whole command, each with its seconds: what `floors.py` runs in children."""

from __future__ import annotations

import hashlib
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.cleaning import bare, casts
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
from taxi_platform.warehouse.tables import MartFile


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


def command(url: str, dataset: str, month: str, version: str, folder: str) -> dict[str, tuple[float, float]]:
    """In a child: what a new month cannot do without, beside Dagster, by the barest way; seconds that pass, and of
    processor time. The month's clean file is in the folder."""
    work, dataset_month = Path(folder), DatasetMonth.parse(dataset, month)
    raw, clean, database = work / url.rpartition("/")[2], str(work / "trips.parquet"), work / "bare.duckdb"
    database.unlink(missing_ok=True)
    trips = trips_table(dataset_month.dataset)
    names, file = ", ".join(column.name for column in trips.columns), f"read_parquet({literal(clean)})"
    typed = ", ".join(f"{column.name} {column.column_type.duckdb}" for column in trips.columns)
    marts_of = [name for name in mart_names(dataset_month.dataset) if name != QUALITY]
    of_file, of_table = (
        [_counted(mart_select(dataset_month, name, version, relation, "duckdb")) for name in marts_of]
        for relation in (parquet_relation(clean), table_relation(trips.name, "duckdb"))
    )
    with duckdb.connect(str(database), config={"memory_limit": "512MB"}) as con:
        con.execute(f"SET enable_progress_bar = false; CREATE TABLE {trips.name} ({typed})")

        def queries(*statements: str) -> Callable[[], Any]:
            return lambda: [con.execute(statement).fetchall() for statement in statements]

        parts: dict[str, Callable[[], Any]] = {
            "download": lambda: subprocess.run(["curl", "--silent", "--fail", "--output", raw, url], check=True),
            "hash the raw file, and count its rows": lambda: (
                hashlib.sha256(raw.read_bytes()).hexdigest(),
                verify(raw),
            ),
            "COPY with plain casts to the clean schema": lambda: casts(str(raw), str(work / "plain.parquet"), dataset),
            "count exact duplicates": queries(f"SELECT count(DISTINCT hash({names})) FROM {file}"),
            "INSERT into a new DuckDB table": queries(f"INSERT INTO {trips.name} SELECT {names} FROM {file}"),
            "hash the rows of the file": queries(f"SELECT sum(hash({names})) FROM {file}"),
            "hash the rows of the table": queries(f"SELECT sum(hash({names})) FROM {trips.name}"),
            "marts of the file": queries(*of_file),
            "marts of the table": queries(*of_table),
        }
        return {name: _both(part) for name, part in parts.items()}


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
