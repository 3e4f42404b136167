"""The parts of cleaning and of marts, each with its seconds of processor time: what `floors.py` runs in children."""

from __future__ import annotations

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
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.trips.report import Report
from taxi_platform.warehouse import open_warehouse
from taxi_platform.warehouse.base import CleanFiles, trips_table
from taxi_platform.warehouse.tables import MartFile


class MeasuredCleaner(Cleaner):
    """A cleaner that tells how much of its time was the report's."""

    report_seconds = 0.0

    def _report(self, *arguments: Any) -> Report:
        report, self.report_seconds = _measured(lambda: super(MeasuredCleaner, self)._report(*arguments))
        return report


def cleaning(raw: dict[str, Any], folder: str) -> dict[str, float]:
    """In a child: the seconds of the parts of cleaning a month, and of plain ways."""
    dataset_month = DatasetMonth.parse(*raw["dataset_month"].split())
    source, target, dataset = raw["path"], f"{folder}/plain.parquet", str(dataset_month.dataset)
    fields = {**raw, "dataset_month": dataset_month, "path": Path(source)}
    cleaner = MeasuredCleaner(CleaningInput(**fields), Path(folder))
    cleaner.clean()  # so that what is measured is not the first use of the engines and of memory
    _, whole = _measured(cleaner.clean)
    names = ", ".join(column.name for column in trips_table(dataset_month.dataset).columns[:-2])
    clean = f"FROM read_parquet({literal(str(cleaner.trips))})"
    return {
        "bare COPY": _measured(lambda: bare(source, target))[1],
        "plain casts of the file's own columns": _measured(lambda: casts(source, target, dataset, False))[1],
        "plain casts to the clean schema": _measured(lambda: casts(source, target, dataset))[1],
        "the step": whole,
        "of the step: the report": cleaner.report_seconds,
        "reading the clean file and hashing its rows": _query_seconds(f"SELECT sum(hash({names})) {clean}"),
        "… and counting the hashes that differ": _query_seconds(f"SELECT count(DISTINCT hash({names})) {clean}"),
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
        "of these: the bare queries": sum(_query_seconds(_counted(sql)) for sql in over_file),
        "their tables, compared with the files": replacing,
        "of these: the bare queries over the table": asking,
    }


def _measured(work: Callable[[], Any]) -> tuple[Any, float]:
    """What the work returns, and its seconds of processor time."""
    before = processor_seconds()
    return work(), processor_seconds() - before


def _query_seconds(sql: str) -> float:
    with duckdb.connect(config={"memory_limit": "512MB"}) as con:
        return _measured(lambda: con.execute(sql).fetchall())[1]


def _counted(sql: str) -> str:
    """A query that computes every column of another and returns one row."""
    return f"SELECT count(*), sum(hash(part)) FROM ({sql}) AS part"
