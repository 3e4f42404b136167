"""The content of a month as one value: its rows, and the sum of their hashes, of a table or of its Parquet file.

By it a month in a table is compared with the file that it should be equal to.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import duckdb

from taxi_platform.trips.casting import literal
from taxi_platform.trips.contract import Column
from taxi_platform.trips.errors import Conflict, IntegrityError
from taxi_platform.trips.in_memory import in_memory
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.trips.replacing import replacing
from taxi_platform.warehouse.row_hash import Dialect, RowHash
from taxi_platform.warehouse.session import Session, month_relation
from taxi_platform.warehouse.tables import Table, TableFile

LOOKS = 3
"""How often a month must look wrong, and of the right version after that, to count as different from its file."""
CLEAN_AGAIN = "Materialize the clean trips again with force."


@dataclass(frozen=True)
class Fingerprint:
    """`rows`, and for each group of columns the sum of their hashes. Comparable within one kind of warehouse."""

    rows: int
    sums: tuple[int, ...]

    def __str__(self) -> str:
        return hashlib.sha256(repr((self.rows, self.sums)).encode()).hexdigest()[:12]

    @classmethod
    def of(cls, row: Sequence[Any]) -> Fingerprint:
        """The fingerprint from the one row of `Dialect.select`."""
        rows, *sums = (int(number or 0) for number in row)  # a sum over no rows is null
        return cls(rows, tuple(sums))

    def differences(self, file: Fingerprint, columns: Sequence[Column]) -> str:
        """How this table differs from its file, for messages; both must be of these columns one by one."""
        if self.rows != file.rows:
            return f"{self.rows:,} rows, not {file.rows:,}"
        pairs = zip(columns, self.sums, file.sums, strict=True)
        names = [column.name for column, own, of_file in pairs if own != of_file]
        return f"in {', '.join(names)}" if names else "values stand in other rows"


def parquet_fingerprint(dialect: Dialect, groups: Sequence[Sequence[Column]], path: Path) -> Fingerprint:
    """The fingerprint of a Parquet file on this machine; raises `IntegrityError` if it cannot be read."""
    select = dialect.select(groups, f"read_parquet({literal(str(path))})")
    try:
        with in_memory() as con:
            return Fingerprint.of(con.execute(select).fetchone() or ())
    except duckdb.Error as error:
        problem = f"{path.name} cannot be read: {str(error).splitlines()[0]}"
        raise IntegrityError(problem, CLEAN_AGAIN) from error


def check_file_types(table: str, columns: Sequence[Column], path: Path) -> None:
    """Raise `IntegrityError` if a Parquet file has other types than the contract: no load converts values."""
    import pyarrow.parquet as pq

    types = {field.name: str(field.type) for field in pq.read_schema(path)}
    for column in columns:
        actual, expected = types.get(column.name, "missing"), column.column_type.arrow
        if actual != expected:
            problem = f"{table}.{column.name} is {actual} in {path.name}, not {expected}."
            raise IntegrityError(problem, CLEAN_AGAIN)


def file_fingerprint(row_hash: RowHash, file: TableFile, anew: bool = False) -> Fingerprint:
    """The fingerprint of the file's columns together; raises `IntegrityError` if it cannot be read.

    That of known bytes is kept, and taken from there unless it shall be made `anew`: of 1.37 million rows of yellow it
    takes 0.17 s of processor time, and for PostgreSQL and BigQuery 1.3 s, twice in the run of a new month.
    """
    columns = [file.table.columns]
    if file.known is None:
        return parquet_fingerprint(row_hash.file, columns, file.path)
    path = file.known.folder / f"{file.table.name}-{file.dataset_month.month}.json"
    # DuckDB's hash may differ between its versions.
    way = hashlib.sha256(f"{duckdb.__version__} {row_hash.file.select(columns, 'file')}".encode()).hexdigest()
    kept = _kept_fingerprints(path, file.known.sha256)
    if anew or way not in kept:
        kept[way] = parquet_fingerprint(row_hash.file, columns, file.path)
        content = {"sha256": file.known.sha256, "fingerprints": {way: astuple(of) for way, of in kept.items()}}
        with suppress(OSError):  # it is then made again
            path.parent.mkdir(exist_ok=True)
            with replacing(path) as temporary:
                temporary.write_text(json.dumps(content), "utf-8")
    return kept[way]


def _kept_fingerprints(path: Path, sha256: str) -> dict[str, Fingerprint]:
    """Way → fingerprint, of a file with these bytes."""
    try:
        content = json.loads(path.read_text("utf-8"))
        kept = content["fingerprints"].items() if content["sha256"] == sha256 else ()
        return {way: Fingerprint.of([rows, *sums]) for way, (rows, sums) in kept}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # none yet, or damaged
        return {}


def compare(row_hash: RowHash, session: Session, file: TableFile, relation: str, expected: Fingerprint) -> Fingerprint:
    """Compare `relation` with the file, whose fingerprint is `expected`; returns what both have.

    Raises `IntegrityError` if it has other rows than the file, and `Conflict` if it has rows of another version.
    """

    def fingerprint(*groups: Sequence[Column]) -> Fingerprint:
        (row,) = session.execute(row_hash.table.select(groups, relation))
        return Fingerprint.of(row)

    columns = file.table.columns
    # Other runs may replace the month by another version between two looks, and by this one again.
    for look in range(LOOKS):
        if fingerprint(columns) == expected:
            return expected
        # Asked after the rows were read, so that a load in between shows. No load leaves two versions of a month.
        _check_versions(session.execute(f"SELECT DISTINCT file_version FROM {relation}"), file, file.table)
        if file.known and look == 0:
            expected = file_fingerprint(row_hash, file, anew=True)  # what was kept may be damaged
    one_by_one = [[column] for column in columns]
    in_file = parquet_fingerprint(row_hash.file, one_by_one, file.path)
    raise IntegrityError(
        f"{file.table.name} differs from its file of {file.dataset_month} "
        f"({fingerprint(*one_by_one).differences(in_file, columns)}).",
        load_again(file.dataset_month),
    )


def check_version(session: Session, file: TableFile, table: Table) -> None:
    """Raise `Conflict` if the table holds another version of the file's month."""
    relation = month_relation(session, table, file.dataset_month)
    _check_versions(session.execute(f"SELECT DISTINCT file_version FROM {relation}"), file, table)


def load_again(dataset_month: DatasetMonth) -> str:
    """What to do about a month that differs from its file."""
    return f"Run taxi ingest {dataset_month} to load it again. If it happens again, please report it."


def _check_versions(versions: Sequence[tuple[Any, ...]], file: TableFile, table: Table) -> None:
    if len(versions) == 1 and versions != [(file.file_version,)]:
        raise Conflict(
            f"{table.name} holds version {versions[0][0]} of {file.dataset_month}, the lake {file.file_version}.",
            f"The run that cleaned the month should load it; otherwise run taxi ingest {file.dataset_month}.",
        )
