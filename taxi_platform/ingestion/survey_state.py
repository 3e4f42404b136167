"""What one tick of a dataset leaves for the next: where it stopped, what was not published, and the day's requests.

Schedules have no cursor, so this is a small file under `$TAXI_HOME/survey/`. Losing it costs time only.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from filelock import FileLock, Timeout

from taxi_platform.trips.errors import DamagedFile, LakeBusy, LakeError
from taxi_platform.trips.months import Dataset, Month, newest_month
from taxi_platform.trips.stored_json import dump, load, record

REQUESTS_A_DAY = 750
"""To the source, per dataset and day (UTC). All 213 months of yellow once are 426 requests, the newest three every hour
144 and the sensor 32: 602."""

REQUESTS_A_QUESTION = 2
"""A HEAD and, if that is forbidden, a GET of one byte: S3 forbids the HEAD of every month that is not published."""

NEWEST = 3
"""Months that are likely to be published any day."""
ASK_NEWEST_AGAIN = timedelta(hours=1)
ASK_AGAIN = timedelta(hours=20)
"""When to ask again after "not published". For older months once a day: under 24 hours, as ticks may come early."""

LOCK_SECONDS = 5
"""The file is locked for a millisecond at a time."""


@dataclass
class _Content:
    source: str
    day: str
    requests: int = 0
    stopped_at: str | None = None
    not_published: dict[str, str] = field(default_factory=dict)
    """Month → when the source said that it is not published, as ISO time."""


def source_name(url: str) -> str:
    """What tells a source from others: a hash, because its URL may hold a password."""
    return hashlib.sha256(url.encode()).hexdigest()[:12]


class SurveyState:
    """The file of one dataset. `source` names the source (no secret); `now` is the tick's time in UTC.

    Safe for several threads and processes. Raises `LakeError` where the folder cannot be written.
    """

    def __init__(self, home: Path, dataset: Dataset, source: str, now: datetime) -> None:
        self.path = home / "survey" / f"{dataset}.json"
        self.source, self.now = source, now
        self._thread_lock = threading.Lock()
        self._content = self._read()
        self._new_answers: dict[str, str] = {}

    def newest_first_from_last_stop(self, months: Sequence[Month]) -> list[Month]:
        """The months (newest first), beginning with those that the last tick did not reach."""
        stopped_at = self._content.stopped_at
        later = [month for month in months if stopped_at and str(month) < stopped_at]
        return [*later, *(month for month in months if month not in later)]

    def was_not_published(self, month: Month) -> bool:
        """Whether the source said so recently enough not to be asked again."""
        asked = self._content.not_published.get(str(month))
        if asked is None:
            return False
        is_new = month > newest_month(self.now.date()).plus(-NEWEST)
        age = self.now - datetime.fromisoformat(asked)
        return timedelta(0) <= age < (ASK_NEWEST_AGAIN if is_new else ASK_AGAIN)

    def note_not_published(self, month: Month) -> None:
        self._new_answers[str(month)] = self.now.isoformat(timespec="seconds")

    def take_question(self) -> bool:
        """Count one question to the source; returns False if the day's requests are used up."""
        with self._locked_content() as content:
            if content.requests + REQUESTS_A_QUESTION > REQUESTS_A_DAY:
                return False
            content.requests += REQUESTS_A_QUESTION
        return True

    def save(self, stopped_at: Month | None) -> None:
        """Save the source's answers and the last month that was looked at, None if all were."""
        with self._locked_content() as content:
            content.stopped_at = str(stopped_at) if stopped_at else None
            content.not_published.update(self._new_answers)

    def save_answers(self) -> None:
        """Save only the source's answers; the last stop stays."""
        with self._locked_content() as content:
            content.not_published.update(self._new_answers)

    @contextmanager
    def _locked_content(self) -> Iterator[_Content]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._thread_lock, FileLock(self.path.with_suffix(".lock"), timeout=LOCK_SECONDS, poll_interval=0.01):
                content = self._read()
                yield content
                part = self.path.with_suffix(".part")
                part.write_text(dump(asdict(content)), encoding="utf-8")
                part.replace(self.path)
        except Timeout:
            raise LakeBusy(f"{self.path} is locked.", "Run again.") from None
        except OSError as error:
            raise LakeError(
                f"Cannot write {self.path}: {error.strerror}.", "Set TAXI_HOME to a folder that you own."
            ) from error

    def _read(self) -> _Content:
        """The file's content; new content if there is no file, if it is damaged, or if it is about another source.

        Raises `NewerFormat`.
        """
        today = f"{self.now:%Y-%m-%d}"
        try:
            stored = load(self.path.read_bytes(), str(self.path), "survey state", "It is made anew.")
            content = _content_of(record(_Content, stored))
        except (OSError, ValueError, DamagedFile):
            return _Content(self.source, today)
        if content.source != self.source:
            return _Content(self.source, today)
        if content.day != today:
            content.day, content.requests = today, 0
        return content


def _content_of(content: _Content) -> _Content:
    """The same; raises `ValueError` if one of its values is wrong."""
    if content.requests < 0:
        raise ValueError("a negative number of requests")
    if any(datetime.fromisoformat(time).tzinfo is None for time in content.not_published.values()):
        raise ValueError("a time without a zone")
    return content
