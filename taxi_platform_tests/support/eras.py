"""Every era of the TLC's files, 85 of them over both formats, made here with the names and Arrow types they have.

`eras.json` is the schema history read from 225 CSV heads and about 600 Parquet footers. `python -m
taxi_platform_tests.support.eras` (`make eras`) cleans a month of each and prints what came of it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from taxi_platform.sources.sample.writing import write_sample
from taxi_platform.trips.cleaning import Cleaner, CleaningInput, CleaningOutput
from taxi_platform.trips.contract import Column, contract_of, normalized
from taxi_platform.trips.engine import Engine
from taxi_platform.trips.files import verify
from taxi_platform.trips.months import Dataset, DatasetMonth, Month

ROWS = 200
TEXTS = {"payment_type": "Cash", "vendor_id": "CMT"}


@dataclass(frozen=True)
class Era:
    """One stretch of months with the same names and types; `columns` as (published name, type)."""

    dataset: Dataset
    first: Month
    last: str
    format: str
    columns: tuple[tuple[str, str], ...]

    @property
    def dataset_month(self) -> DatasetMonth:
        return DatasetMonth(self.dataset, self.first)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.columns]

    def __str__(self) -> str:
        return f"{self.dataset}-{self.first}-{self.format}-{len(self.columns)}"


def eras() -> Iterator[Era]:
    for entry in json.loads(Path(__file__).with_name("eras.json").read_text("utf-8")):
        columns = tuple(tuple(column.rsplit(":", 1)) for column in entry["columns"])
        dataset = Dataset.parse(entry["dataset"])
        yield Era(dataset, Month.parse(entry["from"]), entry["to"] or "today", entry["format"], columns)


def write_era(era: Era, folder: Path) -> Path:
    """A month of the era: the sample month where its header is the era's, else a table with the era's types."""
    if era.format == "csv":
        path = folder / f"{era.dataset_month.stem}.csv.gz"
        write_sample(era.dataset_month, ROWS, path)
        if header_of(path) == [normalized(name) for name in era.names]:
            return path
        path = folder / f"{era.dataset_month.stem}.csv"
        pa.csv.write_csv(era_table(era), path)
        return path
    path = folder / f"{era.dataset_month.stem}.parquet"
    pq.write_table(era_table(era), path)
    return path


def header_of(path: Path) -> list[str]:
    from taxi_platform.trips.csv_reading import header

    return [normalized(name) for name in header(path)]


def era_table(era: Era) -> pa.Table:
    """Plausible rows under the era's names, in the TLC's Arrow types; null-typed columns are all null."""
    contract = contract_of(era.dataset)
    mapping = contract.map_columns(era.names)
    targets = {i: c for c in contract.columns for i in mapping.sources.get(c.name, ())}
    arrays = [_array(targets.get(i), type_, era) for i, (_, type_) in enumerate(era.columns)]
    return pa.table(arrays, names=era.names)


def _array(column: Column | None, type_: str, era: Era) -> pa.Array:
    start = datetime(era.first.year, era.first.month, 2)
    offset = 10 if column and column.name.startswith("dropoff") else 0
    times = [start + timedelta(minutes=i + offset) for i in range(ROWS)]
    match type_.replace(" (nullable)", "").replace("null or ", ""):
        case "null":
            return pa.nulls(ROWS)
        case "timestamp" | "timestamp[us]":
            return pa.array(times, pa.timestamp("us" if era.format == "parquet" else "s"))
        case "string" | "large_string" as text:
            if column and column.type == "D":
                values = [str(time) for time in times]
            else:
                values = [TEXTS.get(column.name, "1") if column and column.type == "I" else "N"] * ROWS
            return pa.array(values, pa.large_string() if text == "large_string" else pa.string())
        case "double":
            step = 1.0 if column and column.type in ("I", "S") else 1.25
            return pa.array([step * (i % 2) for i in range(ROWS)], pa.float64())
        case integer:
            return pa.array([i % 2 + 1 for i in range(ROWS)], pa.int32() if integer == "int32" else pa.int64())


def clean_era(era: Era, folder: Path) -> tuple[int, CleaningOutput]:
    """Rows read and the clean month of an era."""
    path = write_era(era, folder)
    file = verify(path)
    raw = CleaningInput(era.dataset_month, path, "0" * 64, file.rows, file.plain)
    return file.rows, Cleaner(raw, folder / "work", engine=Engine(threads=1)).clean()


def main() -> int:
    """Print the table of all eras; status 1 where one has a gap."""
    gaps = 0
    heads = f"{'columns':>8}{'mapped':>8}{'rows':>6}{'clean':>7}{'rejected':>9}"
    print(f"{'dataset':8}{'months':20}{'format':9}{heads}  result")
    for era in eras():
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "work").mkdir()
            rows, clean = clean_era(era, Path(folder))
        report = clean.report
        contract = contract_of(era.dataset)
        ignored = {normalized(name) for name in contract.ignored} & {normalized(name) for name in era.names}
        mapped = len(era.columns) - len(report.unknown_columns)
        unexpected = set(report.unknown_columns) - EXPECTED_UNKNOWN.get(era.dataset, set())
        whole = rows == report.rows_clean + report.rows_rejected and report.share_rejected < 0.02 and not unexpected
        gaps += not whole
        notes = [f"{name} → extra_columns" for name in report.unknown_columns] + [f"{name} ignored" for name in ignored]
        print(
            f"{era.dataset:8}{f'{era.first} to {era.last}':20}{era.format:9}{len(era.columns):8}{mapped:8}{rows:6}"
            f"{report.rows_clean:7}{report.rows_rejected:9}  {'ok' if whole else 'GAP'}  {', '.join(notes)}"
        )
    print(f"{gaps} gaps")
    return min(gaps, 1)


EXPECTED_UNKNOWN = {Dataset.FHVHV: {"Affiliated_base_number"}}
"""fhvhv 2021-06 as the course's mirror has it carries this one column that the TLC's own files never had."""


if __name__ == "__main__":
    sys.exit(main())
