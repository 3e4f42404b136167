"""The months to measure with, made at run time: CSV files of the sample, and Parquet files as the TLC writes them."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from taxi_platform.sources.sample.writing import write_sample
from taxi_platform.trips.casting import identifier, literal
from taxi_platform.trips.cleaning import CleaningInput
from taxi_platform.trips.contract import contract_of, normalized
from taxi_platform.trips.csv_reading import header
from taxi_platform.trips.files import verify
from taxi_platform.trips.months import DatasetMonth
from taxi_platform_tests.support.eras import Era, eras

TLC_ROW_GROUP = 1 << 20
"""Rows of a row group in the TLC's files since 2023; ZSTD and dictionaries are theirs too."""
ENGINE_TYPES = {"large_string": "VARCHAR", "string": "VARCHAR", "timestamp[us]": "TIMESTAMP", "double": "DOUBLE"}
ENGINE_TYPES |= {"int32": "INTEGER", "int64": "BIGINT", "null": "INTEGER"}


@dataclass(frozen=True)
class Options:
    """How much is measured: comparisons of each kind, and tiny months."""

    pairs: int
    months: int


class Months:
    """Months of `rows` rows in `inputs`, each made when it is first asked for; `folder` is for what is made of them."""

    def __init__(self, inputs: Path, folder: Path, rows: int) -> None:
        self.inputs = inputs
        self.folder = folder
        self.rows = rows
        self._verified: dict[Path, CleaningInput] = {}

    def prepare(self, csv: Iterable[tuple[str, str]], parquet: Iterable[tuple[str, str]]) -> None:
        """Make these months, two at a time: one takes ten seconds."""
        with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
            made = [pool.submit(self.parquet, *month) for month in parquet]
            made += [pool.submit(self.csv, *month) for month in csv]
            for each in made:
                each.result()

    def csv(self, dataset: str, month: str) -> Path:
        """A gzipped CSV file, one line in 10,000 unreadable."""
        dataset_month = DatasetMonth.parse(dataset, month)
        path = self.inputs / f"{dataset_month.stem}.csv.gz"
        if not path.exists():
            write_sample(dataset_month, self.rows, path)
        return path

    def parquet(self, dataset: str, month: str) -> Path:
        """The readable rows of the CSV file with the names, types, codec and row groups of the TLC's Parquet files."""
        dataset_month = DatasetMonth.parse(dataset, month)
        path = self.inputs / f"{dataset_month.stem}.parquet"
        if path.exists():
            return path
        era, source = _era(dataset_month), self.csv(dataset, month)
        names = header(source)
        types = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in names)
        options = f"columns = {{{types}}}, auto_detect = false, header = true, ignore_errors = true"
        reading = f"read_csv({literal(str(source))}, delim = ',', quote = '\"', {options})"
        with duckdb.connect(config={"memory_limit": "1GB"}) as con:
            con.execute("SET enable_progress_bar = false")
            present = {normalized(name): name for name in names}
            columns = [_column(name, type_, present) for name, type_ in era.columns]
            pickup = identifier(era.names[_pickup(era)])
            select = f"SELECT * FROM (SELECT {', '.join(columns)} FROM {reading}) WHERE {pickup} IS NOT NULL"
            batches = con.sql(select).to_arrow_reader(TLC_ROW_GROUP)
            schema = pa.schema([(name, _arrow(type_)) for name, type_ in era.columns])
            with pq.ParquetWriter(path, schema, compression="zstd", version="2.6") as writer:
                for batch in batches:
                    writer.write_table(pa.table(batch).cast(schema), TLC_ROW_GROUP)
        return path

    def raw(self, dataset: str, month: str, path: Path) -> CleaningInput:
        """The file as the cleaner takes it."""
        if path not in self._verified:
            file, sha256 = verify(path), hashlib.sha256(path.read_bytes()).hexdigest()
            raw = CleaningInput(DatasetMonth.parse(dataset, month), path, sha256, file.rows, file.plain)
            self._verified[path] = raw
        return self._verified[path]


def _era(dataset_month: DatasetMonth) -> Era:
    """The Parquet era of a month."""
    found = [e for e in eras() if e.dataset == dataset_month.dataset and e.format == "parquet"]
    return max((e for e in found if e.first <= dataset_month.month), key=lambda e: e.first)


def _pickup(era: Era) -> int:
    return contract_of(era.dataset).map_columns(era.names).sources["pickup_datetime"][0]


def _type(type_: str) -> str:
    return type_.replace(" (nullable)", "").replace("null or ", "")


def _column(name: str, type_: str, present: dict[str, str]) -> str:
    published = present.get(normalized(name))
    value = f"TRY_CAST({identifier(published)} AS {ENGINE_TYPES[_type(type_)]})" if published else "NULL"
    if ENGINE_TYPES[_type(type_)] in ("INTEGER", "BIGINT") and published:
        value = f"TRY_CAST(TRY_CAST({identifier(published)} AS DOUBLE) AS {ENGINE_TYPES[_type(type_)]})"
    return f"CAST({value} AS {ENGINE_TYPES[_type(type_)]}) AS {identifier(name)}"


def _arrow(type_: str) -> pa.DataType:
    match _type(type_):
        case "null":
            return pa.null()
        case "timestamp[us]":
            return pa.timestamp("us")
        case "double":
            return pa.float64()
        case "string":
            return pa.string()
        case "large_string":
            return pa.large_string()
        case integer:
            return pa.int32() if integer == "int32" else pa.int64()
