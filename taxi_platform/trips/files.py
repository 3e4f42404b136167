"""Files as bytes: what they are by their first bytes, and how many records they hold, in one bounded pass.

A record of a CSV file is one physical line, or several where a well-formed quoted field holds the newlines. This is
the one definition of it: `records` gives them, `RecordCounter` counts the same ones at the speed of a memory scan.

- Lines end in `\\n` or `\\r\\n`; also in `\\r` where the first 64 KiB hold no `\\n`. The last line end may be missing.
- Blank lines (nothing but spaces) are no records; lines of only commas are. The first record is the header.
- A quote opens a quoted field at the field's very start only; `""` escapes one inside; the closing quote is followed by
  a comma or a line end. A record that breaks this, or that runs past 100 lines or 1 MiB, is its first line alone.
"""

from __future__ import annotations

import hashlib
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from taxi_platform.trips.errors import NotData

MAX_LINE_BYTES = 1 << 20
MAX_RECORD_LINES = 100
MAX_COLUMNS = 1000
MAX_UNCOMPRESSED_BYTES = 16 << 30
MAX_RATIO, RATIO_COUNTS_FROM = 200, 64 << 20
"""Trips compress five to tenfold; a file of zeros a thousandfold."""
MAX_FOOTER_BYTES, MAX_PARQUET_ROWS = 8 << 20, 250_000_000
"""Of a Parquet file, where a billion equal rows take 4 MB. The largest month has 24 million rows; the footer takes six
times its size in memory."""

BOM = b"\xef\xbb\xbf"
SNIFFED_BYTES = 512
LINE_ENDS_SEEN_WITHIN = 64 << 10
BLOCK_BYTES = 64 << 10
"""What is read and scanned at once: small enough for the cache, large enough for numpy."""

AGAIN = "Download it again; if it stays so, the published file is damaged."
FOREIGN = {
    b"PK\x03\x04": "a zip archive",
    b"PK\x05\x06": "a zip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"%PDF": "a PDF document",
    b"{": "a JSON document",
}


class Format(StrEnum):
    """What a published file can be."""

    CSV = "csv"
    GZIP = "csv.gz"
    PARQUET = "parquet"


def sniff(head: bytes) -> Format:
    """Tell the format by a file's first bytes (512 are enough); raises `NotData` for what cannot be trips."""
    if not head:
        raise NotData("The file is empty.", AGAIN)
    if head.startswith(b"PAR1"):
        return Format.PARQUET
    if head.startswith(b"\x1f\x8b"):
        return Format.GZIP
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or head.count(0) * 4 > len(head):
        raise NotData("The file is not UTF-8; it looks like UTF-16.", "Save it as UTF-8.")
    text = head.removeprefix(BOM).lstrip()
    if text.startswith(b"<"):
        if code := re.search(rb"<Code>(\w+)</Code>", text):
            raise NotData(f"The file is an XML error message ({code[1].decode()}), not trips.", "Check the address.")
        raise NotData("The file is an HTML or XML page, not trips.", "Look at it: its text may say why.")
    for magic, name in FOREIGN.items():
        if text.startswith(magic):
            raise NotData(f"The file is {name}, not trips.", "Publish it as CSV, gzipped CSV or Parquet.")
    return Format.CSV


_FIELD = rb'(?:"(?:[^"]++|"")*+"|(?!")[^,\n]*+)'
_OPEN = re.compile(rb'(?:%b,)*+"(?:[^"]++|"")*+\Z' % _FIELD)
_RECORD = re.compile(rb"(?:%b,)*+%b\r?\n" % (_FIELD, _FIELD))
_SHORT = _FIELD.replace(rb'[^"]', rb'[^"\n]')
_LINES = re.compile(
    # Lines that are one record each: without quotes, all quoted, mixed; the first two for speed.
    rb'(?:(?![ \r\n])(?:[^"\n]*+\n|(?:"[^"\n]*+",)*+"[^"\n]*+"\r?\n|(?:%b,)*+%b\r?\n))*+' % (_SHORT, _SHORT)
)


