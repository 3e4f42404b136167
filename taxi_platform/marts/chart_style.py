"""How the charts look: colours for light and dark pages, names for people, and the drawing by vl-convert.

A chart is static SVG: it needs no script and no network. Each colour is used for one thing only, so that a page can
replace it for dark mode by a rule of CSS (`dark_rules`), and the picture is drawn once.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import TYPE_CHECKING, Any

from taxi_platform.trips.months import Dataset

if TYPE_CHECKING:
    from taxi_platform.marts.charts import Drawing

TEXT, FAINT, LINES = "#26303c", "#5b6673", "#dfe3e8"
EMPTY, BORDERS = "#f4f5f7", "#c4ccd6"
GAP_COLOURS = {"missing": "#b4bcc6", "synthetic": "#8a63d2"}
DATASET_NAMES = {
    Dataset.YELLOW: "Yellow taxis",
    Dataset.GREEN: "Green taxis",
    Dataset.FHV: "For-hire vehicles",
    Dataset.FHVHV: "High-volume for-hire",
}
DATASET_COLOURS = {
    Dataset.YELLOW: "#d99a00",
    Dataset.GREEN: "#1b9e77",
    Dataset.FHV: "#3b6fb6",
    Dataset.FHVHV: "#c2185b",
}
SCALE = ("#e8f0fa", "#c6d9ef", "#9dbfe3", "#6c9fd4", "#3f7dbf", "#1f5a9d", "#0a356f")
"""From little to much."""
CATEGORIES = ("#cf8a0a", "#17886a", "#4a7fc9", "#202a36", "#d6408f", "#7f56c4", "#8c5a33", "#7d8792")
COMPANY_COLOURS = (*list(DATASET_COLOURS.values())[:3], *CATEGORIES[3:])
STATUS_COLOURS = {
    "in the marts": "#2a8c57",
    "synthetic": "#8b64d3",
    "needs a run": "#e0a526",
    "failed or set aside": "#c8352b",
    "missing": "#d9dde3",
}
DARK = {
    TEXT: "#e4e8ee",
    FAINT: "#a0abb8",
    LINES: "#323b47",
    EMPTY: "#141b24",
    BORDERS: "#45505e",
    "#b4bcc6": "#5d6875",
    "#8a63d2": "#b69af0",
    "#d99a00": "#f2c14e",
    "#1b9e77": "#46c99e",
    "#3b6fb6": "#7aa7ea",
    "#c2185b": "#f06a9b",
    **dict(zip(SCALE, ("#1d2a3a", "#223f60", "#27558a", "#316fb4", "#4f90d6", "#86b7ee", "#d3e5fb"), strict=True)),
    "#cf8a0a": "#efb440",
    "#17886a": "#3dbd97",
    "#4a7fc9": "#82aef2",
    "#202a36": "#dfe5ec",
    "#d6408f": "#f27db8",
    "#7f56c4": "#b597ee",
    "#8c5a33": "#c99568",
    "#7d8792": "#8d98a5",
    "#2a8c57": "#41b97a",
    "#8b64d3": "#a888ea",
    "#e0a526": "#edbd55",
    "#c8352b": "#f0675e",
    "#d9dde3": "#3a434f",
}
"""Colour on a light page → on a dark one."""

MAX_PNG_BYTES, SCALES = 30_000, (1, 0.8, 0.65, 0.5)
COLOURS = 64
"""Of a picture; the rest, which smooth its edges, become the nearest of these."""
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
CONFIG: dict[str, Any] = {
    "aria": False,  # a page has one label for the picture, and a table below it
    "background": None,
    "padding": 4,
    "font": "Arial, Helvetica, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "domainColor": LINES,
        "gridColor": LINES,
        "tickColor": LINES,
        "labelColor": FAINT,
        "titleColor": FAINT,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
    },
    "legend": {
        "orient": "top",
        "title": None,
        "labelColor": TEXT,
        "labelFontSize": 11,
        "labelLimit": 240,
        "symbolType": "square",
        "symbolStrokeWidth": 0,
        "symbolSize": 110,
        "columnPadding": 18,
        "rowPadding": 3,
    },
    "title": {"color": TEXT, "fontSize": 12.5, "fontWeight": "bold", "anchor": "start", "offset": 6},
    "concat": {"spacing": 18},
}


def dark_rules(selector: str) -> str:
    """The rules of CSS that give the charts below `selector` the colours of a dark page."""
    return "\n".join(
        f'{selector} [{attribute}="{light}"]{{{attribute}:{dark}}}'
        for light, dark in DARK.items()
        for attribute in ("fill", "stroke")
    )


def svg(drawing: Drawing) -> str:
    """A chart as an SVG element, without what only programs that edit charts read: two thirds of its bytes."""
    import vl_convert

    drawn = vl_convert.vegalite_to_svg(_specification(drawing))
    # Within tags only: a label may look like an attribute.
    drawn = re.sub(r"<[^<>]+>", lambda tag: _shortened(tag[0]), drawn)
    while (smaller := re.sub(r"<g[^>]*></g>", "", drawn)) != drawn:
        drawn = smaller
    return drawn


def _shortened(tag: str) -> str:
    tag = re.sub(r' (?:class|pointer-events|aria-\w+|role|xmlns:xlink|version)="[^"]*"| opacity="1"', "", tag)
    if re.match(r'<path d="(?:M0,0h0v0h0Z)?"', tag):
        return ""
    tag = tag.replace(' transform="translate(0,0)"', "")
    return re.sub(r' d="[^"]*"| transform="[^"]*"', lambda found: _rounded(found[0]), tag)


def _rounded(numbers: str) -> str:
    """Coordinates in hundredths of a pixel; those of zones, the only lines, in tenths."""
    digits = 1 if "L" in numbers else 2
    return re.sub(r"\d+\.\d+", lambda found: f"{float(found[0]):.{digits}f}".rstrip("0").rstrip("."), numbers)


def png(drawing: Drawing) -> bytes:
    """A chart as a PNG on white, made smaller if it has over 30 kB: every materialization stores its metadata."""
    import vl_convert

    specification = _specification(drawing)
    specification["config"] = {**CONFIG, "background": "white"}
    for scale in SCALES:
        picture = _with_palette(vl_convert.vegalite_to_png(specification, scale=scale))
        if len(picture) <= MAX_PNG_BYTES:
            break
    return picture


def _with_palette(picture: bytes) -> bytes:
    """The same PNG with 64 colours; vl-convert's has four bytes a pixel, each as the difference from its left one."""
    import numpy as np

    chunks: dict[bytes, bytes] = {}
    position = len(PNG_SIGNATURE)
    while position < len(picture):
        (size,) = struct.unpack_from(">I", picture, position)
        kind = picture[position + 4 : position + 8]
        chunks[kind] = chunks.get(kind, b"") + picture[position + 8 : position + 8 + size]
        position += 12 + size
    width, height, *form = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, 1 + 4 * width)
    if form != [8, 6, 0, 0, 0] or (lines[:, 0] != 1).any():  # another version of vl-convert
        return picture
    pixels = np.cumsum(lines[:, 1:].reshape(height, width, 4), axis=1, dtype=np.uint8)[:, :, :3]
    colours, indices, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True, return_counts=True)
    palette = colours[np.argsort(-counts)[:COLOURS]]
    distances = np.square(colours[:, None].astype(np.int32) - palette[None].astype(np.int32)).sum(axis=2)
    indices = distances.argmin(axis=1).astype(np.uint8)[indices]
    rows = np.insert(indices.reshape(height, width), 0, 0, axis=1).tobytes()
    written = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", palette.tobytes()),
        (b"IDAT", zlib.compress(rows, 9)),
        (b"IEND", b""),
    )
    return PNG_SIGNATURE + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in written
    )


def _specification(drawing: Drawing) -> dict[str, Any]:
    specification: dict[str, Any] = drawing.chart.to_dict(validate=False)
    specification["config"] = CONFIG
    specification["datasets"] = drawing.datasets
    return specification
