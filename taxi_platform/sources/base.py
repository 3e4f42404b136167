"""What every source can do: say whether a month is published, and fetch it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from taxi_platform.trips.months import DatasetMonth
from taxi_platform.trips.publication import FetchedFile, Publication

__all__ = ["FetchedFile", "Progress", "Publication", "Source"]

Progress = Callable[[int, int | None], None]
"""Called with the bytes fetched so far and the bytes expected (None where unknown)."""


class Source(ABC):
    """A place that publishes months. Raises `NotPublished`, `SourceUnavailable`, `SourceRefused` or `NotData`."""

    @abstractmethod
    def stat(self, dataset_month: DatasetMonth) -> Publication | None:
        """The month's publication, or None where it is not published. Costs one small request."""

    def for_polling(self, pause: Callable[[], None]) -> Source:
        """The same source for a caller in a hurry: `stat` pauses first, is tried once and soon given up."""
        return self

    @abstractmethod
    def fetch(
        self, dataset_month: DatasetMonth, folder: Path, progress: Progress = lambda done, total: None
    ) -> FetchedFile:
        """Fetch the month into `folder` under its published name, verified; leaves nothing there when it fails."""
