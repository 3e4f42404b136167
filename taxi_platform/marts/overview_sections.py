"""The sections of the overview: for each, what is said, drawn and listed, from the sums of the marts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import groupby
from typing import Any

from taxi_platform.marts import charts
from taxi_platform.marts.chart_style import CATEGORIES, COMPANY_COLOURS, DATASET_NAMES
from taxi_platform.marts.charts import Drawing
from taxi_platform.marts.overview_data import OverviewData, OverviewMonth
from taxi_platform.marts.views import labels
from taxi_platform.trips.known import taxi_zones
from taxi_platform.trips.months import Dataset, Month
from taxi_platform.trips.text import listed_names, printable

PAYMENT_TYPES = (1, 2, 3, 4, 5, 6, 0, None)
"""In the order in which they are stacked."""
CREDIT_CARD = 1
COMPANIES = ("yellow", "green", "fhv", "HV0003", "HV0005", "HV0004", "HV0002", None)
"""Datasets and licences in the order in which they are stacked; None stands for others."""
MAX_RULE = 40
"""Characters of a rule beside its line."""
FAILED = ("failed", "damaged", "set aside")
MISSING = ("unknown", "not published", "published")
Cell = str | int
Row = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """The numbers of a chart. The first column names the line."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Section:
    """One chart of the page: `draw` takes a width in pixels; `view` is the view over the marts that has its numbers."""

    name: str
    title: str
    text: str
    draw: Callable[[int], Drawing | None]
    tables: Sequence[Table] = field(default_factory=tuple)
    view: str | None = None
    is_grid: bool = True
    """Whether it is made of rectangles side by side, between which no background must show."""


def sections(data: OverviewData) -> Iterator[Section]:
    """All sections, in the order of the page."""
    yield _trips(data)
    yield _market_share(data)
    yield _map(data)
    yield _hours(data)
    yield from _payments(data)
    yield _quality(data)
    yield _status(data)


def status_of(month: OverviewMonth, data: OverviewData) -> str:
    """One of the five statuses that the chart of all months shows."""
    counted = (month.dataset, month.month) in data.counted
    if month.stage in FAILED:
        return "failed or set aside"
    if counted and month.stage in ("loaded", *MISSING):
        return "synthetic" if month.is_synthetic else "in the marts"
    return "missing" if month.stage in MISSING and month.file_version is None else "needs a run"


def trips_of(data: OverviewData) -> dict[tuple[Dataset, str], int]:
    """(dataset, month) → clean trips of the months that are counted."""
    return {(row[0], row[1]): row[4] for row in data.of("quality") if row[2] == "clean"}


def _gaps(data: OverviewData, datasets: Sequence[Dataset] = tuple(Dataset)) -> list[Row]:
    """The months between the first and the last counted one that are missing or synthetic."""
    months = [month for month in data.read_months() if month.dataset in datasets]
    if not months:
        return []
    first, last = min(month.month for month in months), max(month.month for month in months)
    counted = {month.dataset for month in months}
    gaps = []
    for month in data.months:
        if month.dataset in counted and first <= month.month <= last:
            is_missing = (month.dataset, month.month) not in data.counted
            if is_missing or month.is_synthetic:
                kind = "missing" if is_missing else "synthetic"
                gaps.append({"dataset": month.dataset, "month": month.month, "kind": kind})
    return gaps


def _trips(data: OverviewData) -> Section:
    trips, synthetic = trips_of(data), {(m.dataset, m.month) for m in data.months if m.is_synthetic}
    rows = [{"dataset": dataset, "month": month, "trips": count} for (dataset, month), count in trips.items()]
    datasets = _datasets(data)

    def cell(dataset: Dataset, month: str) -> Cell:
        if Month.parse(month) < dataset.first_month:
            return "–"
        if (dataset, month) not in trips:
            return "missing"
        count = trips[dataset, month]
        return f"{count:,} (synthetic)" if (dataset, month) in synthetic else count

    listed = [[month, *(cell(dataset, month) for dataset in datasets)] for month in _months(data)]
    return Section(
        "trips",
        "Trips by month",
        "Clean trips in the file of each month, since the first month that is loaded.",
        partial(charts.trips_by_month, rows, _gaps(data)),
        [Table("Trips by month", ["Month", *map(str, datasets)], listed)],
        view="trips_by_day",
    )


