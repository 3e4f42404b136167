"""Signals, noted for a main loop that looks at them between its steps."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any, Self


class Signals:
    """A context in which SIGINT and SIGTERM are counted as `stops`, and SIGHUP asks for a reload.

    Without `reloads` SIGHUP is a stop too, unless it is ignored, as `nohup` has it.
    """

    def __init__(self, reloads: bool) -> None:
        self.stops = 0
        self._reloads, self._reload = reloads, False
        self._earlier: dict[int, Any] = {}

    def take_reload(self) -> bool:
        """Whether a reload was asked for since the last call."""
        asked, self._reload = self._reload, False
        return asked

    def __enter__(self) -> Self:
        numbers = [signal.SIGINT, signal.SIGTERM]
        if hasattr(signal, "SIGHUP") and (self._reloads or signal.getsignal(signal.SIGHUP) != signal.SIG_IGN):
            numbers.append(signal.SIGHUP)
        self._earlier = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._reloads and number not in (signal.SIGINT, signal.SIGTERM):
            self._reload = True
        else:
            self.stops += 1
