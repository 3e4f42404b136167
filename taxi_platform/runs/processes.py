"""Processes that end with the one that started them."""

from __future__ import annotations

import ctypes
import signal
import sys

PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG


def end_with_parent(by: signal.Signals = signal.SIGTERM) -> None:
    """Have this process ended by a signal when its parent dies, however that dies; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, by)
