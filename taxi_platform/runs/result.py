"""What an ingestion did to a month, and the exit status that follows from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any

from taxi_platform.trips.months import DatasetMonth


class IngestStatus(StrEnum):
    """How the ingestion of a month ended."""

    LOADED = "loaded"
    UNCHANGED = "unchanged"
    MARTS_BUILT = "marts built"
    """Everything before the marts was unchanged."""
    NOT_PUBLISHED = "not published"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    NOT_BEGUN = "not begun"
    """An interruption came first; there is no run."""
    QUEUED = "queued"
    """It was queued for Dagster, which still has it: nobody waited for its end."""


class ExitStatus(IntEnum):
    """The exit statuses of `taxi`."""

    OK = 0
    FAILED = 1
    USER_ERROR = 2
    NOT_PUBLISHED = 3
    INTERRUPTED = 130


UNFINISHED = (IngestStatus.FAILED, IngestStatus.INTERRUPTED, IngestStatus.NOT_BEGUN, IngestStatus.QUEUED)
"""The statuses of months that have to be ingested again."""

EXIT_STATUSES = {
    IngestStatus.INTERRUPTED: ExitStatus.INTERRUPTED,
    IngestStatus.NOT_BEGUN: ExitStatus.INTERRUPTED,
    IngestStatus.QUEUED: ExitStatus.INTERRUPTED,
    IngestStatus.FAILED: ExitStatus.FAILED,
    IngestStatus.NOT_PUBLISHED: ExitStatus.NOT_PUBLISHED,
}
"""The exit status for each status that is not a success; the first one that occurs decides."""


@dataclass(frozen=True)
class MonthResult:
    """The outcome of one month; counts are None where the run did not get that far.

    `problem` says what failed, or which checks of a successful run did not pass.
    """

    dataset_month: DatasetMonth
    status: IngestStatus
    seconds: float = 0.0
    rows_read: int | None = None
    rows_clean: int | None = None
    rows_rejected: int | None = None
    rows_in_table: int | None = None
    run_id: str | None = None
    problem: str = ""

    @property
    def succeeded(self) -> bool:
        """Whether the run succeeded; the run of a month that is not published does."""
        return self.status not in UNFINISHED

    def as_json(self) -> dict[str, Any]:
        """The entry of `taxi ingest --json`; its keys are public."""
        return {
            "dataset": str(self.dataset_month.dataset),
            "month": str(self.dataset_month.month),
            "status": str(self.status),
            "rows_read": self.rows_read,
            "rows_clean": self.rows_clean,
            "rows_rejected": self.rows_rejected,
            "rows_in_table": self.rows_in_table,
            "seconds": round(self.seconds, 2),
            "run_id": self.run_id,
            "problem": self.problem or None,
        }


def exit_status(results: Iterable[MonthResult]) -> ExitStatus:
    """The exit status for all months together."""
    statuses = {result.status for result in results}
    return next((code for status, code in EXIT_STATUSES.items() if status in statuses), ExitStatus.OK)
