"""File formats, recognised by their first bytes, and the text of a CSV or gzipped CSV file in bounded memory.

This module knows bytes only: `records.py` splits the text into records, `files.py` inspects a complete file.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from enum import StrEnum
from typing import BinaryIO

from taxi_platform.trips.errors import DamagedRaw, NotData

BOM = b"\xef\xbb\xbf"
GZIP_MAGIC = b"\x1f\x8b"
SNIFFED_BYTES = 512
BLOCK_BYTES = 64 << 10
"""The unit of reading and scanning: small enough for the CPU cache, large enough for numpy."""

MAX_TEXT_PER_STEP = 1 << 20
MAX_UNCOMPRESSED_BYTES = 16 << 30
MAX_COMPRESSION_RATIO = 200
RATIO_CHECKED_FROM_BYTES = 64 << 20
"""The ratio is ignored below this size. Trips compress five to tenfold, a file of zeros a thousandfold."""

DOWNLOAD_AGAIN = "Download it again. If the error persists, the published file is damaged."
OTHER_FORMATS = {
    b"PK\x03\x04": "a zip archive",
    b"PK\x05\x06": "a zip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"%PDF": "a PDF document",
    b"{": "a JSON document",
}
"""First bytes of formats that a source may serve by mistake."""


class Format(StrEnum):
    """The formats in which months are published."""

    CSV = "csv"
    GZIP = "csv.gz"
    PARQUET = "parquet"


def sniff(head: bytes) -> Format:
    """Recognise the format from a file's first bytes (512 are enough); raises `NotData` for any other format."""
    if not head:
        raise NotData("The file is empty.", DOWNLOAD_AGAIN)
    if head.startswith(b"PAR1"):
        return Format.PARQUET
    if head.startswith(GZIP_MAGIC):
        return Format.GZIP
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or head.count(0) * 4 > len(head):
        raise NotData("The file is not UTF-8; it looks like UTF-16.", "Save it as UTF-8.")
    text = head.removeprefix(BOM).lstrip()
    if text.startswith(b"<"):
        if code := re.search(rb"<Code>(\w+)</Code>", text):
            raise NotData(f"The file is an XML error message ({code[1].decode()}), not trips.", "Check the address.")
        raise NotData("The file is an HTML or XML page, not trips.", "Open the page; its text may explain why.")
    for magic, name in OTHER_FORMATS.items():
        if text.startswith(magic):
            raise NotData(f"The file is {name}, not trips.", "Publish it as CSV, gzipped CSV or Parquet.")
    return Format.CSV


class _GzipReader:
    """Decompresses gzip bytes in steps of at most 1 MiB of text: every member, and zero padding after any of them."""

    def __init__(self) -> None:
        self._member: zlib._Decompress | None = None
        self._bytes_in = 0
        self._bytes_out = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the text of `chunk`; raises `NotData` if it is corrupt or a decompression bomb."""
        self._bytes_in += len(chunk)
        while chunk or self._member:
            if not self._member:
                chunk = chunk.lstrip(b"\0")
                if not chunk:
                    return
                self._member = zlib.decompressobj(wbits=31)
            try:
                text = self._member.decompress(chunk, MAX_TEXT_PER_STEP)
            except zlib.error:
                raise DamagedRaw(
                    "The gzip file is corrupt, or its last member is followed by other bytes.", DOWNLOAD_AGAIN
                ) from None
            self._bytes_out += len(text)
            self._check_size()
            yield text
            if self._member.eof:
                chunk, self._member = self._member.unused_data, None
                continue
            chunk = self._member.unconsumed_tail
            if not chunk and len(text) < MAX_TEXT_PER_STEP:
                return

    def _check_size(self) -> None:
        ratio_limit = max(RATIO_CHECKED_FROM_BYTES, MAX_COMPRESSION_RATIO * self._bytes_in)
        if self._bytes_out > min(ratio_limit, MAX_UNCOMPRESSED_BYTES):
            raise NotData(
                f"The gzip file looks like a decompression bomb: {self._bytes_in:,} bytes became {self._bytes_out:,}.",
                f"The limits are {MAX_UNCOMPRESSED_BYTES >> 30} GiB and {MAX_COMPRESSION_RATIO} times its size.",
            )

    def finish(self) -> None:
        """Raise `NotData` if the last member is incomplete."""
        if self._member:
            raise DamagedRaw("The gzip file is truncated.", DOWNLOAD_AGAIN)


class TextReader:
    """Turns a file's bytes into its text, chunk by chunk, without the byte order mark; Parquet yields no text.

    `format` is None until the first 512 bytes, or the end of the file, were fed.
    """

    def __init__(self, inside_gzip: bool = False) -> None:
        self.format: Format | None = None
        self._inside_gzip = inside_gzip
        self._head = b""

    def feed(self, chunk: bytes, last: bool = False) -> Iterator[bytes]:
        """Yield the text of `chunk`; raises `NotData` as soon as the bytes cannot be trips."""
        if self.format is None:
            self._head += chunk
            if len(self._head) < SNIFFED_BYTES and not last:
                return
            chunk = self._head
            self._recognise_format()
            if self.format is Format.CSV:
                chunk = chunk.removeprefix(BOM)
        if self.format is Format.CSV:
            yield chunk
        elif self.format is Format.GZIP:
            yield from self._decompress(chunk, last)

    def _recognise_format(self) -> None:
        self.format = sniff(self._head[:SNIFFED_BYTES])
        if self._inside_gzip and self.format is not Format.CSV:
            raise NotData(f"The gzip file contains {self.format}, not CSV.", "Publish it without the outer gzip.")
        if self.format is Format.GZIP:
            self._gzip, self._text = _GzipReader(), TextReader(inside_gzip=True)

    def _decompress(self, chunk: bytes, last: bool) -> Iterator[bytes]:
        # In small steps, because zlib copies the rest of the chunk at the end of each gzip member.
        for start in range(0, len(chunk), BLOCK_BYTES):
            for text in self._gzip.feed(chunk[start : start + BLOCK_BYTES]):
                yield from self._text.feed(text)
        if last:
            self._gzip.finish()
            yield from self._text.feed(b"", last=True)


def decompressed(file: BinaryIO) -> Iterator[bytes]:
    """The text of a CSV or gzipped CSV file (none for Parquet), without byte order mark, in bounded memory.

    Raises `NotData` for other formats and for gzip files that are truncated, corrupt, decompression bombs or followed
    by other bytes.
    """
    reader = TextReader()
    for chunk in chunks_of(file):
        yield from reader.feed(chunk)
    yield from reader.feed(b"", last=True)


def chunks_of(file: BinaryIO) -> Iterator[bytes]:
    """The rest of an open file, 64 KiB at a time."""
    while chunk := file.read(BLOCK_BYTES):
        yield chunk
