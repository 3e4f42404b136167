"""What is known of something that may take long to read, or never answer: read by one thread at a time, and kept."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from taxi_platform.runs.instance import described

Value = TypeVar("Value")
SHARE, LONGEST_PAUSE = 0.05, 600.0
"""What is costly is read for this share of the time: what takes 6 s, every two minutes; at the latest after so many
seconds, because it may have taken long only as it hung."""

log = logging.getLogger(__name__)


class Known(Generic[Value]):
    """The value that `read` returned last; it is read again when it is asked for and older than `seconds`.

    `read` runs in a thread of its own, so whoever asks waits no longer than they want to. While it hangs, nobody waits
    for it and no second thread is started. The thread is a daemon: a hanging one does not keep the process from ending.
    """

    def __init__(self, name: str, read: Callable[[], Value], seconds: float, is_costly: bool = False) -> None:
        self.name = name
        self.value: Value | None = None
        self.problem: str | None = None
        """Why the last reading failed; None if it did not."""
        self.read_at: float | None = None
        """The end of the last reading that succeeded, in seconds since 1970."""
        self.took = 0.0
        """Seconds of the last reading."""
        self._read, self._seconds, self._is_costly = read, seconds, is_costly
        self._lock = threading.Lock()
        self._reading: Future[None] | None = None
        self._began = self._ended = float("-inf")

    async def refresh(self, wait: float) -> bool:
        """Start a reading if one is due, and wait until it has taken `wait` seconds; returns whether it then ended."""
        reading = self._start()
        if reading is None or reading.done():
            return True
        if (remaining := self._began + wait - time.monotonic()) > 0:
            await asyncio.wait([asyncio.wrap_future(reading)], timeout=remaining)
        return reading.done()

    @property
    def hanging_for(self) -> float:
        """Seconds since the current reading began; 0 if there is none."""
        return time.monotonic() - self._began if self._reading else 0.0

    def _start(self) -> Future[None] | None:
        """The current reading, a new one if it is due; None if the value is recent enough."""
        with self._lock:
            pause = max(self._seconds, min(self.took / SHARE, LONGEST_PAUSE) if self._is_costly else 0)
            if self._reading is None and time.monotonic() - self._ended >= pause:
                self._reading, self._began = Future(), time.monotonic()
                threading.Thread(target=self._run, args=[self._reading], name=self.name, daemon=True).start()
            return self._reading

    def read_now(self) -> None:
        """Read in this thread, however long it takes; a failure is kept as `problem`."""
        began = time.monotonic()
        try:
            self.value, self.problem, self.read_at = self._read(), None, time.time()
        except Exception as error:  # whatever it is, those who ask are told, and the next reading may succeed
            problem = described(error)
            if problem != self.problem:
                log.warning("%s: %s", self.name, problem)
            self.problem = problem
        self._ended = time.monotonic()
        self.took = self._ended - began

    def _run(self, reading: Future[None]) -> None:
        try:
            self.read_now()
        finally:
            with self._lock:
                self._reading = None
            reading.set_result(None)
