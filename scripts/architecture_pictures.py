"""Draws docs/images/graph.svg and docs/images/layers.svg: `.venv/bin/python scripts/architecture_pictures.py`.

The layers come from pyproject.toml, so a test notices a picture that is out of date. Each picture has a background of
its own and follows the reader's dark mode.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"

STYLE = """
  text { font: 14px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2933; }
  .small { font-size: 12px; fill: #52606d; } .bold { font-weight: 600; } .middle { text-anchor: middle; }
  .page { fill: #ffffff; } .box { fill: #ffffff; stroke: #7b8794; } .area { fill: #f3f5f7; stroke: #cbd2d9; }
  .lake { fill: #e3f1fb; stroke: #2f7fb8; } .table { fill: #fdf3d8; stroke: #b7861b; }
  .view { fill: #e8f5e9; stroke: #3a8a4d; } .dashed { stroke-dasharray: 5 4; }
  path { fill: none; stroke: #52606d; stroke-width: 1.5; } .head { fill: #52606d; stroke: none; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e4e7eb; } .small { fill: #b3bcc6; }
    .page { fill: #0d1117; } .box { fill: #161b22; stroke: #8b949e; } .area { fill: #161b22; stroke: #3d444d; }
    .lake { fill: #10324a; stroke: #58a6d6; } .table { fill: #3b2f0f; stroke: #d9ae4a; }
    .view { fill: #14351d; stroke: #5cb370; } path { stroke: #b3bcc6; } .head { fill: #b3bcc6; stroke: none; }
  }
"""

MARTS = ("daily_zones", "hours", "zone_pairs", "payments", "companies", "quality")

ROOMS = {
    "warm": "what runs and workers are forked from",
    "cli": "the commands, what they print",
    "definitions": "settings → resources → Definitions",
    "doctor": "what is set, there, missing",
    "ui": "Dagster's UI, safely served",
    "notifications": "messages, and channels",
    "automation": "schedules, sensors",
    "output": "what commands print",
    "runs": "runs from a command line or many months at once; the status of months",
    "assets": "what Dagster sees: assets, checks, metadata, resources",
    "ingestion": "fetch, clean, load, check a month; which months need work; views in trips.duckdb",
    "marts": "SQL by month for three engines; the overview; months as data frames",
    "settings": "the environment, parsed once",
    "sources": "the TLC, folders, samples",
    "lake": "a folder or a bucket",
    "warehouse": "DuckDB, BigQuery, PostgreSQL",
    "trips": "the domain: months, contracts, reading, casting, cleaning, reports, errors",
}
"""Room → what it is for. Modules whose names begin with `cli_` are drawn with `cli`."""
ABOVE_DAGSTER = "assets"
"""The lowest layer that may import Dagster."""


def picture(width: int, height: int, title: str, parts: Iterable[str]) -> str:
    """An SVG file."""
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img">\n<title>{escape(title)}</title>\n<style>{STYLE}</style>\n'
        f'<defs><marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path class="head" d="M0 0 8 4 0 8z"/></marker></defs>\n'
        f'<rect class="page" width="{width}" height="{height}" rx="8"/>\n{body}\n</svg>\n'
    )


def box(kind: str, x: float, y: float, width: float, height: float, name: str, *lines: str) -> Iterator[str]:
    """A box with a name in bold and small lines below it, centred."""
    yield f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>'
    top = y + height / 2 + 5 - 8 * len(lines)
    yield text(x + width / 2, top, name, "bold middle")
    for number, line in enumerate(lines, 1):
        yield text(x + width / 2, top + 16 * number, line, "small middle")


def text(x: float, y: float, words: str, kind: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{kind}">{escape(words)}</text>'


def arrow(*points: tuple[float, float]) -> str:
    """A line through the points, with a head at the end."""
    return f'<path marker-end="url(#end)" d="M{" L".join(f"{x:g} {y:g}" for x, y in points)}"/>'


def graph() -> str:
    """The assets of a dataset, the views over all datasets, and where each is stored."""
    return picture(1060, 400, "The asset graph of taxi_platform", _graph())


def _graph() -> Iterator[str]:
    yield '<rect class="area" x="150" y="20" width="664" height="258" rx="8"/>'
    yield text(166, 44, "yellow, green, fhv, fhvhv", "bold")
    yield text(376, 44, "each a group of assets, each month a partition", "small")
    yield from box("box", 16, 120, 112, 60, "source", "TLC, folder, …")
    yield from box("lake", 172, 120, 130, 60, "raw_file", "as published")
    yield from box("lake", 336, 70, 140, 60, "clean_trips", "the commit point")
    yield from box("lake", 336, 170, 140, 60, "rejected_trips", "row, reason")
    yield from box("table", 510, 120, 130, 60, "trips", "table = file")
    yield from box("table dashed", 510, 208, 130, 52, "serving_trips", "if it is set")
    yield '<rect class="table" x="674" y="66" width="122" height="168" rx="6"/>'
    yield text(735, 88, "marts", "bold middle")
    yield from (text(735, 110 + 20 * row, name, "small middle") for row, name in enumerate(MARTS))
    yield from box("view", 848, 70, 196, 60, "marts/daily_zones …", "seven views, all datasets")
    yield from box("view", 848, 180, 196, 60, "marts/overview", "one HTML page")
    yield from box("table", 510, 300, 130, 52, "taxi_zones", "names of zones")
    yield arrow((128, 150), (172, 150))
    yield arrow((302, 140), (336, 104))
    yield arrow((302, 160), (336, 196))
    yield arrow((476, 104), (510, 140))
    yield arrow((476, 192), (510, 160))
    yield arrow((476, 206), (510, 228))
    yield arrow((640, 150), (674, 150))
    yield arrow((796, 110), (848, 102))
    yield arrow((946, 130), (946, 180))
    yield arrow((640, 326), (830, 326), (830, 118), (848, 112))
    for x, kind, words in ((172, "lake", "files in the lake"), (336, "table", "tables in the warehouse")):
        yield f'<rect class="{kind}" x="{x}" y="372" width="16" height="14" rx="3"/>'
        yield text(x + 24, 384, words, "small")
    yield '<rect class="view" x="540" y="372" width="16" height="14" rx="3"/>'
    yield text(564, 384, "views over the tables and over the lake, and a page of charts", "small")


def layers() -> str:
    """The layers of the code, as the linter checks them."""
    rows = _layers()
    return picture(1060, 66 * len(rows) + 64, "The layers of taxi_platform", _drawn_layers(rows))


def _layers() -> list[list[str]]:
    """From pyproject.toml, the top one first; modules that only extend `cli` are left out."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    (ordered,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    names = [[name.strip().removeprefix("taxi_platform.") for name in layer.split("|")] for layer in ordered]
    return [row for row in ([name for name in layer if not name.startswith("cli_")] for layer in names) if row]


def _drawn_layers(rows: list[list[str]]) -> Iterator[str]:
    border = next(number for number, row in enumerate(rows) if ABOVE_DAGSTER in row) + 1
    yield text(20, 28, "Each layer may import only what lies below it.", "small")
    for number, row in enumerate(rows):
        y = 44 + 66 * number
        kind = "view" if number < border else "lake"
        width = (900 - 12 * (len(row) - 1)) / len(row)
        for place, name in enumerate(row):
            yield from box(kind, 20 + place * (width + 12), y, round(width, 1), 54, name, ROOMS[name])
    middle, end = 44 + 66 * border - 6, 44 + 66 * len(rows) - 12
    yield f'<path class="dashed" d="M20 {middle} H1040"/>'
    yield text(936, (44 + middle) / 2, "may import", "small")
    yield text(936, (44 + middle) / 2 + 16, "Dagster", "bold")
    yield text(936, (middle + end) / 2, "works without", "small")
    yield text(936, (middle + end) / 2 + 16, "Dagster", "bold")


PICTURES = {"graph.svg": graph, "layers.svg": layers}

if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (IMAGES / name).write_text(draw(), "utf-8")
