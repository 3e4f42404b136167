"""Complete files: their format, rows, size and sha256, found in one pass, and the folder they are received into.

Rows are counted here independently of the cleaner: CSV records by `records.py`, Parquet rows from the footer.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from taxi_platform.trips.errors import DamagedRaw, NotData
from taxi_platform.trips.formats import DOWNLOAD_AGAIN, SNIFFED_BYTES, Format, TextReader, decompressed, sniff
from taxi_platform.trips.records import RecordCounter

MAX_COLUMNS = 1000
TOO_MANY_COLUMNS = f"The limit is {MAX_COLUMNS:,}; no file of the TLC has more than 25. Check what the source serves."
MAX_PARQUET_ROWS = 250_000_000
"""The largest month has 24 million rows; a billion equal rows fit into a Parquet file of 4 MB."""
MAX_FOOTER_BYTES = 8 << 20
"""A footer takes six times its size in memory."""


class VerifiedFile(NamedTuple):
    """A file on disk that was read to its end. `plain`: see `records.RecordCounter`; False for Parquet."""

    format: Format
    rows: int
    plain: bool = False


class InspectedFile(NamedTuple):
    """A file that was inspected while it was received. `size` is in bytes."""

    format: Format
    rows: int
    sha256: str
    size: int
    plain: bool = False


def verify(path: Path) -> VerifiedFile:
    """Read a file to its end (of Parquet only the footer); raises `NotData` if it is not readable trips."""
    with path.open("rb") as file:
        format = sniff(file.read(SNIFFED_BYTES))
        if format is Format.PARQUET:
            return VerifiedFile(format, _parquet_rows(path))
        file.seek(0)
        counter = RecordCounter()
        for text in decompressed(file):
            counter.feed(text)
        return VerifiedFile(format, counter.finish(), counter.plain)


def _parquet_rows(path: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as file:
            file.seek(-8, os.SEEK_END)
            footer = int.from_bytes(file.read(4), "little")
        if footer > MAX_FOOTER_BYTES:
            raise NotData(f"The Parquet file's footer has {footer:,} bytes.", f"The limit is {MAX_FOOTER_BYTES:,}.")
        metadata = pq.read_metadata(path)
        rows = sum(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedRaw(
            f"The Parquet file's footer cannot be read ({type(error).__name__}).", DOWNLOAD_AGAIN
        ) from error
    if metadata.num_columns > MAX_COLUMNS:
        raise NotData(f"The Parquet file has {metadata.num_columns:,} columns.", TOO_MANY_COLUMNS)
    if rows > MAX_PARQUET_ROWS:
        raise NotData(f"The Parquet file has {rows:,} rows.", f"The limit is {MAX_PARQUET_ROWS:,}.")
    if rows != metadata.num_rows:
        raise DamagedRaw("The row groups of the Parquet file do not add up to the rows in its footer.", DOWNLOAD_AGAIN)
    return rows


def unreadable_parquet(path: Path, error: Exception) -> NotData:
    """What is wrong with a Parquet file whose footer is right, given the error of the engine that read it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = str(error).splitlines()[0].replace(str(path), path.name)
    if "Invalid string encoding" not in text:
        return DamagedRaw(f"{path.name} is damaged: {text[:400]!r}.", "Fetch it again.")
    kinds = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    binary = [field.name for field in pq.read_schema(path) if any(is_kind(field.type) for is_kind in kinds)]
    if binary:
        names = ", ".join(map(repr, binary[:10]))[:400]
        return NotData(f"{path.name} has binary columns whose bytes are not text: {names}.", "Publish them as text.")
    return DamagedRaw(f"{path.name} has text that is not UTF-8.", DOWNLOAD_AGAIN)


class Inspector:
    """Inspects a file while it is received: fed with its bytes, it finds format, rows, size and sha256."""

    def __init__(self) -> None:
        self.size = 0
        self._sha256 = hashlib.sha256()
        self._reader = TextReader()
        self._counter = RecordCounter()
        self._damage: DamagedRaw | None = None

    @property
    def sha256(self) -> str:
        """Of the bytes so far, as hex digits."""
        return self._sha256.hexdigest()

    def feed(self, chunk: bytes, last: bool = False) -> None:
        """Inspect the next bytes; raises `NotData` as soon as they cannot be trips.

        A damaged file is hashed to its end, where `finish` raises, so that two copies of it can be compared.
        """
        self.size += len(chunk)
        self._sha256.update(chunk)
        if self._damage:
            return
        try:
            for text in self._reader.feed(chunk, last):
                self._counter.feed(text)
        except DamagedRaw as error:
            self._damage = error

    def finish(self, path: Path) -> InspectedFile:
        """The result, once every byte of the file at `path` was fed; raises `NotData` if the file is incomplete."""
        self.feed(b"", last=True)
        if self._damage:
            raise self._damage
        format = self._reader.format
        assert format is not None
        if format is Format.PARQUET:
            rows, plain = _parquet_rows(path), False
        else:
            rows, plain = self._counter.finish(), self._counter.plain
        return InspectedFile(format, rows, self.sha256, self.size, plain)


@contextmanager
def received(folder: Path, name: str) -> Iterator[Path]:
    """A temporary path in `folder` to write to; renamed to `name` at the end, removed if the block fails."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{name}.part"
    try:
        yield part
        part.replace(folder / name)
    finally:
        part.unlink(missing_ok=True)
