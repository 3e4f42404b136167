"""Cleaning in one call, and small months to clean: what the tests of the cleaner share."""

import hashlib
import io
import json
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq

from taxi_platform.trips import csv_reading, typed_scan
from taxi_platform.trips.cleaning import Cleaner, CleaningInput
from taxi_platform.trips.engine import Engine
from taxi_platform.trips.files import VerifiedFile, verify
from taxi_platform.trips.formats import Format
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.trips.parquet_batches import ParquetBatches
from taxi_platform.trips.report import Report

HEADS: dict[str, str] = json.loads(Path(__file__).with_name("heads.json").read_text("utf-8"))
"""`yellow 2009-01` → the first lines of the real file: header, blank lines, up to four rows."""

GREEN = (
    "VendorID,lpep_pickup_datetime,lpep_dropoff_datetime,store_and_fwd_flag,RatecodeID,PULocationID,DOLocationID,"
    "passenger_count,trip_distance,total_amount"
)
TRIP = "2,2020-04-07 00:44:02,2020-04-07 00:52:23,N,1,42,41,1,1.68,9.3"


@dataclass
class CleanedFile:
    """The files and report of one cleaning. `careful`: whether the whole file was read record by record."""

    table: pa.Table
    rejected: list[dict[str, Any]]
    report: Report
    careful: bool
    footer: dict[bytes, bytes]
    content: tuple[bytes, bytes]

    @cached_property
    def trips(self) -> list[dict[str, Any]]:
        return self.table.to_pylist()

    @property
    def faults(self) -> list[tuple]:
        return [(row["reason"], row["column_name"], row["line"]) for row in self.rejected]

    @property
    def extra(self) -> list[dict[str, str] | None]:
        return [extra and json.loads(extra) for extra in self.column("extra_columns")]

    def column(self, name: str) -> list:
        return self.table[name].to_pylist()


def clean(
    data: bytes | Path | pa.Table,
    month: str = "green 2020-04",
    *,
    reject: tuple[str, ...] = (),
    force: bool = True,
    careful: bool = False,
    in_batches: bool = True,
    rows: int | None = None,
    threads: int = 2,
    folder: Path | None = None,
) -> CleanedFile:
    """Clean bytes, a file or an Arrow table as Parquet.

    `careful` switches the fast scan of CSV off; without `in_batches` DuckDB's own reader reads all Parquet.
    """
    if folder is None:
        with tempfile.TemporaryDirectory() as made:
            return clean(
                data,
                month,
                reject=reject,
                force=force,
                careful=careful,
                in_batches=in_batches,
                rows=rows,
                threads=threads,
                folder=Path(made),
            )
    path = folder / "raw file"
    path.write_bytes(
        data if isinstance(data, bytes) else parquet(data) if isinstance(data, pa.Table) else data.read_bytes()
    )
    dataset_month = DatasetMonth.parse(*month.split())
    file = verify(path) if rows is None else VerifiedFile(Format.CSV, rows)
    raw = CleaningInput(dataset_month, path, hashlib.sha256(path.read_bytes()).hexdigest(), file.rows, file.plain)
    cleaner = Cleaner(raw, folder / "work", reject, Engine("512MB", threads))
    scan = (lambda *_: None) if careful else typed_scan.typed_scan
    batches = ParquetBatches.of if in_batches else lambda *_: None
    with (
        patch.object(typed_scan, "typed_scan", scan),
        patch.object(ParquetBatches, "of", batches),
        patch.object(csv_reading, "all_records", wraps=csv_reading.all_records) as all_records,
    ):
        made = cleaner.clean(force)
    trips, rejected = pq.read_table(made.trips), pq.read_table(made.rejected)
    return CleanedFile(
        trips,
        rejected.to_pylist(),
        made.report,
        all_records.called,
        pq.read_metadata(made.trips).metadata,
        (made.trips.read_bytes(), made.rejected.read_bytes()),
    )


def parquet(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def green(*rows: str, header: str = GREEN, end: str = "\n") -> bytes:
    """A small green month; a row is a whole line, or `column=value, …` changed in an ordinary trip."""
    return end.join([header, *(changed(row) if "=" in row.split(",")[0] else row for row in rows), ""]).encode()


def changed(row: str) -> str:
    names, fields = GREEN.split(","), TRIP.split(",")
    for change in row.split(";"):
        name, _, value = change.partition("=")
        fields[names.index(name)] = value
    return ",".join(fields)