def _market_share(data: OverviewData) -> Section:
    datasets = list(dict.fromkeys(month.dataset for month in data.months))
    loaded, synthetic = trips_of(data), {month.month for month in data.read_months() if month.is_synthetic}
    trips: dict[str, Counter[str]] = defaultdict(Counter)
    for _, month, licence, count in data.of("companies"):
        trips[month][_company(licence)] += count
    for (dataset, month), count in loaded.items():
        if dataset != Dataset.FHVHV:  # its trips are those of its companies
            trips[month][_company(dataset)] += count
    rows: list[Row] = []
    gaps: list[Row] = []
    for month in _months(data):
        total = sum(trips[month].values())
        expected = [dataset for dataset in datasets if Month.parse(month) >= dataset.first_month]
        if not total or any((dataset, month) not in loaded for dataset in expected):
            gaps.append({"dataset": None, "month": month, "kind": "missing"})
            continue
        rows += [{"dataset": None, "month": month, "name": n, "share": c / total} for n, c in trips[month].items()]
        if month in synthetic:
            gaps.append({"dataset": None, "month": month, "kind": "synthetic"})
    colours = dict(zip(map(_company, COMPANIES), COMPANY_COLOURS, strict=True))
    names = [name for name in colours if any(row["name"] == name for row in rows)]
    shares = {(row["month"], row["name"]): row["share"] for row in rows}
    listed = [
        [month, *(f"{shares[month, name]:.2%}" if (month, name) in shares else "–" for name in names)]
        for month in dict.fromkeys(row["month"] for row in rows)
    ]
    return Section(
        "share",
        "Market share",
        "Each company's share of the trips of a month. A month counts only if every dataset that existed then is "
        "loaded; the others are marked as missing. The trips of Uber, Lyft, Via and Juno are among those of for-hire "
        "vehicles until January 2019.",
        partial(charts.stacked_shares, rows, gaps, {name: colours[name] for name in names}),
        [Table("Share of each company", ["Month", *names], listed)],
        view="market_share",
    )


def _company(code: str | None) -> str:
    return labels()["companies"].get(code or "", "Other licences")


def _map(data: OverviewData) -> Section:
    trips = {(dataset, zone): count for dataset, zone, count in data.of("daily_zones")}
    datasets = _datasets(data)
    with_zone = {d: sum(n for (e, zone), n in trips.items() if e == d and zone is not None) for d in datasets}
    rows = [
        {"dataset": dataset, "location_id": zone, "share": count / with_zone[dataset]}
        for (dataset, zone), count in trips.items()
        if zone is not None
    ]
    names: dict[int | None, tuple[str, str]] = {zone: (name, borough) for zone, borough, name, _ in taxi_zones()}
    names[None] = ("(no zone in the file)", "")
    zones = sorted({zone for _, zone in trips}, key=lambda z: (-sum(trips.get((d, z), 0) for d in datasets), z or 0))
    listed = [
        [
            " ".join(["" if zone is None else str(zone), *names.get(zone, ("(unknown zone)", ""))]).strip(),
            *(trips.get((dataset, zone), 0) for dataset in datasets),
        ]
        for zone in zones
    ]
    without = [str(dataset) for dataset in datasets if not with_zone[dataset]]
    text = (
        "Each taxi zone's share of a dataset's pick-ups, over all months counted, of the trips that have a zone. "
        "The TLC publishes no shapes for the zones 57, 104 and 105, nor for 264 and 265, which lie elsewhere."
    )
    if without:
        text += f" The months of {' and '.join(without)} that are loaded have no zones."
    return Section(
        "map",
        "Where trips begin",
        text,
        partial(charts.pickup_maps, rows),
        [Table("Pick-ups by zone", ["Zone", *map(str, datasets)], listed)],
        view="daily_zones",
        is_grid=False,
    )


