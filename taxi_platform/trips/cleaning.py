"""One raw file in, one clean Parquet file, one of rejected rows and a report out.

CSV goes through two readers that agree by construction, because both feed the same casts (`casting.py`): a fast
typed scan by DuckDB, and a careful one, line by line, for the lines the first refused. Whenever the fast scan cannot
vouch for every line (counts differ, NULs, mixed line ends, rules that need line numbers), the careful one reads it all.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from taxi_platform.trips import csv_reading
from taxi_platform.trips.casting import SourceColumn, literal, rule_sql, select_canonical
from taxi_platform.trips.contract import EXTRA, PROVENANCE, REJECTED_COLUMNS, Contract, contract_of
from taxi_platform.trips.errors import IntegrityError, LakeError, NotData, TooManyRejected
from taxi_platform.trips.files import Format, sniff
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.trips.report import Report

PARQUET_OPTIONS = "FORMAT parquet, COMPRESSION snappy, ROW_GROUP_SIZE 122880"
"""The row group is the engine's own batch: twice of it takes 1.4 times as long, measured on 1.37 million rows."""

MAX_REJECTED_SHARE = 0.5
NOTHING_REJECTED = f"SELECT {', '.join(f'CAST(NULL AS {c.duckdb_type}) AS {c.name}' for c in REJECTED_COLUMNS)} LIMIT 0"


@dataclass(frozen=True)
class Engine:
    """What the cleaning engine may use: memory as DuckDB writes it (`512MB`), threads, and where it spills."""

    memory_limit: str = "512MB"
    threads: int = os.cpu_count() or 1


@dataclass(frozen=True)
class CleaningInput:
    """A raw file to clean: where it lies, its sha256, the rows counted when it was fetched, and whether it is plain."""

    dataset_month: DatasetMonth
    path: Path
    sha256: str
    rows: int
    plain: bool = False


@dataclass(frozen=True)
class CleaningOutput:
    """The files one cleaning made."""

    trips: Path
    rejected: Path
    report: Report


