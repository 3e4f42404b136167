"""Records of a CSV file: how its text is split into them, and how they are counted while the file is fetched.

A record is one physical line, or several where a well-formed quoted field contains the newlines. This is the only
definition of it: `records` yields them, `RecordCounter` counts the same ones at the speed of a memory scan.

- Lines end in `\\n` or `\\r\\n`, or in `\\r` if the first 64 KiB contain no `\\n`. The last line end may be missing.
- Blank lines (only spaces) are not records; lines of only commas are. The first record is the header.
- A quote opens a quoted field only at the very start of the field; `""` is an escaped quote inside it; a comma or a
  line end follows the closing quote. Where that is violated, or a record would exceed 100 lines or 1 MiB, its first
  line is a record of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain

from taxi_platform.trips.errors import NotData
from taxi_platform.trips.formats import BLOCK_BYTES, BOM, DOWNLOAD_AGAIN

MAX_LINE_BYTES = 1 << 20
MAX_RECORD_LINES = 100
LINE_END_SAMPLE_BYTES = 64 << 10
"""Line ends are taken to be `\\r` if this much of the text contains no `\\n`."""
NEVER_PLAIN = (b'"', b"\0", b"\t", b"\v", b"\f")
NEVER_PLAIN_AFTER_HEADER = (b"_", b"+")
"""Column names often have `_`. In a number DuckDB skips it, and it takes `+-1` for -1: see `typed_scan.ODD_NUMBER`."""

_FIELD = rb'(?:"(?:[^"]++|"")*+"|(?!")[^,\n]*+)'
_ONE_LINE_FIELD = rb'(?:"(?:[^"\n]++|"")*+"|(?!")[^,\n]*+)'
_OPEN_QUOTE = re.compile(rb'(?:%b,)*+"(?:[^"]++|"")*+\Z' % _FIELD)
_RECORD = re.compile(rb"(?:%b,)*+%b\r?\n" % (_FIELD, _FIELD))
_ONE_LINE_RECORDS = re.compile(
    # Not blank, and either without quotes, or with every field quoted, or mixed. The third alternative covers the
    # first two, which are faster.
    rb'(?:(?![ \r\n])(?:[^"\n]*+\n|(?:"[^"\n]*+",)*+"[^"\n]*+"\r?\n|(?:%b,)*+%b\r?\n))*+'
    % (_ONE_LINE_FIELD, _ONE_LINE_FIELD)
)


def _count_one_line_records(block: bytes) -> int:
    """The number of lines in a block of complete lines if each is certainly one record, otherwise 0.

    Certain means: no line begins with a space or is blank, quotes pair up within their line, and the first quote of
    each pair is at the start of a field or follows another quote (the second half of an escaped `""`).
    Scans about 1 GB/s; `_ONE_LINE_RECORDS` a tenth of that.
    """
    import numpy as np

    text = np.frombuffer(b"\n" + block, np.uint8)
    if b'"' in block:
        marks = np.flatnonzero((text == ord('"')) | (text == ord("\n")))
        is_quote = text[marks] == ord('"')
        quotes, newlines = np.flatnonzero(is_quote), marks[~is_quote]
        opening, closing = quotes[0::2], quotes[1::2]
        if len(opening) != len(closing) or (closing != opening + 1).any():
            return 0
        before = text[marks[opening] - 1]
        if not ((before == ord(",")) | (before == ord("\n")) | (before == ord('"'))).all():
            return 0
    else:
        newlines = np.flatnonzero(text == ord("\n"))
    starts_blank = (text[newlines[:-1] + 1] <= ord(" ")).any()
    return 0 if starts_blank else len(newlines) - 1


def _record_end(text: bytes, start: int, lines_end: int, last: bool) -> int:
    """The end of the record that begins at `start`, including its line end; 0 if more text is needed to know.

    `text[:lines_end]` are complete lines; `last` means that no text follows. The time stays linear whatever the file
    contains: an open quote makes it look ahead only to the next line with an odd number of quotes, which decides.
    """
    first_line_end = text.index(b"\n", start) + 1
    if first_line_end - start > MAX_LINE_BYTES or text.find(b'"', start, first_line_end) < 0:
        return first_line_end
    if not _OPEN_QUOTE.match(text, start, first_line_end):
        return first_line_end
    if record := _RECORD.match(text, start, min(lines_end, start + MAX_LINE_BYTES)):
        within_limit = text.count(b"\n", start, record.end()) <= MAX_RECORD_LINES
        return record.end() if within_limit else first_line_end
    reached_limit = len(text) - start >= MAX_LINE_BYTES or text.count(b"\n", start, lines_end) >= MAX_RECORD_LINES
    if last or reached_limit or not _OPEN_QUOTE.match(text, start, lines_end):
        return first_line_end
    return 0


class _Splitter:
    """Splits text, fed in chunks, into blocks `(line, block, count)`: `count` records of one line each, or one record.

    `line` is the 1-based line on which the block begins; blocks end in `\\n`. In a file whose lines end in `\\r` every
    `\\r` becomes `\\n`, also inside quoted fields. Holds about 1 MiB at most: bytes of a line beyond
    `MAX_LINE_BYTES + 2` are dropped.
    """

    def __init__(self) -> None:
        self._head: bytes | None = b""
        """Text read before the kind of line end is known; None afterwards."""
        self._lines_end_in_cr = False
        self._pending_cr = b""
        """A `\\r` at the end of a chunk, held back because `\\n` may follow."""
        self._rest = b""
        """The incomplete record at the end of the text so far."""
        self._skipping = False
        """Whether the rest of an overlong line is being dropped."""
        self._line = 1

    def feed(self, chunk: bytes, last: bool = False) -> Iterator[tuple[int, bytes, int]]:
        """Yield the blocks that `chunk` completes; `last` ends the text."""
        if self._head is not None:
            self._head += chunk
            self._lines_end_in_cr = b"\n" not in self._head[:LINE_END_SAMPLE_BYTES]
            if self._lines_end_in_cr and len(self._head) < LINE_END_SAMPLE_BYTES and not last:
                return
            chunk, self._head = self._head.removeprefix(BOM), None
        if self._lines_end_in_cr:
            chunk = self._with_newlines(chunk, last)
        for start in range(0, len(chunk), BLOCK_BYTES):
            yield from self._split(chunk[start : start + BLOCK_BYTES], last=False)
        if last:
            yield from self._split(b"", last=True)

    def _with_newlines(self, chunk: bytes, last: bool) -> bytes:
        chunk, self._pending_cr = self._pending_cr + chunk, b""
        if chunk.endswith(b"\r") and not last:
            chunk, self._pending_cr = chunk[:-1], b"\r"
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _split(self, chunk: bytes, last: bool) -> Iterator[tuple[int, bytes, int]]:
        if self._skipping and not last:
            line_end = chunk.find(b"\n")
            if line_end < 0:
                return
            chunk, self._skipping = chunk[line_end:], False
        text = self._rest + chunk
        if last and text and not text.endswith(b"\n"):
            text += b"\n"
        lines_end = text.rfind(b"\n") + 1
        start = 0
        if count := _count_one_line_records(text[:lines_end]):
            yield self._line, text[:lines_end], count
            self._line, start = self._line + count, lines_end
        while start < lines_end:
            one_line_records = _ONE_LINE_RECORDS.match(text, start, lines_end)
            end = one_line_records.end() if one_line_records else start
            if lines := text.count(b"\n", start, end):
                yield self._line, text[start:end], lines
            elif end := _record_end(text, start, lines_end, last):
                lines = text.count(b"\n", start, end)
                is_blank = end - start <= MAX_LINE_BYTES and not text[start:end].strip(b" \r\n")
                if not is_blank:
                    yield self._line, text[start:end], 1
            else:
                break
            self._line, start = self._line + lines, end
        self._rest = text[start:]
        if len(self._rest) >= MAX_LINE_BYTES + 2:
            self._rest, self._skipping = self._rest[: MAX_LINE_BYTES + 2], True


def records(chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield every record, the header first: the 1-based line on which it begins, and its bytes without the line end.

    A line longer than `MAX_LINE_BYTES` is cut one byte beyond that.
    """
    splitter = _Splitter()
    for chunk, last in chain(((chunk, False) for chunk in chunks), [(b"", True)]):
        for line, block, count in splitter.feed(chunk, last):
            block_records = [block[:-1]] if count == 1 else block[:-1].split(b"\n")
            for offset, record in enumerate(block_records):
                yield line + offset, record.removesuffix(b"\r")[: MAX_LINE_BYTES + 1]


