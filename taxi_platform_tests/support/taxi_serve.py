"""A real `taxi serve`, once or under a process manager that starts it again, and its processes."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import requests

from taxi_platform_tests.support.system import TAXI, free_port, wait_for

FORK_SERVER, RUN = "fork server", "run"
COMMANDS = {
    "code server": "code-server",
    "api grpc": "api grpc",
    "daemon": "taxi_platform.ui.daemon",
    "webserver": "taxi_platform.ui.webserver",
    FORK_SERVER: "multiprocessing.forkserver",
}
"""A part → what its command line contains."""


def environment(home: Path, settings: dict[str, str]) -> dict[str, str]:
    """These settings and no others."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TAXI_", "DAGSTER_"))}
    return {**inherited, "TAXI_HOME": str(home), **settings}


@contextmanager
def taxi_serve(home: Path, *options: str, **settings: str) -> Iterator[subprocess.Popen[str]]:
    """`taxi serve` with these options; its stderr is a pipe. It is killed if it still runs at the end."""
    command = [TAXI, "serve", *options]
    with subprocess.Popen(command, env=environment(home, settings), stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(300)
                process.kill()


def read_until(process: subprocess.Popen[str], text: str) -> list[str]:
    """The lines of its stderr up to the one that contains the text; fails if it ends before."""
    lines = []
    assert process.stderr is not None
    for line in process.stderr:
        lines.append(line.rstrip("\n"))
        if text in line:
            return lines
    raise AssertionError(f"ended without {text!r}: {lines}")


class Manager:
    """Starts `taxi serve` again whenever it ends, as systemd with `Restart=always` does."""

    def __init__(self, home: Path, log: Path, **settings: str) -> None:
        self.port, self.starts = free_port(), 0
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = [TAXI, "serve", "--port", str(self.port), "--drain-seconds", "60"]
        self._environment, self._log = environment(home, settings), log
        self._process: subprocess.Popen[bytes] | None = None
        self._is_stopping = False
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self) -> Manager:
        self._thread.start()
        self.wait_for_ui()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_stopping = True
        if self._process:
            with suppress(ProcessLookupError):
                self._process.terminate()
        self._thread.join(120)

    def wait_for_ui(self) -> None:
        wait_for(self.answers, 600)

    def answers(self) -> bool:
        with suppress(requests.RequestException):
            return requests.get(f"{self.url}/server_info", timeout=5).ok
        return False

    def processes(self) -> dict[str, list[psutil.Process]]:
        """The processes by part, without those that are not there."""
        parts: dict[str, list[psutil.Process]] = {}
        with suppress(psutil.NoSuchProcess, AttributeError):
            serve = psutil.Process(self._process.pid)  # type: ignore[union-attr]
            parts["serve"] = [serve]
            for process in serve.children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if part := _part_of(process):
                        parts.setdefault(part, []).append(process)
        return parts

    def _keep(self) -> None:
        while not self._is_stopping:
            with self._log.open("ab") as out:
                self._process = subprocess.Popen(self._command, env=self._environment, stdout=out, stderr=out)
            self.starts += 1
            self._process.wait()
            time.sleep(0.3)


def _part_of(process: psutil.Process) -> str:
    command = " ".join(process.cmdline())
    if process.status() == psutil.STATUS_ZOMBIE:
        return ""
    part = next((part for part, text in COMMANDS.items() if text in command), "")
    if part == FORK_SERVER and COMMANDS[FORK_SERVER] in " ".join(process.parent().cmdline()):  # type: ignore[union-attr]
        return RUN  # a fork has the same command line
    return part
