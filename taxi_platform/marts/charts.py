"""The charts of the overview, drawn by Altair from plain rows: which mark, which axis, which class of values.

Belongs here: what a chart shows. Does not belong here: which rows it shows (`overview_data.py`), how it looks
(`chart_style.py`), the page around it (`overview.py`). Each function takes its width in pixels, and returns None where
there is nothing to draw. Rows name months as `2021-01` and datasets as `Dataset`; shares are 0 to 1. `gaps` are the
months that a mark below the chart shows as missing or synthetic: dataset, month, kind.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from taxi_platform.marts import chart_style as style
from taxi_platform.marts.zones import zone_shapes
from taxi_platform.trips.months import Dataset, Month

if TYPE_CHECKING:
    import altair as alt

Row = Mapping[str, Any]
Rows = Sequence[Row]
PHONE = 500
"""Narrower charts have their panels below each other."""
LABELS, RULE_LABELS = 50, 132
"""Pixels beside a chart for the labels of its axis."""
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
INITIALS = tuple("JFMAMJJASOND")
SHARES = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03)
SHARE_CLASSES = ("< 0.01 %", "0.01–0.03 %", "0.03–0.1 %", "0.1–0.3 %", "0.3–1 %", "1–3 %", "> 3 %")
RATIOS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
RATIO_CLASSES = ("< ¼", "¼–½", "½–¾", "¾–1", "1–1¼", "1¼–1½", "> 1½")
NO_PICKUPS = "none"


@dataclass
class Drawing:
    """A chart, and its rows beside it: Altair would validate each, which takes half of the time."""

    chart: Any = None
    datasets: dict[str, Rows | Row] = field(default_factory=dict)

    def data(self, rows: Rows | Row) -> alt.NamedData:
        import altair as alt

        name = f"rows{len(self.datasets)}"
        self.datasets[name] = rows
        return alt.NamedData(name)


def trips_by_month(rows: Rows, gaps: Rows, width: int) -> Drawing | None:
    """Bars: trips a month, a panel for each dataset. `rows`: dataset, month, trips."""
    import altair as alt

    drawing, panels, height = Drawing(), [], 96
    datasets = _datasets(rows)
    for dataset in datasets:
        # They end a little before the next month begins, so that neighbours can be told apart.
        bars = [
            {**_span(row), "end": f"{row['month']}-28", "trips": row["trips"]}
            for row in rows
            if row["dataset"] == dataset
        ]
        chart = (
            alt.Chart(drawing.data(bars), width=width - LABELS, height=height)
            .mark_rect(color=style.DATASET_COLOURS[dataset])
            .encode(
                x=_time_axis([*rows, *gaps], dataset == datasets[-1]),
                x2="end:T",
                y=alt.Y("trips:Q", axis=alt.Axis(title=None, format="~s", tickCount=4, minExtent=34)),
                y2=alt.datum(0),
            )
        )
        marks = _marks_below(drawing, gaps, dataset, height, dataset == datasets[-1])
        layers = alt.layer(chart, *marks).resolve_scale(color="independent")
        panels.append(layers.properties(title=style.DATASET_NAMES[dataset]))
    drawing.chart = alt.vconcat(*panels)
    return drawing if panels else None


def stacked_shares(rows: Rows, gaps: Rows, colours: Mapping[str, str], width: int) -> Drawing | None:
    """Shares of a whole by month, stacked, a panel for each dataset.

    `rows`: dataset (None: one panel for all), month, name (one of `colours`, drawn in their order), share.
    """
    import altair as alt

    drawing, panels, names = Drawing(), [], list(colours)
    datasets = [None] if any(row["dataset"] is None for row in rows) else _datasets(rows)
    for dataset in datasets:
        areas = _stacked([row for row in rows if row["dataset"] == dataset], names)
        height = 120 if dataset else 170
        chart = (
            alt.Chart(drawing.data(areas), width=width - LABELS, height=height)
            .mark_rect()
            .encode(
                x=_time_axis([*rows, *gaps], dataset == datasets[-1]),
                x2="end:T",
                y=alt.Y("from:Q", scale=alt.Scale(domain=[0, 1]), axis=_percent_axis()),
                y2="to:Q",
                color=_colours("name", names, list(colours.values()), width // 130, dataset == datasets[0]),
            )
        )
        marks = _marks_below(drawing, gaps, dataset, height, dataset == datasets[-1])
        layers = alt.layer(chart, *marks).resolve_scale(color="independent")
        panels.append(layers.properties(title=style.DATASET_NAMES[dataset]) if dataset else layers)
    drawing.chart = alt.vconcat(*panels)
    return drawing if panels else None


def tip_shares(rows: Rows, gaps: Rows, width: int) -> Drawing | None:
    """A point a month: tips as a share of what was paid before them. `rows`: dataset, month, share."""
    import altair as alt

    drawing = Drawing()
    datasets = _datasets(rows)
    names = [style.DATASET_NAMES[dataset] for dataset in datasets]
    points = [
        {"start": f"{row['month']}-15", "share": row["share"], "name": style.DATASET_NAMES[row["dataset"]]}
        for row in rows
    ]
    drawing.chart = (
        alt.Chart(drawing.data(points), width=width - LABELS, height=120)
        .mark_circle(size=22, opacity=1)
        .encode(
            x=_time_axis([*rows, *gaps], True) if rows else "start:T",
            y=alt.Y("share:Q", axis=_percent_axis()),
            color=_colours("name", names, [style.DATASET_COLOURS[dataset] for dataset in datasets]),
        )
    )
    return drawing if rows else None


def pickup_maps(rows: Rows, width: int) -> Drawing | None:
    """Maps: each zone's share of a dataset's pick-ups. `rows`: dataset, location_id, share."""
    import altair as alt

    drawing, panels = Drawing(), []
    datasets = _datasets(rows)
    columns = 1 if width < PHONE or len(datasets) == 1 else 2
    side = min(width // columns - 24, 520)
    names, colours = [NO_PICKUPS, *SHARE_CLASSES], [style.EMPTY, *style.SCALE]
    for dataset in datasets:
        shares = [
            {"location_id": row["location_id"], "class": _class(row["share"], SHARES, SHARE_CLASSES)}
            for row in rows
            if row["dataset"] == dataset and row["share"]
        ]
        zones = drawing.data(zone_shapes())
        zones.format = alt.TopoDataFormat(type="topojson", feature="zones")
        lookup = alt.LookupData(drawing.data(shares), key="location_id", fields=["class"])
        panels.append(
            alt.Chart(zones, width=side, height=side, title=style.DATASET_NAMES[dataset])
            .mark_geoshape(stroke=style.BORDERS, strokeWidth=0.4)
            .transform_lookup(lookup="properties.location_id", from_=lookup, default=NO_PICKUPS)
            .encode(color=_colours("class", names, colours, width // 110))
            .project("mercator")
        )
    drawing.chart = alt.concat(*panels, columns=columns)
    return drawing if panels else None


def busy_hours(rows: Rows, width: int) -> Drawing | None:
    """Heat maps: hour by weekday. `rows`: dataset, weekday (1 Monday to 7), hour, ratio (1: an average hour)."""
    import altair as alt

    drawing, panels = Drawing(), []
    datasets = _datasets(rows)
    columns = 1 if width < PHONE or len(datasets) == 1 else 2
    for dataset in datasets:
        cells = [
            {
                "weekday": WEEKDAYS[row["weekday"] - 1],
                "hour": row["hour"],
                "class": _class(row["ratio"], RATIOS, RATIO_CLASSES),
            }
            for row in rows
            if row["dataset"] == dataset
        ]
        hours = alt.Scale(domain=list(range(24)))
        panels.append(
            alt.Chart(drawing.data(cells), width=min(width // columns, 640) - LABELS, height=140)
            .mark_rect()
            .encode(
                x=alt.X("hour:O", scale=hours, axis=_plain_axis(labelAngle=0, values=list(range(0, 24, 3)))),
                y=alt.Y("weekday:O", scale=alt.Scale(domain=list(WEEKDAYS)), axis=_plain_axis()),
                color=_colours("class", RATIO_CLASSES, style.SCALE, width // 80),
            )
            .properties(title=style.DATASET_NAMES[dataset])
        )
    drawing.chart = alt.concat(*panels, columns=columns)
    return drawing if panels else None


def quality(rows: Rows, gaps: Rows, width: int) -> Drawing | None:
    """Heat maps: shares of a month's rows, a line for each name. `rows`: dataset, month, name, share above 0."""
    import altair as alt

    drawing, panels = Drawing(), []
    datasets = _datasets(rows)
    for dataset in datasets:
        own = [row for row in rows if row["dataset"] == dataset]
        names = list(dict.fromkeys(row["name"] for row in own))
        height = 14 * len(names)
        cells = [
            {**_span(row), "name": row["name"], "class": _class(row["share"], SHARES, SHARE_CLASSES)} for row in own
        ]
        lines = _plain_axis(minExtent=RULE_LABELS - 4, maxExtent=RULE_LABELS - 4, labelLimit=RULE_LABELS - 8)
        columns = (width - RULE_LABELS) // 100
        chart = (
            alt.Chart(drawing.data(_merged(cells)), width=width - RULE_LABELS, height=height)
            .mark_rect()
            .encode(
                x=_time_axis([*rows, *gaps], dataset == datasets[-1]),
                x2="end:T",
                y=alt.Y("name:N", scale=alt.Scale(domain=names), axis=lines),
                color=_colours("class", SHARE_CLASSES, style.SCALE, columns, dataset == datasets[0]),
            )
        )
        marks = _marks_below(drawing, gaps, dataset, height, dataset == datasets[-1])
        layers = alt.layer(chart, *marks).resolve_scale(color="independent")
        panels.append(layers.properties(title=style.DATASET_NAMES[dataset]))
    drawing.chart = alt.vconcat(*panels)
    return drawing if panels else None


