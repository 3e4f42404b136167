"""One process of `taxi dev`: started in a session of its own, watched, started again when it ends, and stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from taxi_platform.trips.errors import TaxiError
from taxi_platform.trips.processes import end_with_parent

READY_SECONDS = 120.0
END_SECONDS = 8.0
RESTARTS, RESTART_WINDOW = 5, 600.0
"""A child that ends more often than this within these seconds will not stay alive."""


class Child:
    """A process with a log. `ready` says whether it answers; `socket` is the file it listens on, if it makes one."""

    def __init__(
        self, name: str, arguments: Sequence[str], log: Path, ready: Callable[[], bool], socket: Path | None = None
    ) -> None:
        self.name, self.arguments, self.log, self.ready, self.socket = name, arguments, log, ready, socket
        self.process: subprocess.Popen[bytes] | None = None
        self.restarts: list[float] = []
        self._had_child = False

    def start(self) -> None:
        if self.socket:
            self.socket.unlink(missing_ok=True)  # left by a killed process, it would look ready
        self._had_child = False
        with self.log.open("ab") as out:
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

    def wait_until_ready(self) -> None:
        """Raises `TaxiError` if it ends, or is not ready within `READY_SECONDS`."""
        deadline = time.monotonic() + READY_SECONDS
        while not self.ready():
            if self.has_ended():
                raise self._ended()
            if time.monotonic() > deadline:
                raise TaxiError(f"The {self.name} did not start within {READY_SECONDS:.0f} s.", f"Its log: {self.log}.")
            time.sleep(0.1)

    def has_ended(self) -> bool:
        """Whether the process ended, or the one that works for it.

        Dagster's code server only passes requests on to a child, which it does not start again.
        """
        if self.process is None or self.process.poll() is not None:
            return True
        if not self.socket or not self.ready():
            return False
        try:
            children = psutil.Process(self.process.pid).children()
            alive = any(child.status() != psutil.STATUS_ZOMBIE for child in children)
        except psutil.NoSuchProcess:
            return False  # it ended while we looked
        self._had_child |= alive
        return self._had_child and not alive

    def restart_if_ended(self, say: Callable[[str], None]) -> None:
        """Start it again if it ended; raises `TaxiError` if it ended more than `RESTARTS` times."""
        if not self.has_ended():
            return
        error, now = self._ended(), time.monotonic()
        self.restarts = [then for then in self.restarts if now - then < RESTART_WINDOW]
        if len(self.restarts) >= RESTARTS:
            raise error
        self.restarts.append(now)
        say(f"{error.problem} It is started again.")
        self.restart()

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

    def _ended(self) -> TaxiError:
        status = self.process.poll() if self.process else None
        lines = [line for line in self.log.read_text("utf-8", "replace").splitlines() if line.strip()]
        return TaxiError(
            f"The {self.name} ended with status {status}: {lines[-1] if lines else 'no output'}",
            f"Its log is {self.log}.",
        )


def _prepare() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)  # a background job of a shell inherits "ignore"
    end_with_parent()
