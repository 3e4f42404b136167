"""Synthetic months: identical every time, without a network, published with the TLC's delay of two months."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path

from taxi_platform.sources.base import FetchedFile, Progress, Publication, Source
from taxi_platform.trips.errors import NotPublished
from taxi_platform.trips.files import received, verify
from taxi_platform.trips.known import published_counts
from taxi_platform.trips.months import DatasetMonth, newest_month

SAMPLE_VERSION = "1"
"""Part of a publication's version. Raise it whenever the bytes of a month with the same number of rows change."""

TRIPS_PER_ROW = 400
MIN_ROWS = 200
"""For the smallest green months. The largest month, fhv 2018-12 with 23.9 million trips, has 59,760 rows."""


@cache
def proportional_rows(dataset_month: DatasetMonth) -> int:
    """The rows of a month by default: one for every 400 trips really published, and at least 200.

    A month without a known count has the rows of the newest earlier month with one, or else of the dataset's first.
    """
    counts = {
        month: versions[-1]
        for (dataset, month, file_format), versions in published_counts().items()
        if dataset == dataset_month.dataset.value and file_format == "parquet"
    }
    month = max((month for month in counts if month <= str(dataset_month.month)), default=min(counts))
    return max(MIN_ROWS, round(counts[month] / TRIPS_PER_ROW))


@dataclass(frozen=True)
class SampleSource(Source):
    """Synthetic months of `rows` trips each, by default in proportion to the real ones; the newest is two months ago.

    The version names the rows: after a change of `rows`, or of the default, a month counts as republished. Homes
    that were filled when the default was 20,000 rows keep their months with `sample://?rows=20000`.
    """

    rows: int | None = None
    today: Callable[[], date] = date.today

    def address(self, dataset_month: DatasetMonth) -> str:
        return f"sample://{dataset_month.dataset}/{dataset_month.month}"

    def stat(self, dataset_month: DatasetMonth) -> Publication | None:
        if not dataset_month.dataset.first_month <= dataset_month.month <= newest_month(self.today()):
            return None
        rows = self._rows_of(dataset_month)
        url = f"{self.address(dataset_month)}?rows={rows}"
        return Publication(url, f"{SAMPLE_VERSION}-{rows}")

    def _rows_of(self, dataset_month: DatasetMonth) -> int:
        return proportional_rows(dataset_month) if self.rows is None else self.rows

    def fetch(
        self, dataset_month: DatasetMonth, folder: Path, progress: Progress = lambda done, total: None
    ) -> FetchedFile:
        from taxi_platform.sources.sample.writing import write_sample

        if not (publication := self.stat(dataset_month)):
            raise NotPublished(f"{dataset_month} is not published.", "The newest month is the one before last month.")
        name = f"{dataset_month.stem}.csv.gz"
        with received(folder, name) as part:
            write_sample(dataset_month, self._rows_of(dataset_month), part)
            content, size = verify(part), part.stat().st_size
            with part.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            progress(size, size)
        return FetchedFile(folder / name, publication, size, sha256, content.rows, content.plain)
