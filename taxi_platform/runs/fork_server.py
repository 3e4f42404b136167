"""The process that others are forked from once it has imported what they need, which would take each 1.2 s."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext

CAN_FORK = sys.platform == "linux"
"""Elsewhere system libraries may not survive a fork."""
INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM)
WORKERS = "taxi_platform.warm.workers"
"""What is imported for the workers of `--jobs`."""


def forking_context(module: str) -> BaseContext:
    """A context of `multiprocessing` whose processes are forked from one that imports `module` when first used."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    return context


def context_of_workers() -> BaseContext:
    """A context for the workers of `--jobs`; they are forked if they can be, and new Pythons if not.

    The process to fork from begins to import what they use, while this one goes on. It and they block Ctrl-C and
    SIGTERM, which a terminal or a service manager sends to all.
    """
    if not CAN_FORK:
        return multiprocessing.get_context("spawn")
    context = forking_context(WORKERS)
    with interruptions_held():
        try:
            forkserver.ensure_running()
        except OSError:  # no folder for temporary files can be written, where its socket would be
            return multiprocessing.get_context("spawn")
    return context


@contextmanager
def interruptions_held() -> Iterator[None]:
    """Act on Ctrl-C and SIGTERM when the block ends. Processes that start in it go on blocking them."""
    resource_tracker.ensure_running()  # when `multiprocessing` starts this one, it unblocks them
    noted: list[int] = []  # by another thread, such as that of a progress bar: only this one blocks them
    handlers = {number: signal.signal(number, lambda number, frame: noted.append(number)) for number in INTERRUPTIONS}
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTIONS)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
        for noticed in noted:
            signal.raise_signal(noticed)
