"""Two ways to read a CSV month: one typed scan by DuckDB, and record by record with the line and text of each.

The typed scan reads an unpacked copy of the file without its header, so that what DuckDB refuses can be found again by
its byte offset: DuckDB's own line numbers are wrong where a header's line end differs from the rows'.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import duckdb
import pyarrow as pa

from taxi_platform.trips.casting import SourceColumn, literal
from taxi_platform.trips.contract import Column, Contract
from taxi_platform.trips.errors import NotData
from taxi_platform.trips.files import MAX_LINE_BYTES, decompressed, records

Record = tuple[int, bytes]
"""The physical line a record starts on (the header's is 1), and its bytes without the line end."""

Unreadable = tuple[str, int, str]
"""Reason, line and text of a record that does not even fall into fields."""

HEAD_BYTES = 1 << 16
SAMPLE_LINES = 500
BATCH_RECORDS = 20_000
MAX_REFUSED = 50_000
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", re.ASCII)
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)", re.ASCII)
QUOTED = re.compile(r'"([^"]*(?:""[^"]*)*)"(?=,|\Z)')


def header(path: Path) -> list[str]:
    """The published column names; raises `NotData` where the first line is none."""
    with path.open("rb") as file:
        _, first = next(records(decompressed(file)), (0, b""))
    try:
        names = split_fields(first.decode())
    except UnicodeDecodeError:
        names = []
    if not any(name.strip() for name in names):
        raise NotData(f"{path.name} does not begin with a line of column names.", "Check what the source serves.")
    return names


def split_fields(line: str) -> list[str]:
    """The fields of one record (RFC 4180); a quote that does not close its field properly is taken literally."""
    if '"' not in line:
        return line.split(",")
    fields, position = [], 0
    while True:
        if quoted := QUOTED.match(line, position):
            field, end = quoted[1].replace('""', '"'), quoted.end()
        else:
            end = line.find(",", position)
            end = len(line) if end < 0 else end
            field = line[position:end]
        fields.append(field)
        if end >= len(line):
            return fields
        position = end + 1


def all_records(path: Path) -> Iterator[Record]:
    """Every record after the header."""
    with path.open("rb") as file:
        yield from islice(records(decompressed(file)), 1, None)


def batches(found: Iterator[Record], width: int) -> Iterator[tuple[pa.Table, list[Unreadable]]]:
    """Records as Arrow tables with columns f0 … (text), line, text, beside those that are unreadable.

    Surplus fields are dropped where they are empty, as the TLC's files of 2013 to 2016 have them. Yields at least once.
    """
    schema = pa.schema([*((f"f{i}", pa.string()) for i in range(width)), ("line", pa.int64()), ("text", pa.string())])
    first = True
    while chunk := list(islice(found, BATCH_RECORDS)) or first:
        rows, unreadable = [], []
        for line, raw in chunk if isinstance(chunk, list) else ():
            fields_or_reason, text = _read(raw, width)
            if isinstance(fields_or_reason, str):
                unreadable.append((fields_or_reason, line, text))
            else:
                rows.append((*fields_or_reason, line, text))
        columns = list(zip(*rows, strict=True)) or [()] * len(schema)
        yield pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema), unreadable
        first = False


def _read(raw: bytes, width: int) -> tuple[list[str] | str, str]:
    """A record's fields, or the reason why it has none; and its text."""
    if len(raw) > MAX_LINE_BYTES:
        return "line_too_long", raw[:1000].decode("utf-8", "backslashreplace").replace("\0", "\\x00") + "…"
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return "invalid_encoding", raw.decode("utf-8", "backslashreplace").replace("\0", "\\x00")
    if "\0" in text:
        return "nul_byte", text.replace("\0", "\\x00")
    fields = split_fields(text)
    if len(fields) < width:
        return "too_few_fields", text
    if len(fields) > width and any(fields[width:]):
        return "too_many_fields", text
    return fields[:width], text


