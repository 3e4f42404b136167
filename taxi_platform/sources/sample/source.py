"""Synthetic months: the same every time, without network, published with the TLC's lag of two months."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from taxi_platform.sources.base import FetchedFile, Progress, Publication, Source
from taxi_platform.sources.sample.writing import DEFAULT_ROWS, SAMPLE_VERSION, write_sample
from taxi_platform.trips.errors import NotPublished
from taxi_platform.trips.files import received, verify
from taxi_platform.trips.months import DatasetMonth, newest_month


@dataclass(frozen=True)
class SampleSource(Source):
    """Months of `rows` trips each, made up; the newest is the one before last month."""

    rows: int = DEFAULT_ROWS
    today: Callable[[], date] = date.today

    def stat(self, dataset_month: DatasetMonth) -> Publication | None:
        if not dataset_month.dataset.first_month <= dataset_month.month <= newest_month(self.today()):
            return None
        url = f"sample://{dataset_month.dataset}/{dataset_month.month}?rows={self.rows}"
        return Publication(url, f"{SAMPLE_VERSION}-{self.rows}")

    def fetch(
        self, dataset_month: DatasetMonth, folder: Path, progress: Progress = lambda done, total: None
    ) -> FetchedFile:
        if not (publication := self.stat(dataset_month)):
            raise NotPublished(f"{dataset_month} is not published.", "The newest month is the one before last month.")
        name = f"{dataset_month.stem}.csv.gz"
        with received(folder, name) as part:
            write_sample(dataset_month, self.rows, part)
            found, size = verify(part), part.stat().st_size
            with part.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            progress(size, size)
        return FetchedFile(folder / name, publication, size, sha256, found.rows, found.plain)