def _hours(data: OverviewData) -> Section:
    days: dict[Dataset, Counter[int]] = defaultdict(Counter)
    for month in data.read_months():
        first, end = Month.parse(month.month).first_day, Month.parse(month.month).plus(1).first_day
        days[month.dataset].update((first + timedelta(n)).isoweekday() for n in range((end - first).days))
    trips = {(dataset, weekday, hour): count for dataset, weekday, hour, count in data.of("hours")}
    rows: list[Row] = []
    tables = []
    for dataset in _datasets(data):
        averages = {
            (weekday, hour): trips.get((dataset, weekday, hour), 0) / days[dataset][weekday]
            for weekday in range(1, 8)
            for hour in range(24)
        }
        overall = sum(averages.values()) / len(averages)
        if not overall:
            continue
        rows += [
            {"dataset": dataset, "weekday": weekday, "hour": hour, "ratio": average / overall}
            for (weekday, hour), average in averages.items()
        ]
        listed = [
            [f"{hour:02d}:00", *(trips.get((dataset, weekday, hour), 0) for weekday in range(1, 8))]
            for hour in range(24)
        ]
        tables.append(Table(f"{DATASET_NAMES[dataset]}: trips by hour", ["Hour", *charts.WEEKDAYS], listed))
    return Section(
        "hours",
        "Hours and weekdays",
        "Pick-ups in each hour of the week, compared with the dataset's average hour (1), New York time. Trips "
        "stamped outside of their file's month are left out.",
        partial(charts.busy_hours, rows),
        tables,
        view="hours",
    )


def _payments(data: OverviewData) -> Iterator[Section]:
    by_month: Counter[tuple[Dataset, str]] = Counter()
    by_year: dict[tuple[Dataset, str, int | None], list[Any]] = defaultdict(lambda: [0, 0, 0, 0])
    for dataset, month, kind, *counts in data.of("payments"):
        by_month[dataset, month] += counts[0]
        sums = by_year[dataset, month[:4], kind]
        for position, value in enumerate(counts):
            sums[position] += value or 0
    shares = [
        {"dataset": dataset, "month": month, "name": _payment(kind), "share": trips / by_month[dataset, month]}
        for dataset, month, kind, trips, *_ in data.of("payments")
    ]
    names = [name for name in dict.fromkeys(map(_payment, PAYMENT_TYPES)) if any(s["name"] == name for s in shares)]
    tips = [
        {"dataset": dataset, "month": month, "share": float(tip / (total - tip))}
        for dataset, month, kind, _, _, tip, total in data.of("payments")
        if kind == CREDIT_CARD and tip is not None and total is not None and total > tip
    ]
    listed = [
        [f"{dataset} {year} {_payment(kind)}", trips, tipped, f"{tip:,.2f}", f"{total:,.2f}"]
        for (dataset, year, kind), (trips, tipped, tip, total) in by_year.items()
    ]
    header = ["Dataset, year, type", "Trips", "With a tip", "Tips in dollars", "Paid in dollars"]
    datasets = sorted({dataset for dataset, _ in by_month})
    yield Section(
        "payments",
        "How trips are paid",
        "Share of the trips by type of payment. Only yellow and green files name it.",
        partial(charts.stacked_shares, shares, _gaps(data, datasets), dict(zip(names, CATEGORIES, strict=False))),
        [Table("Payments and tips by year", header, listed)],
        view="payments",
    )
    yield Section(
        "tips",
        "Tips",
        "Tips as a share of what was paid before them, of trips paid by credit card: tips in cash are not recorded. "
        "The numbers are in the table above.",
        partial(charts.tip_shares, tips, _gaps(data, datasets)),
        is_grid=False,
    )


