"""The process that others are forked from once it has imported what they need, which takes each of them 1.2 s."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from multiprocessing import forkserver
from multiprocessing.context import BaseContext

CAN_FORK = sys.platform == "linux"
"""Elsewhere system libraries may not survive a fork."""
WORKERS = "taxi_platform.warm.workers"
"""What is imported for the workers of `--jobs`."""


def forking_context(module: str) -> BaseContext:
    """A context of `multiprocessing` whose processes are forked from one that imports `module` when first used."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    return context


def context_of_workers() -> BaseContext:
    """A context for the workers of `--jobs`; they are forked if they can be, and new Pythons if not.

    The process to fork from begins to import what they use, while this one goes on. It and they ignore Ctrl-C and
    SIGTERM, which a terminal or a service manager sends to all: this process passes them on.
    """
    if not CAN_FORK:
        return multiprocessing.get_context("spawn")
    context = forking_context(WORKERS)
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        forkserver.ensure_running()
    except OSError:  # no folder for temporary files can be written, where its socket would be
        return multiprocessing.get_context("spawn")
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return context
