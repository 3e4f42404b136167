"""Locks between processes that name their holder, and waits that are logged with what they wait for."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from tenacity import RetryCallState

LOG_SECONDS = 5.0
"""A wait that takes longer is logged."""

log = logging.getLogger("taxi_platform")
_purpose: ContextVar[str] = ContextVar("purpose", default="")
_waited: ContextVar[float] = ContextVar("waited", default=0.0)


@contextmanager
def working_on(purpose: str) -> Iterator[None]:
    """Name, in the locks that are taken inside, what they are held for, such as `run 1a2b3c4d`."""
    previous = _purpose.get()
    _purpose.set(purpose)
    try:
        yield
    finally:
        _purpose.set(previous)


def forget_waits() -> None:
    """Count this thread's waits for locks from 0 again."""
    _waited.set(0.0)


def seconds_waited() -> float:
    """How long this thread has waited for locks since `forget_waits`."""
    return _waited.get()


@contextmanager
def counted_wait() -> Iterator[None]:
    """Count the time spent inside as a wait for a lock."""
    began = time.monotonic()
    try:
        yield
    finally:
        _waited.set(_waited.get() + time.monotonic() - began)


@contextmanager
def lock_file(path: Path, what: str, seconds: float) -> Iterator[bool]:
    """Hold the lock of `what`; yields False if this thread already held it. Raises `filelock.Timeout` after `seconds`.

    The kernel releases the lock of a process that ends. The file says who holds it, for those who wait.
    """
    lock = FileLock(path, is_singleton=True)
    with counted_wait():
        try:
            lock.acquire(timeout=min(seconds, LOG_SECONDS), poll_interval=0.01)  # of tiny months it is held for 0.05 s
        except Timeout:
            if seconds <= LOG_SECONDS:
                raise
            log_wait(what, holder_of(path))
            lock.acquire(timeout=seconds - LOG_SECONDS)
    try:
        is_first = lock.lock_counter == 1
        if is_first:
            with suppress(OSError):  # a full disk: the lock holds without a name
                path.write_text(_description(), encoding="utf-8")
        yield is_first
    finally:
        lock.release()


def log_to_stderr() -> None:
    """Show this log on stderr also while it goes into a run's log."""
    if logging.lastResort:
        log.addHandler(logging.lastResort)


def wait_logger(what: str, holder: Callable[[BaseException | None], str]) -> Callable[[RetryCallState], None]:
    """A `before_sleep` of tenacity that counts waits, and logs one of several; `holder` is called with what the last
    attempt raised."""
    is_logged = False

    def log_once(state: RetryCallState) -> None:
        nonlocal is_logged
        _waited.set(_waited.get() + state.upcoming_sleep)
        if not is_logged and (state.seconds_since_start or 0) > LOG_SECONDS:
            is_logged = True
            log_wait(what, holder(state.outcome.exception() if state.outcome else None) or "another program")

    return log_once


def log_wait(what: str, holder: str) -> None:
    """Log what this process waits for; a run's log gets it too."""
    log.warning("Waiting for %s, held by %s.", what, holder)


def holder_of(path: Path) -> str:
    """Who holds a lock file, as its holder wrote it."""
    with suppress(OSError):
        return path.read_text("utf-8", "replace").strip() or "another process"
    return "another process"


def _description() -> str:
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:100] if sys.argv[0] != "-c" else "a run of Dagster's"
    purpose = f", {_purpose.get()}" if _purpose.get() else ""
    return f"process {os.getpid()} ({command}){purpose}, since {datetime.now():%Y-%m-%d %H:%M:%S}"
