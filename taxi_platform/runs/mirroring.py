"""What a step prints, shown on the terminal by a thread.

Dagster stores it in files, and starts four processes for each run that copy these files to the terminal and watch each
other, two of them whole Pythons: 0.1 s.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from taxi_platform.runs.dagster_internals import compute_logs_module

SECONDS = 0.2
"""How often the thread looks."""


@contextmanager
def mirrored_by_threads() -> Iterator[None]:
    """Have threads of this process mirror what steps print, until the end."""
    module = compute_logs_module()
    original = module.tail_to_stream
    module.tail_to_stream = mirror
    try:
        yield
    finally:
        module.tail_to_stream = original


@contextmanager
def mirror(path: str, stream: Any) -> Iterator[tuple[None, None]]:
    """Copy what is written to the file at `path` to where `stream` goes now. Yields no processes, as there are none."""
    try:
        terminal = os.dup(stream.fileno())
    except (AttributeError, OSError, ValueError):  # no file: somebody captures what is printed
        yield None, None
        return
    ended = threading.Event()
    with os.fdopen(terminal, "wb", buffering=0) as target, Path(path).open("rb") as source:
        thread = threading.Thread(target=_copy, args=(source, target, ended), daemon=True)
        thread.start()
        try:
            yield None, None
        finally:
            ended.set()
            thread.join()


def _copy(source: BinaryIO, target: BinaryIO, ended: threading.Event) -> None:
    is_last = False
    while not is_last:
        is_last = ended.wait(SECONDS)
        with suppress(OSError):  # a terminal that was closed
            target.write(source.read())