def month_status(rows: Rows, width: int) -> Drawing | None:
    """A cell for every month. `rows`: dataset, month, status (a key of `STATUS_COLOURS`)."""
    import altair as alt

    drawing, panels = Drawing(), []
    datasets = _datasets(rows)
    columns = 2 if width < PHONE else 4
    names = [name for name in style.STATUS_COLOURS if any(row["status"] == name for row in rows)]
    colours = [style.STATUS_COLOURS[name] for name in names]
    for dataset in datasets:
        cells = [
            {"year": int(row["month"][:4]), "month": int(row["month"][5:]), "status": row["status"]}
            for row in rows
            if row["dataset"] == dataset
        ]
        gap = alt.Scale(domain=list(range(1, 13)), paddingInner=0.12)
        initials = _plain_axis(orient="top", labelAngle=0, labelExpr=f"{json.dumps(INITIALS)}[datum.value - 1]")
        panels.append(
            alt.Chart(drawing.data(cells), width=width // columns - 58, height=alt.Step(13))
            .mark_rect()
            .encode(
                x=alt.X("month:O", scale=gap, axis=initials),
                y=alt.Y("year:O", scale=alt.Scale(paddingInner=0.12), axis=_plain_axis()),
                color=_colours("status", names, colours, width // 160),
            )
            .properties(title=dataset.value)
        )
    drawing.chart = alt.concat(*panels, columns=columns)
    return drawing if panels else None


def _datasets(rows: Rows) -> list[Dataset]:
    present = {row["dataset"] for row in rows}
    return [dataset for dataset in Dataset if dataset in present]


def _span(row: Row) -> dict[str, str]:
    """The month as start and end of a bar, ISO dates, which Vega takes as UTC."""
    month = Month.parse(row["month"])
    return {"start": f"{month}-01", "end": f"{month.plus(1)}-01"}


def _time_axis(rows: Rows, labels: bool) -> alt.X:
    """From the first month to the last, a year at least."""
    import altair as alt

    first, last = Month.parse(min(row["month"] for row in rows)), Month.parse(max(row["month"] for row in rows))
    domain = [f"{min(first, last.plus(-11))}-01", f"{last.plus(1)}-01"]
    label = "utcFormat(datum.value, utcmonth(datum.value) ? '%b' : '%Y')"
    axis = alt.Axis(title=None, offset=12, grid=False, domain=False, tickSize=4, labels=labels, labelExpr=label)
    return alt.X("start:T", scale=alt.Scale(type="utc", domain=domain, nice=False), axis=axis)


def _marks_below(drawing: Drawing, gaps: Rows, dataset: Dataset | None, height: int, legend: bool) -> list[alt.Chart]:
    """A layer with marks under the months of `gaps`; none if there are none in any panel. The legend is below."""
    import altair as alt

    names = [kind for kind in style.GAP_COLOURS if any(row["kind"] == kind for row in gaps)]
    if not names:
        return []
    marks = _merged([{**_span(row), "kind": row["kind"]} for row in gaps if row["dataset"] == dataset])
    colours = [style.GAP_COLOURS[kind] for kind in names]
    encoding = {
        "x": alt.X("start:T"),
        "x2": alt.X2("end:T"),
        "y": alt.value(height + 3),
        "y2": alt.value(height + 9),
        # Beside the other legend it would run into it, and make the chart wider than a phone.
        "color": _colours("kind", names, colours, legend=legend, orient="bottom"),
    }
    return [alt.Chart(drawing.data(marks)).mark_rect().encode(**encoding)]


def _merged(cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cells, with neighbours in time that are otherwise equal made one."""
    latest: dict[tuple[Any, ...], dict[str, Any]] = {}
    merged = []
    for cell in sorted(cells, key=lambda cell: cell["start"]):
        key = tuple(value for name, value in cell.items() if name not in ("start", "end"))
        if key in latest and latest[key]["end"] == cell["start"]:
            latest[key]["end"] = cell["end"]
        else:
            latest[key] = dict(cell)
            merged.append(latest[key])
    return merged


def _stacked(rows: Rows, names: Sequence[str]) -> list[dict[str, Any]]:
    """Each month's shares one upon the other, as lower and upper edge."""
    reached: dict[str, float] = {}
    areas = []
    for row in sorted(rows, key=lambda row: names.index(row["name"])):
        low = reached.get(row["month"], 0.0)
        reached[row["month"]] = high = low + row["share"]
        areas.append({**_span(row), "name": row["name"], "from": round(low, 4), "to": round(high, 4)})
    return areas


def _class(value: float, bounds: Sequence[float], names: Sequence[str]) -> str:
    return names[sum(value >= bound for bound in bounds)]


def _colours(
    field_name: str,
    names: Sequence[str],
    colours: Sequence[str],
    columns: int = 8,
    legend: bool = True,
    orient: Literal["top", "bottom"] = "top",
) -> alt.Color:
    import altair as alt

    scale = alt.Scale(domain=list(names), range=list(colours[: len(names)]))
    return alt.Color(
        f"{field_name}:N", scale=scale, legend=alt.Legend(columns=columns, orient=orient) if legend else None
    )


def _percent_axis() -> alt.Axis:
    import altair as alt

    return alt.Axis(title=None, format=".0%", tickCount=4, minExtent=34)


def _plain_axis(**options: Any) -> alt.Axis:
    import altair as alt

    return alt.Axis(title=None, ticks=False, domain=False, grid=False, **options)
