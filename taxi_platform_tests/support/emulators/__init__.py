"""Emulators of cloud services for tests: child processes on free loopback ports that end with their parent.

A child binds 127.0.0.1 itself, prints its port as its first line, and leaves when its standard input closes, so that
nothing outlives even a killed test run. It has a session of its own, so that Ctrl-C ends what uses it first.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

START_SECONDS = 60
LOOPBACK = "127.0.0.1"


@contextmanager
def running(command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run an emulator and yield its URL; its log is `folder/emulator.log`, shown when it does not start."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "emulator.log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        ) as child,
    ):
        assert child.stdout is not None
        assert child.stdin is not None
        too_late = threading.Timer(START_SECONDS, child.kill)
        too_late.start()
        try:
            port = child.stdout.readline().strip().decode()
            too_late.cancel()
            if not port.isdecimal():
                raise RuntimeError(f"{command[-1]} did not start: {log.read_text(errors='replace')[-2000:]}")
            yield f"http://{LOOPBACK}:{port}"
        finally:
            too_late.cancel()
            child.stdin.close()
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
