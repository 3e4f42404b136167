"""Synthetic months as gzipped CSV files like the TLC's: the same layout to the byte, the same shares of values.

The same dataset, month and number of rows give the same bytes, without a network or a stored file. The layout of an
era's files is data (`layouts.toml`), and so are the shares (`shares.toml`).
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taxi_platform.sources.sample.values import HUNDREDTHS, MILES, Trips, draw, table
from taxi_platform.trips.months import DatasetMonth

BLOCK_ROWS = 50_000  # rows in memory at a time, about 100 MB
UNREADABLE_SHARE = 0.0001
COMPRESS_LEVEL = 1


def _without_leading_zero(hundredths: int) -> str:
    """`.50` and `-.50`, but `10.50`."""
    text = f"{hundredths / 100:.2f}"
    return text.replace("0.", ".", 1) if abs(hundredths) < 100 else text


# How money and miles are printed, from hundredths. `%.17g` distinguishes all doubles: 2.6299999999999999.
WRITERS: dict[str, Callable[[int], str]] = {
    "long": lambda hundredths: f"{hundredths / 100:.17g}",
    "short": lambda hundredths: f"{hundredths / 100:.15g}",
    "float": lambda hundredths: repr(hundredths / 100),
    "bare": _without_leading_zero,
}


def write_sample(dataset_month: DatasetMonth, rows: int, path: Path) -> None:
    """Write a month with this many data lines, unreadable ones included, to `path` as gzipped CSV."""
    layout = table("layouts.toml", dataset_month)
    seed = int.from_bytes(hashlib.sha256(str(dataset_month).encode()).digest()[:16])
    unreadable = _unreadable_lines(np.random.Generator(np.random.PCG64([seed])), rows)
    # No name and time in the gzip header, so that the same month has the same bytes everywhere and always.
    with (
        path.open("wb") as file,
        gzip.GzipFile(filename="", mode="wb", compresslevel=COMPRESS_LEVEL, fileobj=file, mtime=0) as packed,
    ):
        packed.write((layout["header"] + layout["header_end"]).encode())
        for number, start in enumerate(range(0, rows, BLOCK_ROWS), start=1):
            size = min(BLOCK_ROWS, rows - start)
            rng = np.random.Generator(np.random.PCG64([seed, number]))
            lines = _lines(draw(rng, dataset_month, start, size, rows), layout)
            for row in unreadable.keys() & range(start, start + size):
                lines[row - start] = _broken(lines[row - start], layout, unreadable[row])
            packed.write((layout["row_end"].join(lines) + layout["row_end"]).encode())


def _lines(trips: Trips, layout: dict[str, Any]) -> list[str]:
    """The rows as text, without their line ends."""
    columns = [_printed(column, trips, layout) for column in layout["columns"].split()]
    separator = '","' if layout["quoted"] else ","
    lines = pc.binary_join_element_wise(*columns, separator, null_handling="replace", null_replacement="")
    if layout["quoted"]:
        lines = pc.binary_join_element_wise('"', lines, '"', "")
    return lines.to_pylist()


def _printed(column: str, trips: Trips, layout: dict[str, Any]) -> pa.Array:
    """A column of the layout as strings; every distinct value is printed once."""
    name, _, style = column.partition(":")
    if name == "-":
        return pa.nulls(len(trips.values["pickup_datetime"]), pa.string())
    values = pa.array(trips.values[name], mask=trips.nulls.get(name))
    if pa.types.is_timestamp(values.type):
        return values.cast(pa.string())
    if style == "single":
        values = values.cast(pa.float32()).cast(pa.float64())
    distinct = values.dictionary_encode()
    write = _writer(name, style, layout)
    return pa.array([write(value) for value in distinct.dictionary.to_pylist()], pa.string()).take(distinct.indices)


def _writer(name: str, style: str, layout: dict[str, Any]) -> Callable[[Any], str]:
    if name in HUNDREDTHS:
        return WRITERS[layout["distance" if name in MILES else "money"]]
    if style == "float":
        return lambda value: f"{value}.0"
    if style in layout["texts"]:
        texts = layout["texts"][style]
        return lambda value: texts[str(value)]
    return lambda value: f"{value:.17g}" if isinstance(value, float) else str(value)


def _unreadable_lines(rng: np.random.Generator, rows: int) -> dict[int, int]:
    """The number of each unreadable line → in which of three ways it is broken; at least one in every file."""
    count = min(rows, max(1, round(rows * UNREADABLE_SHARE)))
    kinds = (np.arange(count) + int(rng.random() * 3)) % 3
    return dict(zip(rng.choice(rows, count, replace=False).tolist(), kinds.tolist(), strict=True)) if rows else {}


def _broken(line: str, layout: dict[str, Any], kind: int) -> str:
    """The line made unreadable: still one line, and unquoted, because an open quote would swallow the next lines."""
    fields = line.replace('"', "").split(",")
    names = [column.partition(":")[0] for column in layout["columns"].split()]
    pickup = names.index("pickup_datetime")
    if kind == 0:  # too few fields: a line that a database client adds to its output
        return "(1 row affected)"
    if kind == 1:  # text in a number column
        number = next(names.index(name) for name in ("trip_distance", "pickup_location_id") if name in names)
        return ",".join([*fields[:number], "unknown", *fields[number + 1 :]])
    return ",".join([*fields[:pickup], fields[pickup][:8]])  # cut within the pick-up time: `2,2021-01-`
