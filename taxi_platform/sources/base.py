"""The interface of every source: ask whether a month is published, and fetch it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from taxi_platform.trips.months import DatasetMonth
from taxi_platform.trips.publication import FetchedFile, Publication

__all__ = ["FetchedFile", "Progress", "Publication", "Source"]

Progress = Callable[[int, int | None], None]
"""Called with the number of bytes fetched so far and the number expected (None if unknown)."""


class Source(ABC):
    """A place that publishes months. Methods raise `NotPublished`, `SourceUnavailable`, `SourceRefused`, `NotData`."""

    @abstractmethod
    def stat(self, dataset_month: DatasetMonth) -> Publication | None:
        """The month's publication, or None if it is not published. Costs one small request."""

    @abstractmethod
    def address(self, dataset_month: DatasetMonth) -> str:
        """Where the month is looked for, for people: without secrets."""

    def for_polling(self, pause: Callable[[], None]) -> Source:
        """The same source for callers with little time: `stat` calls `pause`, then tries once, with short timeouts."""
        return self

    @abstractmethod
    def fetch(
        self, dataset_month: DatasetMonth, folder: Path, progress: Progress = lambda done, total: None
    ) -> FetchedFile:
        """Fetch the month into `folder` under its published name and verify it; leaves no file if that fails."""
