"""Cleans one raw file: one Parquet file of clean trips, one of rejected rows, and a report.

A CSV file has two readers that agree because both feed the same casts (`casting.py`): the fast typed scan
(`typed_scan.py`), and the careful reader (`csv_reading.py`) for the lines that the scan refused. Where the scan cannot
account for every line, or rules that reject need line numbers, the careful reader reads the whole file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from taxi_platform.trips import csv_reading, typed_scan
from taxi_platform.trips.casting import (
    SourceColumn,
    UnusualText,
    literal,
    null_columns,
    rule_sql,
    select_canonical,
    text_readers,
)
from taxi_platform.trips.contract import EXTRA, PROVENANCE, REJECTED_COLUMNS, Column, Contract, contract_of
from taxi_platform.trips.engine import Engine
from taxi_platform.trips.errors import DamagedRaw, LakeError, NotData, TooManyRejected
from taxi_platform.trips.files import unreadable_parquet
from taxi_platform.trips.formats import SNIFFED_BYTES, Format, sniff
from taxi_platform.trips.in_memory import writing_files
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.trips.os_errors import number_in, remedy
from taxi_platform.trips.parquet_batches import ParquetBatches
from taxi_platform.trips.report import Report
from taxi_platform.trips.stored_json import FORMAT_VERSION, NUMBER
from taxi_platform.trips.text import printable

PARQUET_OPTIONS = "FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, ROW_GROUP_SIZE 122880"
"""Measured on 1.37 million rows: docs/performance.md. A row group is the engine's own batch."""

NO_ROOM = "no space left|quota|could not write all bytes|file too large"
"""What the engine says of a full disk; any other trouble with a file has another reason."""

MAX_REJECTED_SHARE = 0.5
NOTHING_REJECTED = f"SELECT {null_columns(REJECTED_COLUMNS)} LIMIT 0"


@dataclass(frozen=True)
class CleaningInput:
    """A raw file to clean."""

    dataset_month: DatasetMonth
    path: Path
    sha256: str
    rows: int
    """Counted while the file was fetched, independently of the cleaner."""
    plain: bool = False
    """See `records.RecordCounter`; False is always right, only slower."""


@dataclass(frozen=True)
class CleaningOutput:
    """The results of cleaning one file. Both Parquet files are in the cleaner's folder."""

    trips: Path
    rejected: Path
    report: Report