def _plain_lines(block: bytes) -> int:
    """The number of lines in a block of whole lines that are plainly one record each; 0 when in doubt.

    They are where no line is blank, quotes pair up within lines, and each first of a pair stands at a field's start
    or, as the second of an escaped `""`, behind another quote. Scans about 1 GB/s, `_LINES` a tenth of that.
    """
    text = np.frombuffer(b"\n" + block, np.uint8)
    if b'"' in block:
        marks = np.flatnonzero((text == ord('"')) | (text == ord("\n")))
        is_quote = text[marks] == ord('"')
        quotes, newlines = np.flatnonzero(is_quote), marks[~is_quote]
        first, second = quotes[0::2], quotes[1::2]
        if len(first) != len(second) or (second != first + 1).any():
            return 0
        before = text[marks[first] - 1]
        if not ((before == ord(",")) | (before == ord("\n")) | (before == ord('"'))).all():
            return 0
    else:
        newlines = np.flatnonzero(text == ord("\n"))
    return 0 if (text[newlines[:-1] + 1] <= ord(" ")).any() else len(newlines) - 1


def _record_end(buffer: bytes, start: int, whole: int, last: bool) -> int:
    """Where the record from `start` ends, its line end included; 0 if that takes more bytes than there are.

    `buffer[:whole]` is whole lines. A quote left open costs one look at the lines up to the next line with an odd
    number of quotes, where it is decided; so the time stays linear whatever the file holds.
    """
    end = buffer.index(b"\n", start) + 1
    if end - start > MAX_LINE_BYTES or buffer.find(b'"', start, end) < 0 or not _OPEN.match(buffer, start, end):
        return end
    if record := _RECORD.match(buffer, start, min(whole, start + MAX_LINE_BYTES)):
        return record.end() if buffer.count(b"\n", start, record.end()) <= MAX_RECORD_LINES else end
    known = last or len(buffer) - start >= MAX_LINE_BYTES or buffer.count(b"\n", start, whole) >= MAX_RECORD_LINES
    return end if known or not _OPEN.match(buffer, start, whole) else 0


class _Splitter:
    """Chunks in, blocks out: `(line, block, count)`, where a block is one record or `count` records, one per line.

    Blocks end in `\\n`. In a file of `\\r` line ends all of them, also in quoted fields, come out as `\\n`. Holds at
    most about 1 MiB: what a line has beyond `MAX_LINE_BYTES + 2` is dropped on the way.
    """

    def __init__(self) -> None:
        self._head: bytes | None = b""
        self._cr_only = False
        self._held = b""
        self._tail = b""
        self._skipping = False
        self._line = 1

    def feed(self, chunk: bytes, last: bool = False) -> Iterator[tuple[int, bytes, int]]:
        if self._head is not None:
            self._head += chunk
            self._cr_only = b"\n" not in self._head[:LINE_ENDS_SEEN_WITHIN]
            if self._cr_only and len(self._head) < LINE_ENDS_SEEN_WITHIN and not last:
                return
            chunk, self._head = self._head.removeprefix(BOM), None
        if self._cr_only:
            chunk, self._held = self._held + chunk, b""
            if chunk.endswith(b"\r") and not last:
                chunk, self._held = chunk[:-1], b"\r"
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        for start in range(0, len(chunk), BLOCK_BYTES):
            yield from self._split(chunk[start : start + BLOCK_BYTES], last=False)
        if last:
            yield from self._split(b"", last=True)

    def _split(self, chunk: bytes, last: bool) -> Iterator[tuple[int, bytes, int]]:
        if self._skipping and not last:
            if (end := chunk.find(b"\n")) < 0:
                return
            chunk, self._skipping = chunk[end:], False
        buffer = self._tail + chunk
        if last and buffer and not buffer.endswith(b"\n"):
            buffer += b"\n"
        whole = buffer.rfind(b"\n") + 1
        start = 0
        if count := _plain_lines(buffer[:whole]):
            yield self._line, buffer[:whole], count
            self._line, start = self._line + count, whole
        while start < whole:
            lines = _LINES.match(buffer, start, whole)
            end = lines.end() if lines else start
            if count := buffer.count(b"\n", start, end):
                yield self._line, buffer[start:end], count
            elif end := _record_end(buffer, start, whole, last):
                count = buffer.count(b"\n", start, end)
                if end - start > MAX_LINE_BYTES or buffer[start:end].strip(b" \r\n"):
                    yield self._line, buffer[start:end], 1
            else:
                break
            self._line, start = self._line + count, end
        self._tail = buffer[start:]
        if len(self._tail) >= MAX_LINE_BYTES + 2:
            self._tail, self._skipping = self._tail[: MAX_LINE_BYTES + 2], True


