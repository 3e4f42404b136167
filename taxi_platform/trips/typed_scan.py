"""Reads a CSV month with one typed scan by DuckDB. A line that does not fit the types is refused, never converted.

A plain file (see `records.RecordCounter`) is scanned as it is. For any other file the scan reads an unpacked copy
without the header, so that a refused line can be located by its byte offset: DuckDB's line numbers are wrong if the
header's line end differs from the others, and so is its text if there are quotes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import duckdb

from taxi_platform.trips.casting import SourceColumn, literal
from taxi_platform.trips.contract import Column, Contract
from taxi_platform.trips.csv_reading import BATCH_BYTES, Record, split_fields
from taxi_platform.trips.formats import BOM, GZIP_MAGIC, decompressed
from taxi_platform.trips.records import MAX_LINE_BYTES

HEAD_BYTES = 64 << 10
SAMPLE_LINES = 500
ODD_VALUES = 1 / 250
"""The share of a sample that does not make a column text. Lines with odd values are refused instead: scanning times as
text takes several times as long."""
MAX_REFUSED_LINES = 50_000
MAX_REFUSALS = 2 * MAX_REFUSED_LINES
"""DuckDB stores one refusal for each value that does not fit, 2 kB each, beside its memory limit."""
RELIABLE_ERRORS = ("CAST", "MISSING COLUMNS", "TOO MANY COLUMNS")
"""The kinds of refusals for which DuckDB's position and text are reliable."""
MAX_QUOTED_CHARACTERS = 9_000
"""DuckDB cuts the text of a refused line at 10,000 characters, without saying so."""
TRIMMED_BY_DUCKDB = (b"\0", b"\t", b"\v", b"\f")
"""DuckDB ignores these around a timestamp; the careful reader does not."""
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", re.ASCII)
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)", re.ASCII)
ODD_NUMBER = re.compile(rb"[0-9.]_|_[0-9.]|\+-")
"""What DuckDB reads as a number and we do not: `1_000` as 1000, `+-1` as -1. See `casting.number_text`."""
SPACE_BEFORE_QUOTE = re.compile(rb'(?:\A|[,\n]) +"')


@dataclass
class TypedScan:
    """A relation over a CSV file whose columns have the types that its first lines suggest."""

    body: Path | None
    """The unpacked copy without the header; None if the published file itself is scanned."""
    sources: list[SourceColumn]
    relation: str
    lines: int
    """Physical lines after the header."""
    header_lines: int
    """Physical lines up to and including the header."""

    def refused(self, con: duckdb.DuckDBPyConnection, limit: int) -> list[Record] | None:
        """The records that the scan refused; None if there are more than `limit` or their place is not certain."""
        # No bound parameters in these queries: the first one makes DuckDB import pandas, half a second.
        return self._refused_in_plain_file(con, limit) if self.body is None else self._refused_in(self.body, con, limit)

    def _refused_in_plain_file(self, con: duckdb.DuckDBPyConnection, limit: int) -> list[Record] | None:
        """For a plain file, where DuckDB's own line number and text are right."""
        rows = con.execute(
            f"SELECT line, first(csv_line) FROM refused WHERE error_type IN {RELIABLE_ERRORS} "
            f"GROUP BY 1 ORDER BY 1 LIMIT {MAX_REFUSED_LINES + 1}"
        ).fetchall()
        if len(rows) > min(limit, MAX_REFUSED_LINES):
            return None
        if any(text is None or len(text) > MAX_QUOTED_CHARACTERS for _, text in rows):
            return None
        return [(line, text.strip("\r\n").encode()) for line, text in rows]

    def _refused_in(self, body: Path, con: duckdb.DuckDBPyConnection, limit: int) -> list[Record] | None:
        """For an unpacked copy, where the byte offset locates the line and must lead to the text DuckDB names.

        DuckDB counts bytes from 1, lets a line of a `\\r\\n` file begin with the `\\n` before it, and may name the
        wrong line if the error is about quotes or encoding.
        """
        rows = con.execute(
            "SELECT DISTINCT line_byte_position, encode(csv_line) FROM refused "
            f"WHERE error_type IN {RELIABLE_ERRORS} ORDER BY 1 LIMIT {MAX_REFUSED_LINES + 1}"
        ).fetchall()
        if len(rows) > min(limit, MAX_REFUSED_LINES):
            return None
        refused: list[Record] = []
        line, position, size = self.header_lines + 1, 0, 0
        with body.open("rb") as file:
            for byte, quoted in rows:
                if byte is None or byte <= position or quoted is None:
                    return None
                file.seek(position)
                newlines, before = _skip(file, byte - 1 - position)
                line, position = line + newlines, byte - 1
                text = file.readline()
                if text == b"\n":
                    before, line, position, text = text, line + 1, byte, file.readline()
                text = text.rstrip(b"\r\n")
                size += len(text)
                if before != b"\n" or size > BATCH_BYTES or quoted.strip(b"\r\n") != text:
                    return None
                if refused and refused[-1][0] == line:
                    return None
                refused.append((line, text))
        return refused


