"""One part of the service: a process in a session of its own, watched, started again when it ends, and stopped."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import psutil

from taxi_platform.trips.errors import TaxiError
from taxi_platform.trips.processes import end_with_parent
from taxi_platform.trips.text import printable

READY_SECONDS = 300.0
END_SECONDS = 8.0
RESTART_DELAYS, RESTART_WINDOW = (0.0, 1.0, 2.0, 4.0, 8.0), 600.0
"""Seconds before each restart. A child that ends more often within the window will not stay alive."""
LOG_BYTES = 10_000_000
"""A longer log is set aside; one such file is kept. Where its database is away, the daemon logs 12 kB a second."""
TAIL_BYTES, LINE_CHARACTERS = 4_096, 300
COLOURS = re.compile("\x1b\\[[0-9;]*m")

log = logging.getLogger("taxi_platform.serve")


class Child:
    """A process with a log. `ready` says whether it answers; `socket` is the file it listens on, if it makes one.

    `is_ready` holds from the first answer until the process ends.
    """

    def __init__(
        self, name: str, arguments: Sequence[str], log: Path, ready: Callable[[], bool], socket: Path | None = None
    ) -> None:
        self.name, self.arguments, self.log, self.ready, self.socket = name, arguments, log, ready, socket
        self.process: subprocess.Popen[bytes] | None = None
        self.restarts: list[float] = []
        self.is_ready = False
        self._was_ready = False
        self._started_at = self._start_at = 0.0
        self._log_begin = 0
        self._workers: list[psutil.Process] = []

    def start(self) -> None:
        if self.socket:
            self.socket.unlink(missing_ok=True)  # left by a killed process, it would look ready
        self.is_ready = False
        self._workers = []
        self._started_at = time.monotonic()
        self._set_log_aside()
        with self._open_log() as out:
            self._log_begin = out.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-P", *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                # With it, no module is imported from the working folder, also not by the processes that it starts.
                env={**os.environ, "DAGSTER_DISABLE_TELEMETRY": "1", "PYTHONSAFEPATH": "1"},
                start_new_session=True,
                preexec_fn=_prepare,
            )

    def keep_alive(self) -> str | None:
        """Look once, without waiting: note that it answers, or start it again if it ended, later each time.

        Returns what happened if it ended. Raises `TaxiError` if it ended before it ever answered, or more often
        than `RESTART_DELAYS` allows, or does not answer within `READY_SECONDS`.
        """
        now = time.monotonic()
        if self.process is None:
            if now >= self._start_at:
                self.start()
            return None
        if self.has_ended():
            return self._plan_restart(now)
        self._set_log_aside()
        if not self.is_ready and self.ready():
            self.is_ready = self._was_ready = True
        elif not self.is_ready and now - self._started_at > READY_SECONDS:
            raise TaxiError(f"The {self.name} did not start within {READY_SECONDS:.0f} s.", f"Its log: {self.log}.")
        return None

    def has_ended(self) -> bool:
        """Whether the process ended, or the one that works for it.

        Dagster's code server only passes requests on to a child, which it does not start again. It has that child
        before it makes its socket, and goes on without one if the child dies while it starts.
        """
        if self.process is None or self.process.poll() is not None:
            return True
        if not self.socket or not self.ready():
            return False
        if any(_is_alive(worker) for worker in self._workers):
            return False
        # Only now: to find them, psutil reads of all processes who started them, 4 ms each time.
        try:
            self._workers = psutil.Process(self.process.pid).children()
        except psutil.NoSuchProcess:
            return False  # it ended while we looked
        return not any(_is_alive(worker) for worker in self._workers)

    def restart(self) -> None:
        self.stop()
        self.start()

    def stop(self) -> None:
        """Terminate the process, and kill it if it does not end."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _plan_restart(self, now: float) -> str:
        ended, seconds = self._how_it_ended(), self._seconds_to_restart(now)
        if not self._was_ready:
            raise TaxiError(f"The {self.name} did not start: it {ended}", f"Its log: {self.log}.")
        if seconds is None:
            times = f"{len(RESTART_DELAYS) + 1} times within {RESTART_WINDOW / 60:.0f} minutes"
            raise TaxiError(f"The {self.name} ended {times}: the last time it {ended}", f"Its log: {self.log}.")
        self.stop()
        self.process, self._start_at, self.is_ready = None, now + seconds, False
        return f"The {self.name} {ended} It is started again{f' in {seconds:.0f} s' if seconds else ''}."

    def _seconds_to_restart(self, now: float) -> float | None:
        """How long to wait before the next start; None if it ended too often."""
        self.restarts = [then for then in self.restarts if now - then < RESTART_WINDOW]
        if len(self.restarts) >= len(RESTART_DELAYS):
            return None
        self.restarts.append(now)
        return RESTART_DELAYS[len(self.restarts) - 1]

    def _open_log(self) -> IO[bytes]:
        try:
            return self.log.open("ab")
        except OSError as error:  # a full disk: better without its log than not at all
            log.warning("Cannot write %s: %s. The %s starts without it.", self.log, error.strerror, self.name)
            return open(os.devnull, "ab")

    def _set_log_aside(self) -> None:
        """Copy the log and empty it, not rename it: processes that have it open go on appending to it."""
        with suppress(OSError):
            if self.log.stat().st_size > LOG_BYTES:
                shutil.copyfile(self.log, self.log.with_name(f"{self.log.name}.1"))
                os.truncate(self.log, 0)
                self._log_begin = 0

    def _how_it_ended(self) -> str:
        """A predicate with a full stop. What the process logged last tells something only if it ended by itself."""
        status = self.process.poll() if self.process else None
        if status is None:
            return "lost the process that works for it."
        if status < 0:
            return f"was ended by signal {-status} ({signal.strsignal(-status)})."
        return f"ended with status {status}: {self._last_line().rstrip('.')}."

    def _last_line(self) -> str:
        """Of what was logged since the last start."""
        lines: list[str] = []
        with suppress(OSError), self.log.open("rb") as file:
            file.seek(max(self._log_begin, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            text = COLOURS.sub("", file.read().decode("utf-8", "replace"))
            lines = [line for line in text.splitlines() if line.strip()]
        return printable(lines[-1], LINE_CHARACTERS) if lines else "no output"


def _is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _prepare() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)  # a background job of a shell inherits "ignore"
    end_with_parent()
