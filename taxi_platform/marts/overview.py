"""The overview: one HTML page that shows all months that are loaded, without a network and without a script.

Belongs here: how the sections become a page, and where it is written. Its frame and style are in `overview.html`.
Every text passes `escaped_html`, and the page's own policy lets a browser run and load nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import datetime
from importlib import resources
from pathlib import Path
from string import Template

from taxi_platform.marts import chart_style
from taxi_platform.marts.overview_data import OverviewData
from taxi_platform.marts.overview_sections import Cell, Section, Table, sections, trips_of
from taxi_platform.marts.zones import zone_shapes
from taxi_platform.trips.errors import LakeError, UserError
from taxi_platform.trips.replacing import replacing
from taxi_platform.trips.text import escaped_html

FILE_NAME = "overview.html"
WIDE, NARROW, PICTURE = 940, 350, 520
"""Pixels of a chart on a desktop, on a phone, and as a picture in the metadata of an asset."""


def overview_path(home: Path) -> Path:
    """Where the page is."""
    return home / FILE_NAME


def chart_png(view: str, data: OverviewData) -> bytes | None:
    """The chart of a view over the marts (`trips_by_day`, `hours`, …) as a small PNG; None if there is nothing to draw.

    Raises `UserError` for a view without a chart.
    """
    for section in sections(data):
        if section.view == view:
            drawing = section.draw(PICTURE)
            return chart_style.png(drawing) if drawing else None
    raise UserError(f"The view {view!r} has no chart.", "See VIEWS_WITH_CHARTS.")


def page(data: OverviewData, made: datetime) -> str:
    """The page as HTML."""
    shown = list(sections(data))
    return _template().substitute(
        dark_rules=chart_style.dark_rules("svg"),
        subtitle=escaped_html(f"{_period(data)} Made on {made:%Y-%m-%d at %H:%M}."),
        notes="\n".join(f'<p class="note">{escaped_html(note)}</p>' for note in _notes(data)),
        tiles=_tiles(data),
        links=" ".join(f'<a href="#{section.name}">{escaped_html(section.title)}</a>' for section in shown),
        sections="\n".join(map(_section, shown)),
        zones_source=escaped_html(zone_shapes()["source"]),
    )


def write_page(home: Path, html: str) -> Path:
    """Replace the page in the home; returns its path.

    Where the home cannot be written, the page goes to a new temporary folder. Raises `LakeError` if that fails too.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        return _replace(overview_path(home), html)
    except OSError:
        try:
            return _replace(Path(tempfile.mkdtemp(prefix="taxi-overview-")) / FILE_NAME, html)
        except OSError as error:
            raise LakeError(f"Cannot write {overview_path(home)}: {error.strerror}.", "Check TAXI_HOME.") from error


def _replace(path: Path, html: str) -> Path:
    with replacing(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path


def _template() -> Template:
    return Template(resources.files("taxi_platform.marts").joinpath("overview.html").read_text("utf-8"))


def _period(data: OverviewData) -> str:
    months = sorted(month for _, month in data.counted)
    if not months:
        return "No month is loaded yet."
    return f"{months[0]}." if months[0] == months[-1] else f"{months[0]} to {months[-1]}."


def _notes(data: OverviewData) -> Iterator[str]:
    """What a reader has to know before the numbers."""
    synthetic = sum(month.is_synthetic for month in data.read_months())
    if not data.counted:
        yield "No month is loaded yet, so there is nothing to draw. Load some with make demo or taxi ingest."
    elif synthetic == len(data.counted):
        yield "All months are synthetic: they come from sample://, in proportion to the real ones."
    elif synthetic:
        yield f"{_months(synthetic)} of {len(data.counted)} synthetic: they come from sample://, and are marked."
    if data.older:
        yield (
            f"{_months(len(data.older))} shown as missing, because their marts are of another version. taxi ingest "
            "builds them again."
        )
    loaded = {dataset for dataset, _ in data.counted}
    empty = sorted({month.dataset for month in data.months} - loaded)
    if empty and data.counted:
        yield f"No month of {' and '.join(empty)} is loaded."


def _months(count: int) -> str:
    return "1 month is" if count == 1 else f"{count} months are"


def _tiles(data: OverviewData) -> str:
    quality = data.of("quality")
    read = sum(row[4] for row in quality if row[2] == "read")
    rejected = sum(row[4] for row in quality if row[2] == "rejected")
    tiles = {
        "trips": f"{sum(trips_of(data).values()):,}",
        "months counted": f"{len(data.counted)} of {len(data.months)}",
        "rejected rows": f"{rejected:,} <small>{rejected / read if read else 0:.2%}</small>",
        "suspicious marks": f"{sum(row[4] for row in quality if row[2] == 'suspicious'):,}",
    }
    return f"<dl>{''.join(f'<div><dt>{name}</dt><dd>{value}</dd></div>' for name, value in tiles.items())}</dl>"


def _section(section: Section) -> str:
    wide, narrow = section.draw(WIDE), section.draw(NARROW)
    if wide is None or narrow is None:
        drawn = '<p class="faint">Nothing to show in the months that are loaded.</p>'
    else:
        label = escaped_html(f"{section.title}: a chart; the numbers are in the table below.")
        grid = " grid" if section.is_grid else ""
        drawn = "".join(
            f'<div class="{kind}{grid}" role="img" aria-label="{label}">{chart_style.svg(drawing)}</div>'
            for kind, drawing in (("wide", wide), ("narrow", narrow))
        )
        drawn = f"<figure>{drawn}</figure>"
    tables = "".join(map(_table, section.tables))
    title, text = escaped_html(section.title), escaped_html(section.text)
    return f'<section id="{section.name}"><h2>{title}</h2><p>{text}</p>{drawn}{tables}</section>'


def _table(table: Table) -> str:
    if not table.rows:
        return ""
    caption = escaped_html(table.caption)
    header = "".join(f'<th scope="col">{escaped_html(name)}</th>' for name in table.header)
    rows = "".join(
        f'<tr><th scope="row">{escaped_html(str(row[0]))}</th>{"".join(map(_cell, row[1:]))}</tr>' for row in table.rows
    )
    return (
        f'<details><summary>{caption}, as a table</summary><div class="scroll" tabindex="0"><table>'
        f"<caption>{caption}</caption><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table></div></details>"
    )


def _cell(value: Cell) -> str:
    if isinstance(value, int):
        return f'<td class="number">{value:,}</td>'
    return f"<td>{escaped_html(value)}</td>"
