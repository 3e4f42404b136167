"""What systemd is told, and how it wants its log lines; without systemd, nothing is told.

The protocol: https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import MutableMapping
from contextlib import suppress

PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
"""Python's levels as syslog's, which the journal reads from `<N>` at the start of a line."""


class ServiceManager:
    """The socket and the watchdog that systemd gave this process; they are removed from the environment of children."""

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        self._address = environment.pop("NOTIFY_SOCKET", "")
        microseconds, process = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        is_ours = microseconds.isdigit() and process in ("", str(os.getpid()))
        self._watchdog_seconds = int(microseconds) / 1e6 if is_ours else 0.0
        self._status, self._next_sign = "", 0.0

    def tell(self, **fields: str | int) -> None:
        """Send fields such as `READY=1`; a manager that does not listen is none of the service's problems."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        message = "\n".join(f"{name}={value}" for name, value in fields.items())
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(5)
            sender.sendto(message.encode(), address)

    def status(self, text: str) -> None:
        """Tell what `systemctl status` shows, if it changed."""
        if text != self._status:
            self._status = text
            self.tell(STATUS=text.replace("\n", " "))

    def reloading(self) -> None:
        self.tell(RELOADING=1, MONOTONIC_USEC=time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)

    def extend_start(self, seconds: float) -> None:
        """Ask for more time to start, counted from now."""
        self.tell(EXTEND_TIMEOUT_USEC=int(seconds * 1e6))

    def sign_of_life(self) -> None:
        """Feed the watchdog, at most four times in its interval."""
        if self._watchdog_seconds and time.monotonic() >= self._next_sign:
            self.tell(WATCHDOG=1)
            self._next_sign = time.monotonic() + self._watchdog_seconds / 4


class LineFormatter(logging.Formatter):
    """One line for each event: for the journal with its priority, otherwise with date and level."""

    def __init__(self, for_journal: bool) -> None:
        super().__init__("%(message)s" if for_journal else "%(asctime)s %(levelname)s %(message)s")
        self._for_journal = for_journal

    def format(self, record: logging.LogRecord) -> str:
        record.exc_info = record.exc_text = None  # a traceback has many lines
        line = " ".join(super().format(record).split())
        return f"<{PRIORITIES.get(record.levelno, 6)}>{line}" if self._for_journal else line


def goes_to_journal() -> bool:
    """Whether stderr is the journal's stream, not a file or a pipe that it was redirected to."""
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