def _skip(file: BinaryIO, size: int) -> tuple[int, bytes]:
    """Read over `size` bytes: the newlines among them, and the last byte (`\\n` if there are none)."""
    newlines, last = 0, b"\n"
    while part := file.read(min(1 << 20, size)):
        size -= len(part)
        newlines += part.count(b"\n")
        last = part[-1:]
    return newlines, last


def typed_scan(path: Path, body: Path | None, names: Sequence[str], contract: Contract, rows: int) -> TypedScan | None:
    """The typed scan of the file at `path`, with the column names `names` and `rows` records.

    `body` is None for a plain file; any other file is unpacked to `body`, without its header. Returns None if only the
    careful reader can read the file.
    """
    mapping = contract.map_columns(names)
    mapped = sum(len(positions) for positions in mapping.sources.values())
    if len(mapping.unknown) + mapped < len(names):
        return None
    with path.open("rb") as file:
        chunks = decompressed(file)
        head = b""
        while len(head) < HEAD_BYTES and (chunk := next(chunks, b"")):
            head += chunk
        lines = [line + b"\n" for line in head[:HEAD_BYTES].split(b"\n")]  # not splitlines: `\r` alone ends no line
        if body is None:
            return _scan(path, None, names, contract, lines[1:], rows, 1)
        header = next((i for i, line in enumerate(lines) if line.strip()), len(lines))
        start = next((i for i, line in enumerate(lines) if i > header and line.strip()), len(lines))
        if (
            b"\n" not in head[:HEAD_BYTES]
            or start == len(lines)
            or lines[start].startswith(BOM)
            or (b'"' in lines[header] and b"\r" in lines[header].strip())
        ):
            return None
        header_bytes = sum(map(len, lines[:start]))
        with body.open("wb") as out:
            count = _unpack(chain([head[header_bytes:]], chunks), out)
    return None if count is None else _scan(body, body, names, contract, lines[start:], count, start)


def _unpack(chunks: Iterable[bytes], out: BinaryIO) -> int | None:
    """Write the text and count its lines; None if DuckDB would not read it as `records` does."""
    newlines, crlfs, last_byte = 0, 0, b""
    for block in _complete_lines(chunks):
        if _is_read_differently(block):
            return None
        newlines += block.count(b"\n")
        if b"\r" in block:
            pairs = block.count(b"\r\n")
            if pairs != block.count(b"\r"):
                return None
            crlfs += pairs
        last_byte = block[-1:]
        out.write(block)
    if crlfs not in (0, newlines):
        return None
    return newlines + (last_byte != b"\n")


