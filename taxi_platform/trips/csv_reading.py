"""Two ways to read a CSV month: one typed scan by DuckDB, and record by record with the line and text of each.

A plain file (`files.RecordCounter`) is scanned as it lies. Of any other the typed scan reads an unpacked copy without
its header, so that what DuckDB refuses can be found again by its byte offset: DuckDB's own line numbers are wrong where
a header's line end differs from the rows', and its texts where there are quotes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

import duckdb
import pyarrow as pa

from taxi_platform.trips.casting import SourceColumn, literal
from taxi_platform.trips.contract import Column, Contract
from taxi_platform.trips.errors import NotData
from taxi_platform.trips.files import BOM, MAX_COLUMNS, MAX_LINE_BYTES, decompressed, records

Record = tuple[int, bytes]
"""The physical line a record starts on (the header's is 1), and its bytes without the line end."""

GZIP_MAGIC = b"\x1f\x8b"
HEAD_BYTES = 1 << 16
SAMPLE_LINES = 500
BATCH_RECORDS = 20_000
BATCH_BYTES = 32 << 20
MAX_REFUSED = 50_000
MAX_REFUSALS = 20 * MAX_REFUSED
"""DuckDB keeps one for every column at fault."""

CERTAIN = ("CAST", "MISSING COLUMNS", "TOO MANY COLUMNS")
"""The refusals whose line DuckDB names reliably."""
WHOLE = 9_000
"""Of a refused line DuckDB keeps 10,000 characters at most, without a mark that there were more."""
UNREADABLE = pa.schema([("reason", pa.string()), ("line", pa.int64()), ("text", pa.string())])
BLANKS = (b"\0", b"\t", b"\v", b"\f")
"""DuckDB takes them for space around a timestamp; the first one no table takes at all."""
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", re.ASCII)
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)", re.ASCII)
QUOTED = re.compile(r'"([^"]*(?:""[^"]*)*)"(?=,|\Z)')
SPACE_BEFORE_QUOTE = re.compile(rb'(?:\A|[,\n]) +"')


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
    if len(names) > MAX_COLUMNS or "\0" in first.decode():
        raise NotData(f"{path.name} begins with a line that cannot be column names.", "Check what the source serves.")
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


def batches(found: Iterable[Record], width: int) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Records as Arrow tables with columns f0 … (text), line, text, beside those that do not even fall into fields.

    Surplus fields are dropped where they are empty, as the TLC's files of 2013 to 2016 have them. Yields at least once.
    """
    schema = pa.schema([*((f"f{i}", pa.string()) for i in range(width)), ("line", pa.int64()), ("text", pa.string())])
    for batch in _batched(found):
        rows, unreadable = [], []
        for line, raw in batch:
            fields_or_reason, text = _read(raw, width)
            if isinstance(fields_or_reason, str):
                unreadable.append((fields_or_reason, line, text))
            else:
                rows.append((*fields_or_reason, line, text))
        yield _table(rows, schema), _table(unreadable, UNREADABLE)


def _batched(found: Iterable[Record]) -> Iterator[list[Record]]:
    """Records by the batch, which is bounded in number and bytes; the last one may be empty."""
    batch: list[Record] = []
    size = 0
    for record in found:
        batch.append(record)
        size += len(record[1])
        if len(batch) == BATCH_RECORDS or size > BATCH_BYTES:
            yield batch
            batch, size = [], 0
    yield batch


def _table(rows: list[tuple], schema: pa.Schema) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    return pa.table([pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)], schema)


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
    """A relation over a CSV file, typed as its first lines suggest: over the file itself, or over its unpacked body.

    `lines` is the number of physical lines behind the header. Anything the types do not fit is refused, never bent.
    """

    body: Path | None
    sources: list[SourceColumn]
    relation: str
    lines: int
    lines_before: int

    def refused(self, con: duckdb.DuckDBPyConnection, limit: int) -> list[Record] | None:
        """The records the scan refused; None where they are more than `limit` or cannot be told for certain.

        DuckDB counts bytes from 1, in a file of `\\r\\n` takes a line to begin with the `\\n` before it, and may name
        another line than the one at fault where it is about quotes or encoding: what it quotes must stand there.
        """
        # No bound parameters here: the first one makes DuckDB import pandas, half a second.
        if self.body is None:
            return self._refused_lines(con, limit)
        rows = con.execute(
            f"SELECT DISTINCT line_byte_position, encode(csv_line) FROM refused WHERE error_type IN {CERTAIN} "
            f"ORDER BY 1 LIMIT {MAX_REFUSED + 1}"
        ).fetchall()
        if len(rows) > min(limit, MAX_REFUSED):
            return None
        found: list[Record] = []
        line, position, size = self.lines_before + 1, 0, 0
        with self.body.open("rb") as file:
            for byte, quoted in rows:
                if byte is None or byte <= position or quoted is None:
                    return None
                file.seek(position)
                before = b"\n"
                while part := file.read(min(1 << 20, byte - 1 - position)):
                    line += part.count(b"\n")
                    position += len(part)
                    before = part[-1:]
                text = file.readline()
                if text == b"\n":
                    before, line, position, text = text, line + 1, byte, file.readline()
                text = text.rstrip(b"\r\n")
                size += len(text)
                if before != b"\n" or size > BATCH_BYTES or quoted.strip(b"\r\n") != text:
                    return None
                if found and found[-1][0] == line:
                    return None
                found.append((line, text))
        return found

    def _refused_lines(self, con: duckdb.DuckDBPyConnection, limit: int) -> list[Record] | None:
        """Those of a plain file, where DuckDB's own line number and text are right."""
        rows = con.execute(
            f"SELECT line, first(csv_line) FROM refused WHERE error_type IN {CERTAIN} "
            f"GROUP BY 1 ORDER BY 1 LIMIT {MAX_REFUSED + 1}"
        ).fetchall()
        if len(rows) > min(limit, MAX_REFUSED) or any(text is None or len(text) > WHOLE for _, text in rows):
            return None
        return [(line, text.strip("\r\n").encode()) for line, text in rows]