def _payment(kind: int | None) -> str:
    return "not recorded" if kind is None else labels()["payment_types"].get(kind, "unknown")


def _quality(data: OverviewData) -> Section:
    rows: list[Row] = []
    listed: list[list[Cell]] = []
    by_month = {(month.dataset, month.month): month for month in data.months}
    found = sorted(data.of("quality"), key=lambda row: (row[0], row[1]))
    for (dataset, month), group in groupby(found, key=lambda row: (row[0], row[1])):
        counts = {(measure, name): count for _, _, measure, name, count in group}
        read, clean = counts.get(("read", ""), 0), counts.get(("clean", ""), 0)
        reasons = {name: count for (measure, name), count in counts.items() if measure == "rejected"}
        rules = {name: count for (measure, name), count in counts.items() if measure == "suspicious"}
        published, facts = counts.get(("published", "")), by_month[dataset, month]
        shares = {"rejected": sum(reasons.values()) / read if read else 0}
        shares |= {rule: count / clean if clean else 0 for rule, count in rules.items()}
        if published and not facts.is_synthetic:
            shares["published count"] = abs(read - published) / published
        rows += [
            {"dataset": dataset, "month": month, "name": printable(name, MAX_RULE), "share": share}
            for name, share in shares.items()
            if share
        ]
        listed.append(
            [
                f"{dataset} {month}" + (" (synthetic)" if facts.is_synthetic else ""),
                read,
                sum(reasons.values()),
                _counts(reasons),
                _counts(rules),
                "not comparable" if facts.is_synthetic or published is None else published,
                listed_names(facts.unknown_columns) or "none",
            ]
        )
    rows.sort(key=lambda row: (row["name"] != "rejected", row["name"] == "published count", row["name"]))
    strange = sorted({name for month in data.months for name in month.unknown_columns})
    text = (
        "Rejected rows as a share of the rows read, suspicious ones as a share of the clean rows, and how far the rows "
        "read are from the published count, where one is known. Nothing is drawn where there are none."
    )
    text += f" Columns that the contract does not know: {listed_names(strange) or 'none'}."
    header = ["Month", "Rows read", "Rejected", "Why", "Suspicious", "Published", "Unknown columns"]
    return Section(
        "quality",
        "Data quality",
        text,
        partial(charts.quality, rows, _gaps(data)),
        [Table("Data quality by month", header, listed)],
        view="quality",
    )


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items() if count) or "none"


def _status(data: OverviewData) -> Section:
    rows = [{"dataset": month.dataset, "month": month.month, "status": status_of(month, data)} for month in data.months]
    listed: list[list[Cell]] = []
    for key, group in groupby(data.months, key=lambda m: (m.dataset, status_of(m, data), m.stage, m.problem or "")):
        months = [month.month for month in group]
        span = months[0] if len(months) == 1 else f"{months[0]} to {months[-1]}"
        dataset, status, stage, problem = key
        listed.append([f"{dataset} {span}", len(months), status, f"{stage}. {problem}" if problem else stage])
    return Section(
        "status",
        "Every month",
        "The status of every month that can be published. taxi status says more, and asks the source.",
        partial(charts.month_status, rows),
        [Table("The status of every month", ["Months", "Number", "Status", "Details"], listed)],
        is_grid=False,
    )


def _datasets(data: OverviewData) -> list[Dataset]:
    counted = {dataset for dataset, _ in data.counted}
    return [dataset for dataset in Dataset if dataset in counted]


def _months(data: OverviewData) -> list[str]:
    """Every month from the first counted one to the last."""
    months = sorted(month for _, month in data.counted)
    if not months:
        return []
    return [str(month) for month in Month.parse(months[0]).until(Month.parse(months[-1]))]
