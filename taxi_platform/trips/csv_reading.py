"""Reads a CSV month record by record, each with its line and text: slower than `typed_scan.py`, and never in doubt."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa

from taxi_platform.trips.errors import NotData
from taxi_platform.trips.files import MAX_COLUMNS, TOO_MANY_COLUMNS
from taxi_platform.trips.formats import decompressed
from taxi_platform.trips.records import MAX_LINE_BYTES, records

Record = tuple[int, bytes]
"""The 1-based physical line on which the record begins (1 for the header), and its bytes without the line end."""

BATCH_RECORDS = 20_000
BATCH_BYTES = 32 << 20
UNREADABLE_SCHEMA = pa.schema([("reason", pa.string()), ("line", pa.int64()), ("text", pa.string())])
SHOWN_CHARACTERS_OF_OVERLONG_LINE = 1000
QUOTED_FIELD = re.compile(r'"([^"]*(?:""[^"]*)*)"(?=,|\Z)')


def header(path: Path) -> list[str]:
    """The published column names; raises `NotData` if the first record cannot be column names."""
    with path.open("rb") as file:
        _, first = next(records(decompressed(file)), (0, b""))
    check = "Check what the source serves."
    if len(first) > MAX_LINE_BYTES:
        raise NotData(f"The first line of {path.name} has more than {MAX_LINE_BYTES:,} bytes.", check)
    try:
        names = split_fields(first.decode())
    except UnicodeDecodeError:
        raise NotData(f"The column names of {path.name} are not UTF-8.", check) from None
    if not any(name.strip() for name in names):
        raise NotData(f"{path.name} does not begin with a line of column names.", check)
    if "\0" in first.decode():
        raise NotData(f"The column names of {path.name} contain NUL bytes.", check)
    if len(names) > MAX_COLUMNS:
        raise NotData(f"{path.name} has {len(names):,} columns.", TOO_MANY_COLUMNS)
    return names


def split_fields(line: str) -> list[str]:
    """The fields of one record (RFC 4180); a quote that does not properly close its field is an ordinary character."""
    if '"' not in line:
        return line.split(",")
    fields: list[str] = []
    position = 0
    while True:
        if quoted := QUOTED_FIELD.match(line, position):
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


def batches(source: Iterable[Record], width: int) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Records as pairs of Arrow tables; yields at least one pair.

    The first table holds what could be split into `width` fields: columns f0, f1, … as text, line, text. The second
    holds the others: reason, line, text. Surplus fields are dropped if they are empty, as in the TLC's files of 2013
    to 2016.
    """
    schema = pa.schema([*((f"f{i}", pa.string()) for i in range(width)), ("line", pa.int64()), ("text", pa.string())])
    for batch in _batched(source):
        rows, unreadable = [], []
        for line, raw in batch:
            fields_or_reason, text = _read(raw, width)
            if isinstance(fields_or_reason, str):
                unreadable.append((fields_or_reason, line, text))
            else:
                rows.append((*fields_or_reason, line, text))
        yield _table(rows, schema), _table(unreadable, UNREADABLE_SCHEMA)


def _batched(source: Iterable[Record]) -> Iterator[list[Record]]:
    """Lists of records, bounded in number and bytes; the last one may be empty."""
    batch: list[Record] = []
    size = 0
    for record in source:
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
    """A record's fields, or the reason why it cannot be split into `width` fields; and its text."""
    if len(raw) > MAX_LINE_BYTES:
        return "line_too_long", _printable(raw[:SHOWN_CHARACTERS_OF_OVERLONG_LINE]) + "…"
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return "invalid_encoding", _printable(raw)
    if "\0" in text:
        return "nul_byte", _printable(raw)
    fields = split_fields(text)
    if len(fields) < width:
        return "too_few_fields", text
    if len(fields) > width and any(fields[width:]):
        return "too_many_fields", text
    return fields[:width], text


def _printable(raw: bytes) -> str:
    """The text with invalid UTF-8 and NUL bytes as escapes, because no table stores either."""
    return raw.decode("utf-8", "backslashreplace").replace("\0", "\\x00")