def records(chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield every record, the header first: its 1-based first line and its bytes without the line end.

    A line longer than `MAX_LINE_BYTES` comes cut to one byte more than that.
    """
    splitter = _Splitter()
    for chunk, last in chain(((chunk, False) for chunk in chunks), [(b"", True)]):
        for line, block, count in splitter.feed(chunk, last):
            for offset, record in enumerate([block[:-1]] if count == 1 else block[:-1].split(b"\n")):
                yield line + offset, record.removesuffix(b"\r")[: MAX_LINE_BYTES + 1]


class RecordCounter:
    """Counts the records behind the header, fed chunk by chunk with text (decompressed bytes).

    Tells besides whether the file is `plain`: ASCII, one line a record, one kind of line end, no quotes, no odd blanks,
    no overlong lines. Such a file, nearly every one since 2019, any CSV reader reads the same way.
    """

    def __init__(self) -> None:
        self._splitter = _Splitter()
        self._records = 0
        self._plain = True
        self._newlines = self._returns = self._pairs = self._open = 0
        self._end = b""

    def feed(self, chunk: bytes, last: bool = False) -> None:
        self._records += sum(count for _, _, count in self._splitter.feed(chunk, last))
        if self._plain and chunk:
            self._plain = chunk.isascii() and not any(odd in chunk for odd in (b'"', b"\0", b"\t", b"\v", b"\f"))
            self._newlines += chunk.count(b"\n")
            self._returns += chunk.count(b"\r")
            self._pairs += chunk.count(b"\r\n") + (self._end == b"\r" and chunk[:1] == b"\n")
            self._end = chunk[-1:]
            first, last_newline = chunk.find(b"\n"), chunk.rfind(b"\n")
            self._open += len(chunk) if first < 0 else first
            longest = max(map(len, chunk.split(b"\n"))) if len(chunk) > MAX_LINE_BYTES else 0
            self._plain &= max(self._open, longest) <= MAX_LINE_BYTES
            self._open = self._open if first < 0 else len(chunk) - last_newline - 1

    @property
    def plain(self) -> bool:
        """Whether the whole file is plain, once `finish` was called."""
        lines = self._newlines + (self._end != b"\n")
        return self._plain and lines == self._records and self._returns == self._pairs in (0, self._newlines)

    def finish(self) -> int:
        """The number of records without the header; raises `NotData` where there is not even a header."""
        self.feed(b"", last=True)
        if not self._records:
            raise NotData("The file holds nothing but blank lines.", AGAIN)
        return self._records - 1


class _Gunzip:
    """Gzip bytes in, plain bytes out, at most 1 MiB at a time; every member is read, also zeros behind the last."""

    def __init__(self) -> None:
        self._member: zlib._Decompress | None = None
        self._read = self._written = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        self._read += len(chunk)
        while chunk or self._member:
            if not self._member:
                if not (chunk := chunk.lstrip(b"\0")):
                    return
                self._member = zlib.decompressobj(wbits=31)
            try:
                text = self._member.decompress(chunk, 1 << 20)
            except zlib.error:
                raise NotData("The gzip file is corrupt, or something follows its end.", AGAIN) from None
            self._written += len(text)
            too_dense = self._written > max(RATIO_COUNTS_FROM, MAX_RATIO * self._read)
            if too_dense or self._written > MAX_UNCOMPRESSED_BYTES:
                raise NotData(
                    f"The gzip file looks like a decompression bomb: {self._read:,} bytes became {self._written:,}.",
                    f"At most {MAX_UNCOMPRESSED_BYTES >> 30} GiB and {MAX_RATIO} times its size are read.",
                )
            yield text
            if self._member.eof:
                chunk, self._member = self._member.unused_data, None
            elif not (chunk := self._member.unconsumed_tail) and len(text) < 1 << 20:
                return

    def finish(self) -> None:
        if self._member:
            raise NotData("The gzip file is cut off.", AGAIN)


class _Unpacker:
    """A published file's bytes in, its text out without byte order mark (nothing for Parquet); `format` once known."""

    def __init__(self, inside_gzip: bool = False) -> None:
        self.format: Format | None = None
        self._inside_gzip = inside_gzip
        self._head = b""

    def feed(self, chunk: bytes, last: bool = False) -> Iterator[bytes]:
        if self.format is None:
            self._head += chunk
            if len(self._head) < SNIFFED_BYTES and not last:
                return
            self.format, chunk = sniff(self._head[:SNIFFED_BYTES]), self._head
            if self._inside_gzip and self.format is not Format.CSV:
                raise NotData(f"The gzip file holds {self.format}, not CSV.", "Publish it without the outer gzip.")
            if self.format is Format.GZIP:
                self._gunzip, self._inner = _Gunzip(), _Unpacker(inside_gzip=True)
            elif self.format is Format.CSV:
                chunk = chunk.removeprefix(BOM)
        if self.format is Format.CSV:
            yield chunk
        elif self.format is Format.GZIP:
            # In steps, because what is left of a chunk is copied at the end of each gzip member.
            for start in range(0, len(chunk), BLOCK_BYTES):
                for text in self._gunzip.feed(chunk[start : start + BLOCK_BYTES]):
                    yield from self._inner.feed(text)
            if last:
                self._gunzip.finish()
                yield from self._inner.feed(b"", last=True)


def chunks_of(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(BLOCK_BYTES):
        yield chunk


def decompressed(file: BinaryIO) -> Iterator[bytes]:
    """The text of a CSV or gzipped CSV file (nothing of a Parquet file), without byte order mark, in bounded memory.

    Raises `NotData` for what is no CSV and for a gzip file that is cut, corrupt, followed by garbage or a bomb.
    """
    unpacker = _Unpacker()
    for chunk in chunks_of(file):
        yield from unpacker.feed(chunk)
    yield from unpacker.feed(b"", last=True)


class VerifiedFile(NamedTuple):
    format: Format
    rows: int
    plain: bool = False


class InspectedFile(NamedTuple):
    format: Format
    rows: int
    sha256: str
    size: int
    plain: bool = False


def verify(path: Path) -> VerifiedFile:
    """Format and rows of a file, its whole text or its Parquet footer read; raises `NotData`."""
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
            raise NotData(f"The Parquet file's footer has {footer:,} bytes.", f"At most {MAX_FOOTER_BYTES:,} are read.")
        metadata = pq.read_metadata(path)
        in_groups = sum(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise NotData(f"The Parquet file's footer cannot be read ({type(error).__name__}).", AGAIN) from error
    if metadata.num_columns > MAX_COLUMNS or in_groups > MAX_PARQUET_ROWS:
        raise NotData(
            f"The Parquet file has {metadata.num_columns:,} columns and {in_groups:,} rows.",
            f"At most {MAX_COLUMNS:,} columns and {MAX_PARQUET_ROWS:,} rows are read.",
        )
    if in_groups != metadata.num_rows:
        raise NotData("The Parquet file's row groups are not what its footer says.", AGAIN)
    return in_groups


class Inspector:
    """Format, rows, size and sha256 of a file, found while its bytes pass by; `feed` raises `NotData` at once."""

    def __init__(self) -> None:
        self.size = 0
        self._sha256 = hashlib.sha256()
        self._unpacker = _Unpacker()
        self._counter = RecordCounter()

    def feed(self, chunk: bytes, last: bool = False) -> None:
        self.size += len(chunk)
        self._sha256.update(chunk)
        for text in self._unpacker.feed(chunk, last):
            self._counter.feed(text)

    def finish(self, path: Path) -> InspectedFile:
        """All findings, once every byte of the file now at `path` has been fed."""
        self.feed(b"", last=True)
        format = self._unpacker.format
        assert format is not None
        rows = _parquet_rows(path) if format is Format.PARQUET else self._counter.finish()
        plain = format is not Format.PARQUET and self._counter.plain
        return InspectedFile(format, rows, self._sha256.hexdigest(), self.size, plain)


@contextmanager
def received(folder: Path, name: str) -> Iterator[Path]:
    """A path in `folder` to write a file to: named `name` after the block, gone if the block fails."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{name}.part"
    try:
        yield part
        part.replace(folder / name)
    finally:
        part.unlink(missing_ok=True)