def _complete_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes, cut only after newlines or inside an overlong line."""
    held = b""
    for chunk in chunks:
        end = chunk.rfind(b"\n") + 1
        if end or len(held) > MAX_LINE_BYTES:
            yield held + chunk[:end]
            held = b""
        held += chunk[end:]
    if held:
        yield held


def _is_read_differently(block: bytes) -> bool:
    """Whether DuckDB may read these lines differently from `records` and `split_fields`.

    That is so for spaces around quotes and control characters around timestamps, which DuckDB ignores, for numbers
    that it alone takes for numbers, and for overlong lines.
    """
    if (b"_" in block or b"+" in block) and ODD_NUMBER.search(block):
        return True
    if any(character in block for character in TRIMMED_BY_DUCKDB):
        return True
    if b'"' in block and (b'" ' in block or (b' "' in block and SPACE_BEFORE_QUOTE.search(block))):
        return True
    return len(block) > MAX_LINE_BYTES and max(map(len, block.splitlines())) > MAX_LINE_BYTES


def _scan(
    file: Path,
    body: Path | None,
    names: Sequence[str],
    contract: Contract,
    lines: Sequence[bytes],
    count: int,
    header_lines: int,
) -> TypedScan:
    """The scan of `file`, whose columns get the types that the first data `lines` suggest."""
    sample = [split_fields(line.decode("utf-8", "replace").rstrip("\r\n")) for line in lines[:SAMPLE_LINES]]
    targets = contract.only_sources(names)
    types = [
        _type(contract, targets.get(i), [fields[i] for fields in sample if i < len(fields)]) for i in range(len(names))
    ]
    columns = ", ".join(f"{literal(f'f{i}')}: {literal(type_)}" for i, type_ in enumerate(types))
    relation = (
        f"read_csv({literal(str(file))}, header = false, auto_detect = false, columns = {{{columns}}}, delim = ',', "
        f"skip = {0 if body else header_lines}, compression = '{_compression(file)}', "
        "quote = '\"', escape = '\"', timestampformat = '%Y-%m-%d %H:%M:%S', hive_partitioning = false, "
        "store_rejects = true, rejects_table = 'refused', rejects_scan = 'refused_scan', "
        f"rejects_limit = {MAX_REFUSALS})"
    )
    sources = [
        SourceColumn(name, type_, f"f{i}", by_format=True)
        for i, (name, type_) in enumerate(zip(names, types, strict=True))
    ]
    return TypedScan(body, sources, relation, count, header_lines)


def _compression(path: Path) -> str:
    with path.open("rb") as file:
        return "gzip" if file.read(2) == GZIP_MAGIC else "none"


def _type(contract: Contract, column: Column | None, sample: Sequence[str]) -> str:
    """The DuckDB type to scan a column as.

    Integers are scanned as DOUBLE, so that a fraction shows instead of being rounded. Flags in their modern spelling
    are scanned as ENUM, so that other spellings are refused and read with care, at no cost to the rest. A flag may be
    blank: high-volume months since 2021-07 have a space in three of four lines.
    """
    values = [value for value in sample if value.strip()]
    match column.type if column else "S":
        case "D":
            return "TIMESTAMP" if _nearly_all(TIMESTAMP.fullmatch, values) else "VARCHAR"
        case "S" if column and column.codes:
            blanks = [value for value in sample if value and not value.strip(" ")]
            spellings = dict.fromkeys([*map(str, contract.codes[column.codes].values()), *blanks])
            is_modern = _nearly_all(spellings.__contains__, values)
            return f"ENUM({', '.join(map(literal, spellings))})" if is_modern else "VARCHAR"
        case "I" if column and column.codes and not _nearly_all(NUMBER.fullmatch, values):
            return "VARCHAR"
        case "I" | "F":
            return "DOUBLE"
        case "M":
            return "DECIMAL(10,2)"
        case _:
            return "VARCHAR"


def _nearly_all(fits: Callable[[str], object], values: Sequence[str]) -> bool:
    return sum(not fits(value.strip()) for value in values) <= ODD_VALUES * len(values)