@dataclass
class TypedScan:
    """A relation over the unpacked body of a CSV file, typed as its first lines suggest.

    `lines` is the number of physical lines in the body. Anything the types do not fit is refused, never bent.
    """

    body: Path
    sources: list[SourceColumn]
    relation: str
    lines: int
    lines_before: int

    def refused(self, con: duckdb.DuckDBPyConnection, limit: int) -> list[Record] | None:
        """The records the scan refused; None where they are more than `limit` or cannot be told for certain."""
        rows = con.execute(
            "SELECT DISTINCT line_byte_position FROM refused WHERE error_type <> 'INVALID ENCODING' ORDER BY 1 LIMIT ?",
            [MAX_REFUSED + 1],
        ).fetchall()
        offsets = [offset for (offset,) in rows]
        if len(offsets) > min(limit, MAX_REFUSED) or None in offsets:
            return None
        found, line, position = [], self.lines_before + 1, 0
        with self.body.open("rb") as file:
            for offset in offsets:
                file.seek(position)
                while position < offset:
                    part = file.read(min(1 << 20, offset - position))
                    line += part.count(b"\n")
                    position += len(part)
                    begins_a_line = part.endswith(b"\n")
                if offset and not begins_a_line:
                    return None
                found.append((line, file.readline().rstrip(b"\r\n")))
        return found


def typed_scan(
    con: duckdb.DuckDBPyConnection, path: Path, body: Path, names: Sequence[str], contract: Contract
) -> TypedScan | None:
    """Unpack `path` into `body` and prepare its typed scan; None where only the careful reader will do."""
    with path.open("rb") as file, body.open("wb") as out:
        chunks = decompressed(file)
        head = b""
        while len(head) < HEAD_BYTES and (chunk := next(chunks, b"")):
            head += chunk
        lines = head[:HEAD_BYTES].splitlines(keepends=True)
        first = next((i for i, line in enumerate(lines) if line.strip()), len(lines))
        start = next((i for i, line in enumerate(lines) if i > first and line.strip()), len(lines))
        if (
            b"\n" not in head[:HEAD_BYTES]
            or start == len(lines)
            or (b'"' in lines[first] and b"\r" in lines[first].strip())
        ):
            return None
        newlines, returns, last = 0, 0, b""
        chunk = head[sum(map(len, lines[:start])) :]
        while chunk:
            if b"\0" in chunk:
                return None
            newlines += chunk.count(b"\n")
            returns += chunk.count(b"\r")
            last = chunk[-1:]
            out.write(chunk)
            chunk = next(chunks, b"")
    if returns not in (0, newlines):
        return None
    sample = [
        split_fields(line.decode("utf-8", "replace").rstrip("\r\n")) for line in lines[start : start + SAMPLE_LINES]
    ]
    mapping = contract.map_columns(names)
    targets = {position: c for c in contract.columns for position in mapping.sources.get(c.name, ())}
    types = [
        _type(contract, targets.get(i), [fields[i].strip() for fields in sample if i < len(fields)])
        for i in range(len(names))
    ]
    columns = ", ".join(f"{literal(f'f{i}')}: {literal(type_)}" for i, type_ in enumerate(types))
    relation = (
        f"read_csv({literal(str(body))}, header = false, auto_detect = false, columns = {{{columns}}}, delim = ',', "
        "quote = '\"', escape = '\"', timestampformat = '%Y-%m-%d %H:%M:%S', "
        "store_rejects = true, rejects_table = 'refused', rejects_scan = 'refused_scan')"
    )
    sources = [SourceColumn(name, type_, f"f{i}") for i, (name, type_) in enumerate(zip(names, types, strict=True))]
    return TypedScan(body, sources, relation, newlines + (last != b"\n"), start)


def _type(contract: Contract, column: Column | None, sample: Sequence[str]) -> str:
    """The type to scan a column as.

    Integers as DOUBLE, so that a fraction is seen and not rounded away; flags in their modern spelling as ENUM, so that
    any other spelling is refused and read with care, at no price for the rest.
    """
    values = [value for value in sample if value]
    match column.type if column else "S":
        case "D":
            return "TIMESTAMP" if all(map(TIMESTAMP.fullmatch, values)) else "VARCHAR"
        case "S" if column and column.codes:
            modern = dict.fromkeys(map(str, contract.codes[column.codes].values()))
            return f"ENUM({', '.join(map(literal, modern))})" if modern.keys() >= set(values) else "VARCHAR"
        case "I" if column and column.codes and not all(map(NUMBER.fullmatch, values)):
            return "VARCHAR"
        case "I" | "F":
            return "DOUBLE"
        case "M":
            return "DECIMAL(10,2)"
        case _:
            return "VARCHAR"
