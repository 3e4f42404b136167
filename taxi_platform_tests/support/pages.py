"""The tables of an HTML page, and the sums of marts without any file to make a page from."""

from __future__ import annotations

from html.parser import HTMLParser

from taxi_platform.marts.overview_data import OverviewData, OverviewMonth
from taxi_platform.trips.months import Dataset


class _Tables(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tables = {}
        self._text = None

    def handle_starttag(self, tag, attributes):
        if tag in ("caption", "th", "td"):
            self._text = ""
        if tag == "tr":
            self._row = []

    def handle_data(self, data):
        if self._text is not None:
            self._text += data

    def handle_endtag(self, tag):
        if tag == "caption":
            self._rows = self.tables.setdefault(self._text, [])
        elif tag in ("th", "td"):
            self._row.append(self._text)
        elif tag == "tr":
            self._rows.append(self._row)
        if tag in ("caption", "th", "td"):
            self._text = None


def tables_of(page: str) -> dict[str, list[list[str]]]:
    """Caption → the lines of the table, the header first."""
    parser = _Tables()
    parser.feed(page)
    return parser.tables


def overview_data(**months: int) -> OverviewData:
    """Sums of green months such as `m2020_04=300`, the trips of each: a third in zone 7, the rest in zone 132."""
    names = [name[1:].replace("_", "-") for name in months]
    trips = dict(zip(names, months.values(), strict=True))
    total = sum(trips.values())
    rows = {
        "daily_zones": [(7, total // 3), (132, total - total // 3)],
        "hours": [(weekday, 8, total // 7) for weekday in range(1, 8)],
        "payments": [
            (month, kind, count // 2, count // 3, 250, 1500) for month, count in trips.items() for kind in (1, 2)
        ],
        "quality": [
            (month, measure, name, rows)
            for month, count in trips.items()
            for measure, name, rows in (
                ("clean", "", count),
                ("read", "", count + 5),
                ("rejected", "invalid_value fare_amount", 5),
                ("suspicious", "zero_distance", count // 10),
            )
        ],
    }
    green = Dataset.GREEN
    return OverviewData(
        [OverviewMonth(green, month, "loaded", "0123456789ab") for month in names],
        {(green, month) for month in names},
        rows={mart: {green: of_mart} for mart, of_mart in rows.items()},
    )