class Cleaner:
    """Cleans one raw file inside `folder`, where its results and its spill files go."""

    def __init__(
        self, raw: CleaningInput, folder: Path, reject: Sequence[str] = (), engine: Engine | None = None
    ) -> None:
        self.raw = raw
        self.folder = folder
        self.engine = engine or Engine()
        self.contract: Contract = contract_of(raw.dataset_month.dataset)
        self.reject = self.contract.check_rules(reject)
        self.file_version = self.contract.file_version(raw.sha256, self.reject)
        self.trips = folder / "trips.parquet"
        self.rejected = folder / "rejected.parquet"

    def clean(self, force: bool = False) -> CleaningOutput:
        """Clean the file and account for every row.

        `force` accepts a month without rows, and one of which more than half is rejected.

        Raises:
            NotData: The file cannot be read, or has no rows.
            ContractError: It has no pick-up time column.
            TooManyRejected: More than half of its rows would be rejected.
            DamagedRaw: It cannot be read to its end, or rows are unaccounted for.
            LakeError: Disk space or memory ran out, or the disk failed.
        """
        if not self.raw.rows and not force:
            raise NotData(
                f"{self.raw.path.name} has a header but no rows.",
                "If the month really is empty, run it again with --force.",
            )
        with self._connect() as con:
            with self.raw.path.open("rb") as file:
                file_format = sniff(file.read(SNIFFED_BYTES))
            names = self._clean_parquet(con) if file_format is Format.PARQUET else self._clean_csv(con)
            report = self._report(con, file_format, names)
            if report.share_rejected > MAX_REJECTED_SHARE and not force:
                raise self._too_many_rejected(con, report)
        return CleaningOutput(self.trips, self.rejected, report)

    @contextmanager
    def _connect(self) -> Iterator[duckdb.DuckDBPyConnection]:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with writing_files(self.engine, self.folder / "spill") as con:
                yield con
        except (duckdb.OutOfMemoryException, duckdb.IOException, duckdb.TransactionException) as error:
            raise self._lake_error(error) from error

    def _too_many_rejected(self, con: duckdb.DuckDBPyConnection, report: Report) -> TooManyRejected:
        """With the first rejected row: as nothing is published, it can be seen nowhere else."""
        worst = ", ".join(f"{rows:,} {reason}" for reason, rows in report.rejected_by_reason.items())
        [(text,)] = con.execute(f"SELECT text FROM {_parquet(self.rejected)} LIMIT 1").fetchall()
        return TooManyRejected(
            f"{report.rows_rejected:,} of {report.rows_read:,} rows of {self.raw.dataset_month} "
            f"would be rejected ({worst}). The first of them: {printable(text, 300)}",
            "Nothing was published. Check the file. If it is right, change the contract or run again with --force.",
        )

    def _lake_error(self, error: duckdb.Error) -> LakeError:
        """What the engine could not do with its files, or without more memory."""
        said = str(error).splitlines()[0]
        if isinstance(error, duckdb.IOException) and not re.search(NO_ROOM, said, re.IGNORECASE):
            problem = f"Cleaning {self.raw.dataset_month} failed: {said}."
            return LakeError(problem, remedy(number_in(said), "TAXI_HOME or TAXI_LAKE_URL"))
        return LakeError(
            f"Cleaning {self.raw.dataset_month} ran out of room: {said}.",
            "Free some disk space under TAXI_HOME, or raise TAXI_MEMORY_LIMIT.",
        )

    def _select(self, sources: Sequence[SourceColumn], relation: str, strict: bool = False) -> str:
        return select_canonical(self.contract, self.raw.dataset_month, sources, relation, self.reject, strict)

    def _columns(self, columns: Sequence[Column]) -> str:
        """The SELECT list for `columns`, where the file version is a constant."""
        version = PROVENANCE[1].name
        constant = f"{literal(self.file_version)} AS {version}"
        return ", ".join(constant if column.name == version else column.name for column in columns)

    def _copy_clean(self, con: duckdb.DuckDBPyConnection, relation: str) -> int:
        """Write the clean rows of a relation with a `reason`; returns their number."""
        columns = self._columns(self.contract.table_columns)
        return self._copy(con, f"SELECT {columns} FROM {relation} WHERE reason IS NULL", self.trips)

    def _copy_rejected(self, con: duckdb.DuckDBPyConnection, select: str) -> None:
        self._copy(con, f"SELECT {self._columns(REJECTED_COLUMNS)} FROM ({select})", self.rejected)

    def _copy(self, con: duckdb.DuckDBPyConnection, select: str, path: Path) -> int:
        """Write a SELECT as Parquet whose footer names the inputs; returns the number of rows."""
        footer = {
            NUMBER: str(FORMAT_VERSION),
            "file_version": self.file_version,
            "raw_sha256": self.raw.sha256,
            "contract_version": self.contract.version,
            "dataset": str(self.raw.dataset_month.dataset),
            "month": str(self.raw.dataset_month.month),
        }
        pairs = ", ".join(f"{key}: {literal(value)}" for key, value in footer.items())
        options = f"{PARQUET_OPTIONS}, KV_METADATA {{{pairs}}}"
        row = con.execute(f"COPY ({select}) TO {literal(str(path))} ({options})").fetchone()
        return int(row[0]) if row else 0

    def _clean_parquet(self, con: duckdb.DuckDBPyConnection) -> list[str]:
        """Clean a Parquet file; returns its column names."""
        relation = _parquet(self.raw.path)
        try:
            described = con.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()
            names = pq.read_schema(self.raw.path).names  # DuckDB renames columns that differ only in case
            sources = [SourceColumn(name, row[1], row[0]) for name, row in zip(names, described, strict=True)]
            canonical = self._select(sources, relation)
            select = f"SELECT *, CAST(NULL AS BIGINT) AS line, to_json(source) AS text FROM ({canonical})"
            if "exact_duplicate" in self.reject:
                con.execute(f"CREATE OR REPLACE TEMP TABLE staged AS SELECT * EXCLUDE (source) FROM ({select})")
                self._copy_staged(con)
            elif self._copy_parquet(con, sources, relation) == self.raw.rows:
                self._copy_rejected(con, NOTHING_REJECTED)
            else:
                self._copy_rejected(con, f"{select} WHERE reason IS NOT NULL")
        except (duckdb.Error, pa.ArrowException, UnicodeDecodeError) as error:
            if (
                isinstance(error, duckdb.OutOfMemoryException)
                or number_in(str(error))
                or "Could not write" in str(error)
            ):
                raise
            raise unreadable_parquet(self.raw.path, error) from error
        return names

    def _copy_parquet(self, con: duckdb.DuckDBPyConnection, sources: Sequence[SourceColumn], relation: str) -> int:
        """Write the clean rows of a Parquet file; returns their number.

        First as if every amount fits and every flag is known: in DuckDB a cast that may fail costs less than a test.
        """
        try:
            return self._copy_published(con, sources, relation, strict=True)
        except (duckdb.ConversionException, UnusualText):
            return self._copy_published(con, sources, relation, strict=False)

    def _copy_published(
        self, con: duckdb.DuckDBPyConnection, sources: Sequence[SourceColumn], relation: str, strict: bool
    ) -> int:
        """As above, in batches where they are read alike; where they cannot be, DuckDB's own reader says why."""
        if batches := ParquetBatches.of(self.raw.path, sources):
            texts = text_readers(self.contract, sources) if strict else {}
            con.register("published", batches.reader(texts))
            columns = [replace(source, is_read=position in texts) for position, source in enumerate(sources)]
            try:
                return self._copy_clean(con, f"({self._select(columns, 'published', strict)})")
            except duckdb.Error:
                if batches.failure is None:
                    raise
                if not isinstance(batches.failure, (pa.ArrowException, OSError)):
                    raise batches.failure from None
            finally:
                con.unregister("published")
        return self._copy_clean(con, f"({self._select(sources, relation, strict)})")

    def _clean_csv(self, con: duckdb.DuckDBPyConnection) -> list[str]:
        """Clean a CSV file; returns its column names."""
        names = csv_reading.header(self.raw.path)
        self.contract.map_columns(names)  # raises before anything is written
        if self.reject or not self._clean_by_typed_scan(con, names):
            self._stage(con, names, csv_reading.all_records(self.raw.path))
            self._copy_staged(con)
        return names

    def _clean_by_typed_scan(self, con: duckdb.DuckDBPyConnection, names: list[str]) -> bool:
        """Clean with the typed scan, and the lines it refused with care; False if it cannot account for every line."""
        body = None if self.raw.plain else self.folder / "body.csv"
        scan = typed_scan.typed_scan(self.raw.path, body, names, self.contract, self.raw.rows)
        if scan is None or scan.lines != self.raw.rows:
            return False
        try:
            written = self._copy_clean(con, f"({self._select(scan.sources, scan.relation)})")
            refused = scan.refused(con, limit=self.raw.rows - written)
        except (duckdb.InvalidInputException, duckdb.ConversionException, duckdb.IOException):
            return False  # the scan gave up on the file's structure or its gzip
        if refused is None or written + len(refused) != self.raw.rows:
            return False
        if not refused:
            self._copy_rejected(con, NOTHING_REJECTED)
            return True
        self._stage(con, names, refused)
        if con.execute("SELECT 1 FROM staged WHERE reason IS NULL LIMIT 1").fetchone():
            scanned = self.folder / "scanned.parquet"
            self.trips.replace(scanned)
            columns = self._columns(self.contract.table_columns)
            recovered = f"SELECT {columns} FROM staged WHERE reason IS NULL ORDER BY line"
            self._copy(con, f"SELECT * FROM {_parquet(scanned)} UNION ALL ({recovered})", self.trips)
        self._copy_rejected(con, "SELECT * FROM staged WHERE reason IS NOT NULL ORDER BY line")
        return True

    def _stage(self, con: duckdb.DuckDBPyConnection, names: list[str], records: Iterable[csv_reading.Record]) -> None:
        """Read records with care into the table `staged`: canonical columns, reason, column_name, line, text."""
        sources = [SourceColumn(name, "VARCHAR", f"f{i}") for i, name in enumerate(names)]
        # Only a rejected row needs its text. Duplicates are found among the staged rows, so there any row may be one.
        needs_text = "TRUE" if "exact_duplicate" in self.reject else "reason IS NOT NULL"
        origin = f"source.line AS line, CASE WHEN {needs_text} THEN source.text END AS text"
        select = f"SELECT * EXCLUDE (source), {origin} FROM ({self._select(sources, 'batch')})"
        month = f"DATE {literal(str(self.raw.dataset_month.month.first_day))} AS file_month"
        same = [*self.contract.columns, EXTRA, *(c for c in REJECTED_COLUMNS if c != PROVENANCE[1])]
        insert, no_rows = "CREATE OR REPLACE TEMP TABLE staged AS", f"SELECT {null_columns(same)} LIMIT 0"
        for batch, unreadable in csv_reading.batches(records, len(names)):
            con.register("batch", batch)
            con.execute(f"{insert} {select if len(batch) else no_rows}")  # the casts take 40 ms to prepare
            insert = "INSERT INTO staged"
            if len(unreadable):
                con.register("unreadable", unreadable)
                con.execute(f"INSERT INTO staged BY NAME SELECT {month}, * FROM unreadable")

    def _copy_staged(self, con: duckdb.DuckDBPyConnection) -> None:
        """Write both files from the table `staged`, where rejecting exact duplicates leaves the first of each."""
        staged = "staged"
        if "exact_duplicate" in self.reject:
            columns = ", ".join(column.name for column in self.contract.columns)
            equal_rows = f"PARTITION BY reason, {columns}, extra_columns ORDER BY rowid"
            is_repeat = f"reason IS NULL AND row_number() OVER ({equal_rows}) > 1"
            reason = f"CASE WHEN {is_repeat} THEN 'exact_duplicate' ELSE reason END AS reason"
            staged = f"(SELECT * REPLACE ({reason}), rowid AS position FROM staged ORDER BY position)"
        self._copy_clean(con, staged)
        self._copy_rejected(con, f"SELECT * FROM {staged} WHERE reason IS NOT NULL ORDER BY line")

    def _report(self, con: duckdb.DuckDBPyConnection, file_format: Format, names: list[str]) -> Report:
        """Count the rows in both written files; raises `IntegrityError` where rows are unaccounted for."""
        dataset_month, rejected = self.raw.dataset_month, _parquet(self.rejected)
        mapping = self.contract.map_columns(names)
        rows_clean, suspicious = self._count_clean(con, [*mapping.sources, EXTRA.name])
        by_reason = con.execute(
            f"SELECT concat_ws(' ', reason, column_name), count(*) FROM {rejected} GROUP BY 1 ORDER BY 2 DESC, 1"
        ).fetchall()
        report = Report(
            dataset=str(dataset_month.dataset),
            month=str(dataset_month.month),
            file_version=self.file_version,
            raw_sha256=self.raw.sha256,
            contract_version=self.contract.version,
            reject=self.reject,
            format=file_format.value,
            rows_read=self.raw.rows,
            rows_clean=rows_clean,
            rows_rejected=sum(rows for _, rows in by_reason),
            rejected_by_reason=dict(by_reason),
            suspicious=suspicious,
            unknown_columns=tuple(names[i] for i in mapping.unknown),
            missing_columns=mapping.missing,
            trips_per_day=self._trips_per_day(con),
        )
        if report.rows_read != report.rows_clean + report.rows_rejected:
            raise DamagedRaw(
                f"{dataset_month}: {report.rows_read:,} rows were counted when the file was fetched, but "
                f"{report.rows_clean:,} clean and {report.rows_rejected:,} rejected rows were written.",
                "Nothing was published. Fetch the month again. If the error persists, please report the file.",
            )
        return report

    def _count_clean(self, con: duckdb.DuckDBPyConnection, filled_columns: Sequence[str]) -> tuple[int, dict[str, int]]:
        """The number of clean rows, and how many are suspicious under each rule that does not reject."""
        rules = [rule for rule in self.contract.suspicious if rule not in self.reject]
        counts = ", ".join(
            f"count(*) - count(DISTINCT hash({', '.join(filled_columns)}))"
            if rule == "exact_duplicate"
            else f"count(*) FILTER (WHERE {rule_sql(self.contract, rule, self.raw.dataset_month)})"
            for rule in rules
        )
        row = con.execute(f"SELECT count(*), {counts} FROM {_parquet(self.trips)}").fetchone() or ()
        return row[0], dict(zip(rules, row[1:], strict=True))

    def _trips_per_day(self, con: duckdb.DuckDBPyConnection) -> dict[str, int]:
        month = self.raw.dataset_month.month
        rows = con.execute(
            "SELECT CAST(day AS VARCHAR), trips FROM ("
            f"SELECT CAST(pickup_datetime AS DATE) AS day, count(*) AS trips FROM {_parquet(self.trips)} "
            f"WHERE pickup_datetime >= DATE '{month.first_day}' AND pickup_datetime < DATE '{month.plus(1).first_day}' "
            "GROUP BY day) ORDER BY day"
        ).fetchall()
        return dict(rows)


def _parquet(path: Path) -> str:
    """The relation over a Parquet file. Hive partitioning is off, or a folder `month=2021-01` would become a column."""
    return f"read_parquet({literal(str(path))}, binary_as_string = true, hive_partitioning = false)"
