"""Reference data in the package: how many rows the TLC published for each month, and the taxi zones.

`published_counts.csv`: rows of 606 files, counted in Parquet footers and CSV files between 2024-08 and 2026-10. CSV and
Parquet of the same month differ, because the TLC rewrote the archive in May 2022. `taxi_zones.csv`: the TLC's lookup
table; zones 264 and 265 have the labels in use since February 2024 (before: Unknown/NV and Unknown/NA).
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources

from taxi_platform.trips.contract import Column
from taxi_platform.trips.formats import Format
from taxi_platform.trips.months import DatasetMonth

ZONE_COLUMNS = (
    Column("location_id", "I", "Taxi zone: 1 to 263 in the city, 264 unknown, 265 outside of New York City."),
    Column("borough", "S", "Borough; EWR for Newark Airport."),
    Column("zone", "S", "Name of the zone."),
    Column("service_zone", "S", "Yellow Zone, Boro Zone, Airports, EWR or N/A (a text, not a null)."),
)


CSV_PARQUET_TOLERANCE = 0.2
"""Accepted difference, as a share, between CSV and Parquet of a month: green 2019-04 has 514,392 and 567,852 rows."""


@dataclass(frozen=True)
class CountComparison:
    """Rows read from a file, compared with the count of the same month known from its publication."""

    kind: str
    """Of the file that was read: CSV or Parquet."""
    compared: str | None
    """Kind of the file whose count is known; None if neither is."""
    published: int | None
    """Its rows; None if no count is known."""
    rows_read: int

    @property
    def agrees(self) -> bool:
        """Whether both counts are equal, or close enough where one is of CSV and the other of Parquet."""
        if self.published is None or self.kind == self.compared:
            return self.published in (None, self.rows_read)
        return abs(self.rows_read - self.published) <= CSV_PARQUET_TOLERANCE * self.published

    def __str__(self) -> str:
        if self.published is None:
            return f"{self.rows_read:,} rows read; no published count is known for this file."
        difference = self.rows_read - self.published
        verdict = f"{difference:+,} rows" if difference else "the same"
        if self.kind != self.compared and self.agrees:
            verdict += ", as CSV and Parquet may differ"
        read, published = f"{self.rows_read:,} rows read from {self.kind}", f"{self.published:,} published"
        return f"{read}, {published} in {self.compared}: {verdict}."


def compare_count(dataset_month: DatasetMonth, file_format: str, rows_read: int) -> CountComparison:
    """Compare with the published count of the same kind of file or, if that is not known, of the other kind."""
    kind, other = ("Parquet", "CSV") if file_format == Format.PARQUET.value else ("CSV", "Parquet")
    for compared in (kind, other):
        if counts := published_counts().get((str(dataset_month.dataset), str(dataset_month.month), compared.lower())):
            return CountComparison(kind, compared, rows_read if rows_read in counts else counts[-1], rows_read)
    return CountComparison(kind, None, None, rows_read)


@cache
def published_counts() -> dict[tuple[str, str, str], tuple[int, ...]]:
    """(dataset, month, csv or parquet) → rows of every known version, the newest last: the TLC republishes months."""
    counts: dict[tuple[str, str, str], tuple[int, ...]] = {}
    for row in _table("published_counts.csv"):
        key = row["dataset"], row["month"], row["format"]
        counts[key] = (*counts.get(key, ()), int(row["rows"]))
    return counts


@cache
def taxi_zones() -> tuple[tuple[int, str, str, str], ...]:
    """location_id, borough, zone, service_zone of all 265 zones."""
    return tuple((int(r["location_id"]), r["borough"], r["zone"], r["service_zone"]) for r in _table("taxi_zones.csv"))


def _table(name: str) -> list[dict[str, str]]:
    text = resources.files("taxi_platform.trips").joinpath(name).read_text("utf-8")
    return list(csv.DictReader(text.splitlines()))
