"""A month's clean file in a lake, and the three that belong to it: rejected rows, report and checksums.

The clean file is the commit point: its footer names the version of the others. Each is compared with its checksum
before it is used; what is damaged is cleaned again.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taxi_platform.lake.base import NEW, Lake, StoredObject
from taxi_platform.lake.checksums import Checksums, FileSum
from taxi_platform.trips.errors import Conflict, DamagedFile
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.trips.report import Report
from taxi_platform.trips.stored_json import NUMBER, check_format, load

FOOTER_BYTES = 64 * 1024
"""How much of a clean file is read for its footer. If that is longer, as of twenty million rows, it is read again."""


@dataclass(frozen=True)
class CleanFooter:
    """What the clean file says about itself; `rows` is the Parquet footer's own count, `size` in bytes.

    `object_version` is the lake's version of the file.
    """

    file_version: str
    raw_sha256: str
    contract_version: str
    rows: int
    size: int
    object_version: str

    @classmethod
    def of(cls, metadata: Any, stored: StoredObject, month: CleanMonth) -> CleanFooter:
        """From the Parquet metadata; raises `KeyError`, `ValueError` or `DamagedFile` if they are not of that month."""
        pairs = {key.decode("ascii", "replace"): value for key, value in (metadata.metadata or {}).items()}
        number = pairs.get(NUMBER, b"1").decode()
        known = int(number) if number.isdecimal() and len(number) < 9 else number
        check_format(known, month.lake.uri(stored.key), "clean file", month.clean_again)
        of_month = [pairs.get(name, b"").decode() for name in ("dataset", "month")]
        if of_month != [month.dataset_month.dataset.value, str(month.dataset_month.month)]:
            raise ValueError(f"a clean file of {of_month}")
        texts = [pairs[name].decode() for name in ("file_version", "raw_sha256", "contract_version")]
        if not re.fullmatch("[0-9a-f]{12}", texts[0]):
            raise ValueError(f"a clean file of version {texts[0]}")
        return cls(texts[0], texts[1], texts[2], metadata.num_rows, stored.size, stored.version)


class CleanMonth:
    """The clean file of one dataset and month, and what belongs to it."""

    def __init__(self, lake: Lake, dataset_month: DatasetMonth) -> None:
        self.lake = lake
        self.dataset_month = dataset_month
        dataset, month = dataset_month.dataset, dataset_month.month
        self.raw_prefix = f"raw/{dataset}/{month}/"
        self.manifest_key = f"{self.raw_prefix}manifest.json"
        self.clean_key = f"clean/{dataset}/month={month}/trips.parquet"
        self.rejected_prefix = f"rejected/{dataset}/month={month}/"
        self.reports_prefix = f"reports/{dataset}/month={month}/"
        self.checksums_prefix = f"checksums/{dataset}/month={month}/"
        self._checksums: dict[str, Checksums] = {}
        """File version → its checksums, once they were read here."""

    def rejected_key(self, file_version: str) -> str:
        return f"{self.rejected_prefix}{file_version}.parquet"

    def report_key(self, file_version: str) -> str:
        return f"{self.reports_prefix}{file_version}.json"

    def checksums_key(self, file_version: str) -> str:
        return f"{self.checksums_prefix}{file_version}.json"

    @property
    def clean_again(self) -> str:
        """What to do about a damaged clean file, or one that belongs to it."""
        return f"Run taxi ingest {self.dataset_month}, which cleans the month again."

    def read_clean(self) -> tuple[CleanFooter | None, str]:
        """The clean file's footer, None if it is absent, damaged or not ours; and its version for compare-and-swap.

        A damaged file counts as absent and is replaced by the next cleaning. Raises `NewerFormat`.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        if (end := self._read_footer(self.clean_key)) is None:
            return None, NEW
        content, stored = end
        try:
            footer = CleanFooter.of(pq.read_metadata(pa.BufferReader(content)), stored, self)
        except (pa.ArrowException, OSError, ValueError, KeyError, DamagedFile):
            return None, stored.version
        return footer, stored.version

    def _read_footer(self, key: str) -> tuple[bytes, StoredObject] | None:
        """The end of a Parquet file with all of its footer; None if there is no file."""
        end = self.lake.read_end(key, FOOTER_BYTES)
        if end is None:
            return None
        length = int.from_bytes(end[0][-8:-4], "little") + 8  # before the last four bytes, its mark
        return self.lake.read_end(key, length) if len(end[0]) < length <= end[1].size else end

    def footer(self) -> CleanFooter | None:
        """The clean file's footer; None if the month has no clean file that we wrote."""
        return self.read_clean()[0]

    def report(self, file_version: str) -> Report | None:
        """The report of a version; None if it is lost, `Conflict` if a run that cleaned a newer version removed it.

        Raises `DamagedFile` if it is not what was stored, `NewerFormat` if this version cannot read it.
        """
        report = self._report(file_version, self.checksums(file_version))
        if report is None and (footer := self.footer()) and footer.file_version != file_version:
            raise cleaned_by_another_run(self.dataset_month)
        return report

    def _report(self, file_version: str, checksums: Checksums | None) -> Report | None:
        key = self.report_key(file_version)
        if (stored := self.lake.read(key)) is None:
            return None
        report = Report.from_json(stored[0], self.lake.uri(key), self.clean_again)
        if checksums and FileSum.of(io.BytesIO(stored[0])) != checksums.report:
            raise self.damaged(key, "is not the report that was stored")
        where = (report.dataset, report.month, report.file_version)
        if where != (self.dataset_month.dataset.value, str(self.dataset_month.month), file_version):
            raise self.damaged(key, "is the report of another file")
        return report

    def checksums(self, file_version: str) -> Checksums | None:
        """The checksums of a version; None if it was published without them. Raises `DamagedFile`, `NewerFormat`."""
        key = self.checksums_key(file_version)
        if known := self._checksums.get(file_version):
            return known
        if (stored := self.lake.read(key)) is None:
            return None
        content = load(stored[0], self.lake.uri(key), "list of checksums", self.clean_again)
        try:
            checksums = Checksums.of(content)
        except ValueError as error:
            raise self.damaged(key, f"is not a list of checksums: {error}") from error
        if checksums.file_version != file_version:
            raise self.damaged(key, "has the checksums of another version")
        self._checksums[file_version] = checksums
        return checksums

    def damaged(self, key: str, problem: str) -> DamagedFile:
        """The error for a file that cleaning the month makes again."""
        return DamagedFile(f"{self.lake.uri(key)} {problem}.", self.clean_again)

    def check_files(self, footer: CleanFooter, whole: bool = True) -> Report:
        """Compare the clean file and what belongs to it with what was stored; returns the report.

        Reads them whole (a bucket tells their CRC32C itself), or only the report and the sizes of the others. Raises
        `DamagedFile`. Of a month without checksums only the rows are compared.
        """
        version = footer.file_version
        self._checksums.clear()
        checksums = self.checksums(version)
        report = self._report(version, checksums)
        if report is None:
            raise self.damaged(self.report_key(version), "is missing")
        if report.rows_clean != footer.rows or report.raw_sha256 != footer.raw_sha256:
            raise self.damaged(self.clean_key, "is not the file that its report describes")
        if checksums is None:
            if self.rejected_rows(version) != report.rows_rejected:
                raise self.damaged(self.rejected_key(version), "does not have the rows that were rejected")
            return report
        for key, expected in ((self.clean_key, checksums.clean), (self.rejected_key(version), checksums.rejected)):
            if whole and self.lake.holds(key, expected):
                continue
            stored = self.lake.stat(key)
            if stored is None:
                raise self.damaged(key, "is missing")
            if stored.size != expected.size:
                raise self.damaged(key, f"has {stored.size:,} bytes instead of {expected.size:,}")
            if whole:
                raise self.damaged(key, "was altered since it was written")
        return report

    def rejected_rows(self, file_version: str) -> int:
        """The rows of the rejected file, by its footer; raises `DamagedFile`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        key = self.rejected_key(file_version)
        if (end := self._read_footer(key)) is None:
            raise self.damaged(key, "is missing")
        try:
            return int(pq.read_metadata(pa.BufferReader(end[0])).num_rows)
        except (pa.ArrowException, OSError) as error:
            raise self.damaged(key, f"cannot be read ({type(error).__name__})") from error

    @contextmanager
    def copies(self, file_version: str, folder: Path) -> Iterator[tuple[Path, Path]]:
        """The clean file and the rejected rows as local files to read, compared with their checksums.

        Raises `DamagedFile`.
        """
        sums = self.checksums(file_version)
        with (
            self._copy(self.clean_key, folder, sums.clean if sums else None) as clean,
            self._copy(self.rejected_key(file_version), folder, sums.rejected if sums else None) as rejected,
        ):
            yield clean, rejected

    def clean_copy(self, file_version: str, folder: Path) -> AbstractContextManager[Path]:
        """The clean file alone, as `copies` gives it."""
        sums = self.checksums(file_version)
        return self._copy(self.clean_key, folder, sums.clean if sums else None)

    @contextmanager
    def _copy(self, key: str, folder: Path, expected: FileSum | None) -> Iterator[Path]:
        with self.lake.local_copy(key, folder) as path:
            if expected is None:
                self._check_readable(key, path)
            elif FileSum.of_path(path) != expected:
                raise self.damaged(key, "was altered since it was written")
            yield path

    def add_checksums(self, file_version: str, folder: Path) -> None:
        """Give a month of an earlier version its checksums, unless it has them; raises `DamagedFile`.

        The files are read whole once, as nothing tells what was stored.
        """
        if self.checksums(file_version):
            return
        stored = self.lake.read(self.report_key(file_version))
        report = FileSum.of(io.BytesIO(stored[0] if stored else b""))
        with self.copies(file_version, folder) as (clean, rejected):
            checksums = Checksums(file_version, FileSum.of_path(clean), FileSum.of_path(rejected), report)
        self.lake.write(self.checksums_key(file_version), checksums.to_json().encode())

    def _check_readable(self, key: str, path: Path) -> None:
        """Of a file without a checksum: read every page, so that what is cut or garbled is noticed here."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(path) as file:
                rows = sum(batch.num_rows for batch in file.iter_batches())
                if rows != file.metadata.num_rows:
                    raise self.damaged(key, f"has {rows:,} rows instead of {file.metadata.num_rows:,}")
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self.damaged(key, f"cannot be read ({type(error).__name__})") from error

    def is_complete(self, footer: CleanFooter | None, file_version: str) -> bool:
        """Whether the month is published in exactly this version, with its side files and no others.

        Others were left by a run that was killed before its sweep, or that lost to another run. They cannot simply be
        deleted: without locks a run may be about to commit them. That run loses once the month is published again.
        """
        if footer is None or footer.file_version != file_version:
            return False
        keys = set(self._side_keys())
        # Months that an earlier version published have no checksums.
        return keys | {self.checksums_key(file_version)} == self.side_keys_of(file_version) and len(keys) > 1

    def _side_keys(self) -> list[str]:
        prefixes = (self.rejected_prefix, self.reports_prefix, self.checksums_prefix)
        return [key for prefix in prefixes for key in self.lake.list(prefix)]

    def side_keys_of(self, file_version: str) -> set[str]:
        """Where the files are that belong to this version of the clean file."""
        return {self.rejected_key(file_version), self.report_key(file_version), self.checksums_key(file_version)}


def cleaned_by_another_run(dataset_month: DatasetMonth) -> Conflict:
    """What to raise if the clean file was replaced between two looks at it."""
    return Conflict(f"{dataset_month} was cleaned by another run at the same time.", "Run the month again.")