class RecordCounter:
    """Counts the records after the header; fed with the text (decompressed bytes) chunk by chunk.

    It also decides whether the text is `plain`: ASCII, one line per record, one kind of line end, no quotes, control
    characters or blank lines, no overlong lines, no underscore or plus after the header. Every CSV reader reads such a
    file, nearly every one since 2019, the same way.
    """

    def __init__(self) -> None:
        self._splitter = _Splitter()
        self._records = 0
        self._plain = True
        self._newlines = self._carriage_returns = self._crlfs = 0
        self._in_body = False
        """Whether the first line, the header, has ended."""
        self._open_line_bytes = 0
        """Length of the line that the last chunk left open."""
        self._last_byte = b""

    def feed(self, chunk: bytes, last: bool = False) -> None:
        """Count the records that `chunk` completes."""
        self._records += sum(count for _, _, count in self._splitter.feed(chunk, last))
        if self._plain and chunk:
            self._look_for_exceptions(chunk)

    def _look_for_exceptions(self, chunk: bytes) -> None:
        self._newlines += chunk.count(b"\n")
        self._carriage_returns += chunk.count(b"\r")
        crlf_across_chunks = self._last_byte == b"\r" and chunk.startswith(b"\n")
        self._crlfs += chunk.count(b"\r\n") + crlf_across_chunks
        self._last_byte = chunk[-1:]
        first_newline, last_newline = chunk.find(b"\n"), chunk.rfind(b"\n")
        self._open_line_bytes += len(chunk) if first_newline < 0 else first_newline
        longest = max(map(len, chunk.split(b"\n"))) if len(chunk) > MAX_LINE_BYTES else 0
        longest = max(self._open_line_bytes, longest)
        if first_newline >= 0:
            self._open_line_bytes = len(chunk) - last_newline - 1
        body = 0 if self._in_body else first_newline + 1 if first_newline >= 0 else len(chunk)
        self._in_body = self._in_body or first_newline >= 0
        self._plain = (
            chunk.isascii()
            and not any(odd in chunk for odd in NEVER_PLAIN)
            and all(chunk.find(odd, body) < 0 for odd in NEVER_PLAIN_AFTER_HEADER)
            and longest <= MAX_LINE_BYTES
        )

    @property
    def plain(self) -> bool:
        """Whether the whole text is plain; valid after `finish`."""
        lines = self._newlines + (self._last_byte != b"\n")
        one_kind_of_line_end = self._carriage_returns == self._crlfs and self._crlfs in (0, self._newlines)
        return self._plain and lines == self._records and one_kind_of_line_end

    def finish(self) -> int:
        """The number of records without the header; raises `NotData` if there is no header."""
        self.feed(b"", last=True)
        if not self._records:
            raise NotData("The file contains only blank lines.", DOWNLOAD_AGAIN)
        return self._records - 1