def typed_scan(path: Path, body: Path | None, names: Sequence[str], contract: Contract, rows: int) -> TypedScan | None:
    """The typed scan of `path`, which is plain if `body` is None; else it is unpacked there, without its header.

    None where only the careful reader will do.
    """
    mapping = contract.map_columns(names)
    if len(mapping.unknown) + sum(map(len, mapping.sources.values())) < len(names):
        return None
    with path.open("rb") as file:
        chunks = decompressed(file)
        head = b""
        while len(head) < HEAD_BYTES and (chunk := next(chunks, b"")):
            head += chunk
        lines = [line + b"\n" for line in head[:HEAD_BYTES].split(b"\n")]  # a lone \r ends none
        if body is None:
            return _scan(path, None, names, contract, lines[1:], rows, 1)
        first = next((i for i, line in enumerate(lines) if line.strip()), len(lines))
        start = next((i for i, line in enumerate(lines) if i > first and line.strip()), len(lines))
        if (
            b"\n" not in head[:HEAD_BYTES]
            or start == len(lines)
            or lines[start].startswith(BOM)
            or (b'"' in lines[first] and b"\r" in lines[first].strip())
        ):
            return None
        with body.open("wb") as out:
            count = _unpack(chain([head[sum(map(len, lines[:start])) :]], chunks), out)
    return None if count is None else _scan(body, body, names, contract, lines[start:], count, start)


def _unpack(chunks: Iterable[bytes], out: BinaryIO) -> int | None:
    """Write the text and count its lines; None where DuckDB would not read it as `records` does."""
    newlines, crlfs, last = 0, 0, b""
    for block in _whole_lines(chunks):
        if _is_odd(block):
            return None
        newlines += block.count(b"\n")
        if b"\r" in block:
            crlfs += (pairs := block.count(b"\r\n"))
            if pairs != block.count(b"\r"):
                return None
        last = block[-1:]
        out.write(block)
    return newlines + (last != b"\n") if crlfs in (0, newlines) else None


def _scan(
    file: Path,
    body: Path | None,
    names: Sequence[str],
    contract: Contract,
    lines: Sequence[bytes],
    count: int,
    lines_before: int,
) -> TypedScan:
    """The scan of `file`, whose columns get the types that the sample `lines` suggest."""
    mapping = contract.map_columns(names)
    sample = [split_fields(line.decode("utf-8", "replace").rstrip("\r\n")) for line in lines[:SAMPLE_LINES]]
    targets = {  # of several columns for one place the texts are needed, as a second that differs is kept as text
        position: column
        for column in contract.columns
        for position in mapping.sources.get(column.name, ())
        if len(mapping.sources[column.name]) == 1
    }
    types = [
        _type(contract, targets.get(i), [fields[i].strip() for fields in sample if i < len(fields)])
        for i in range(len(names))
    ]
    columns = ", ".join(f"{literal(f'f{i}')}: {literal(type_)}" for i, type_ in enumerate(types))
    relation = (
        f"read_csv({literal(str(file))}, header = false, auto_detect = false, columns = {{{columns}}}, delim = ',', "
        f"skip = {0 if body else lines_before}, compression = '{_compression(file)}', "
        "quote = '\"', escape = '\"', timestampformat = '%Y-%m-%d %H:%M:%S', hive_partitioning = false, "
        "store_rejects = true, rejects_table = 'refused', rejects_scan = 'refused_scan', "
        f"rejects_limit = {MAX_REFUSALS})"
    )
    sources = [
        SourceColumn(name, type_, f"f{i}", by_format=True)
        for i, (name, type_) in enumerate(zip(names, types, strict=True))
    ]
    return TypedScan(body, sources, relation, count, lines_before)


def _compression(path: Path) -> str:
    with path.open("rb") as file:
        return "gzip" if file.read(2) == GZIP_MAGIC else "none"


def _whole_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes cut behind newlines only, or where a line gets too long."""
    held = b""
    for chunk in chunks:
        end = chunk.rfind(b"\n") + 1
        if end or len(held) > MAX_LINE_BYTES:
            yield held + chunk[:end]
            held = b""
        held += chunk[end:]
    if held:
        yield held


def _is_odd(block: bytes) -> bool:
    """Whether DuckDB would read something in these lines otherwise than `records` and `split_fields` do.

    Spaces around quotes, for it forgives them; blanks around times; lines beyond the limit.
    """
    return (
        any(blank in block for blank in BLANKS)
        or (b'"' in block and (b'" ' in block or (b' "' in block and bool(SPACE_BEFORE_QUOTE.search(block)))))
        or (len(block) > MAX_LINE_BYTES and max(map(len, block.splitlines())) > MAX_LINE_BYTES)
    )


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