class Cleaner:
    """Cleans one raw file inside `folder`, which it fills with its results and its spill files."""

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

        Raises `NotData` for a file that cannot be read or has no rows, `ContractError` when its columns do not fit,
        `TooManyRejected` when more than half of its rows do not, `IntegrityError` when rows are unaccounted for.
        `force` lets an empty month and a mostly rejected one pass.
        """
        if not self.raw.rows and not force:
            raise NotData(
                f"{self.raw.path.name} has a header but no rows.", "If the month really is empty, run it with --force."
            )
        with self._connect() as con:
            with self.raw.path.open("rb") as file:
                file_format = sniff(file.read(4096))
            names = self._clean_parquet(con) if file_format is Format.PARQUET else self._clean_csv(con)
            report = self._report(con, file_format, names)
        if report.share_rejected > MAX_REJECTED_SHARE and not force:
            worst = ", ".join(f"{rows:,} {reason}" for reason, rows in report.rejected_by_reason.items())
            raise TooManyRejected(
                f"{report.rows_rejected:,} of {report.rows_read:,} rows of {self.raw.dataset_month} "
                f"do not fit ({worst}).",
                "Nothing was published. Look at the file; if it is right, adapt the contract or run with force.",
            )
        return CleaningOutput(self.trips, self.rejected, report)

    @contextmanager
    def _connect(self) -> Iterator[duckdb.DuckDBPyConnection]:
        spill = self.folder / "spill"
        spill.mkdir(parents=True, exist_ok=True)
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": self.engine.memory_limit,
            "threads": self.engine.threads,
            "temp_directory": str(spill),
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        # A database of its own, not memory: only so does the staging table spill beyond the memory limit.
        try:
            with duckdb.connect(str(self.folder / "staging.duckdb"), config=config) as con:
                con.execute("SET enable_progress_bar = false; SET TimeZone = 'UTC'")
                yield con
        except (duckdb.OutOfMemoryException, duckdb.IOException, duckdb.TransactionException) as error:
            raise LakeError(
                f"Cleaning {self.raw.dataset_month} ran out of room: {str(error).splitlines()[0]}.",
                "Free some disk space under TAXI_HOME, or raise TAXI_MEMORY_LIMIT.",
            ) from error

    def _select(self, sources: Sequence[SourceColumn], relation: str) -> str:
        return select_canonical(self.contract, self.raw.dataset_month, sources, relation, self.reject)

    @property
    def _clean_columns(self) -> str:
        names = [column.name for column in self.contract.table_columns if column.name != PROVENANCE[1].name]
        return f"{', '.join(names)}, {literal(self.file_version)} AS {PROVENANCE[1].name}"

    def _copy(self, con: duckdb.DuckDBPyConnection, select: str, path: Path) -> int:
        """Write a SELECT as Parquet whose footer names what it was made from; returns the rows."""
        footer = {
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

    def _copy_rejected(self, con: duckdb.DuckDBPyConnection, select: str) -> None:
        names = ", ".join(column.name for column in REJECTED_COLUMNS if column.name != PROVENANCE[1].name)
        columns = names.replace(
            PROVENANCE[0].name, f"{PROVENANCE[0].name}, {literal(self.file_version)} AS file_version"
        )
        self._copy(con, f"SELECT {columns} FROM ({select})", self.rejected)

    def _clean_parquet(self, con: duckdb.DuckDBPyConnection) -> list[str]:
        relation = _parquet(self.raw.path)
        # A file's own statistics may be wrong, and DuckDB would leave out every test that they say cannot fail.
        con.execute("SET disabled_optimizers = 'statistics_propagation'")
        try:
            described = con.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()
            names = pq.read_schema(self.raw.path).names  # DuckDB renames what differs in case only
            sources = [SourceColumn(name, row[1], row[0]) for name, row in zip(names, described, strict=True)]
            canonical = self._select(sources, relation)
            select = f"SELECT *, CAST(NULL AS BIGINT) AS line, to_json(source) AS text FROM ({canonical})"
            if "exact_duplicate" in self.reject:
                con.execute(f"CREATE OR REPLACE TABLE staged AS SELECT * EXCLUDE (source) FROM ({select})")
                self._copy_staged(con)
            elif (
                self._copy(con, f"SELECT {self._clean_columns} FROM ({select}) WHERE reason IS NULL", self.trips)
                != self.raw.rows
            ):
                self._copy_rejected(con, f"{select} WHERE reason IS NOT NULL")
            else:
                self._copy_rejected(con, NOTHING_REJECTED)
        except (duckdb.Error, pa.ArrowException, UnicodeDecodeError) as error:
            if isinstance(error, duckdb.OutOfMemoryException) or "Could not write" in str(error):
                raise
            raise NotData(
                f"{self.raw.path.name} is damaged: {str(error).splitlines()[0][:400]!r}.", "Fetch it again."
            ) from error
        return [source.name for source in sources]

    def _clean_csv(self, con: duckdb.DuckDBPyConnection) -> list[str]:
        names = csv_reading.header(self.raw.path)
        self.contract.map_columns(names)
        scan = None
        if not self.reject:
            body = None if self.raw.plain else self.folder / "body.csv"
            scan = csv_reading.typed_scan(self.raw.path, body, names, self.contract, self.raw.rows)
        if scan:
            clean = (
                f"SELECT {self._clean_columns} FROM ({self._select(scan.sources, scan.relation)}) WHERE reason IS NULL"
            )
            refused = None
            try:
                written = self._copy(con, clean, self.trips)
                refused = scan.refused(con, limit=self.raw.rows - written)
            except (duckdb.InvalidInputException, duckdb.ConversionException, duckdb.IOException):
                pass  # the scan gave up on the file's structure, or on its gzip: the careful reader takes over
            if refused is not None and written + len(refused) == self.raw.rows == scan.lines:
                if not refused:
                    self._copy_rejected(con, NOTHING_REJECTED)
                    return names
                self._stage(con, names, refused)
                if con.execute("SELECT 1 FROM staged WHERE reason IS NULL LIMIT 1").fetchone():
                    fast = self.folder / "fast.parquet"
                    self.trips.replace(fast)
                    recovered = f"SELECT {self._clean_columns} FROM staged WHERE reason IS NULL ORDER BY line"
                    self._copy(con, f"SELECT * FROM {_parquet(fast)} UNION ALL ({recovered})", self.trips)
                self._copy_rejected(con, "SELECT * FROM staged WHERE reason IS NOT NULL ORDER BY line")
                return names
        self._stage(con, names, csv_reading.all_records(self.raw.path))
        self._copy_staged(con)
        return names

    def _stage(self, con: duckdb.DuckDBPyConnection, names: list[str], records: Iterable[csv_reading.Record]) -> None:
        """Read records with care into the table `staged`: canonical columns, reason, column_name, line, text."""
        sources = [SourceColumn(name, "VARCHAR", f"f{i}") for i, name in enumerate(names)]
        keeps = "TRUE" if "exact_duplicate" in self.reject else "reason IS NOT NULL"
        kept = f"source.line AS line, CASE WHEN {keeps} THEN source.text END AS text"
        select = f"SELECT * EXCLUDE (source), {kept} FROM ({self._select(sources, 'batch')})"
        month = f"DATE {literal(str(self.raw.dataset_month.month.first_day))} AS file_month"
        verb = "CREATE OR REPLACE TABLE staged AS"
        for batch, unreadable in csv_reading.batches(records, len(names)):
            con.register("batch", batch)
            con.execute(f"{verb} {select}")
            verb = "INSERT INTO staged"
            if len(unreadable):
                con.register("unreadable", unreadable)
                con.execute(f"INSERT INTO staged BY NAME SELECT {month}, * FROM unreadable")

    def _copy_staged(self, con: duckdb.DuckDBPyConnection) -> None:
        staged = "staged"
        if "exact_duplicate" in self.reject:
            columns = ", ".join(column.name for column in self.contract.columns)
            same = f"PARTITION BY reason, {columns}, extra_columns ORDER BY rowid"
            repeat = f"reason IS NULL AND row_number() OVER ({same}) > 1"
            reason = f"CASE WHEN {repeat} THEN 'exact_duplicate' ELSE reason END AS reason"
            staged = f"(SELECT * REPLACE ({reason}), rowid AS position FROM staged ORDER BY position)"
        self._copy(con, f"SELECT {self._clean_columns} FROM {staged} WHERE reason IS NULL", self.trips)
        self._copy_rejected(con, f"SELECT * FROM {staged} WHERE reason IS NOT NULL ORDER BY line")

    def _report(self, con: duckdb.DuckDBPyConnection, file_format: Format, names: list[str]) -> Report:
        """Count what was written, not what was meant to be; raises `IntegrityError` where rows are unaccounted for."""
        dataset_month, contract = self.raw.dataset_month, self.contract
        trips, rejected = _parquet(self.trips), _parquet(self.rejected)
        mapping = contract.map_columns(names)
        rules = [rule for rule in contract.suspicious if rule not in self.reject]
        filled = ", ".join([*mapping.sources, EXTRA.name])
        counts = ", ".join(
            f"count(*) - count(DISTINCT hash({filled}))"
            if rule == "exact_duplicate"
            else f"count(*) FILTER (WHERE {rule_sql(contract, rule, dataset_month)})"
            for rule in rules
        )
        found = con.execute(f"SELECT count(*), {counts} FROM {trips}").fetchone() or ()
        by_reason = con.execute(
            f"SELECT concat_ws(' ', reason, column_name), count(*) FROM {rejected} GROUP BY 1 ORDER BY 2 DESC, 1"
        ).fetchall()
        first, end = (f"DATE '{month.first_day}'" for month in (dataset_month.month, dataset_month.month.plus(1)))
        per_day = con.execute(
            f"SELECT CAST(CAST(pickup_datetime AS DATE) AS VARCHAR), count(*) FROM {trips} "
            f"WHERE pickup_datetime >= {first} AND pickup_datetime < {end} GROUP BY 1 ORDER BY 1"
        ).fetchall()
        report = Report(
            dataset=str(dataset_month.dataset),
            month=str(dataset_month.month),
            file_version=self.file_version,
            raw_sha256=self.raw.sha256,
            contract_version=contract.version,
            reject=self.reject,
            format=file_format.value,
            rows_read=self.raw.rows,
            rows_clean=found[0],
            rows_rejected=sum(rows for _, rows in by_reason),
            rejected_by_reason=dict(by_reason),
            suspicious=dict(zip(rules, found[1:], strict=True)),
            unknown_columns=tuple(names[i] for i in mapping.unknown),
            missing_columns=mapping.missing,
            trips_per_day=dict(per_day),
        )
        if report.rows_read != report.rows_clean + report.rows_rejected:
            raise IntegrityError(
                f"{dataset_month}: {report.rows_read:,} rows were counted when the file was fetched, but "
                f"cleaning found {report.rows_clean:,} clean and {report.rows_rejected:,} rejected ones.",
                "Nothing was published. Fetch the month again; if it stays so, please report the file.",
            )
        return report


def _parquet(path: Path) -> str:
    """The relation over a Parquet file. A folder named `month=2021-01` is no column."""
    return f"read_parquet({literal(str(path))}, binary_as_string = true, hive_partitioning = false)"
