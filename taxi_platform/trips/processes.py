"""Processes: unique names, whether one still lives, and children that do not outlive their parent."""

from __future__ import annotations

import ctypes
import signal
import socket
import sys

import psutil

PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG


def end_with_parent(by: signal.Signals = signal.SIGTERM) -> None:
    """Have the kernel send this process a signal when its parent dies for any reason; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, by)


def process_name(pid: int) -> str:
    """A name that no other process ever has: machine, id and start time. Raises psutil's errors if there is none."""
    return f"{socket.gethostname()}/{pid}@{psutil.Process(pid).create_time():.2f}"


def process_id(process: str) -> int:
    """The id in a process's name. Raises `ValueError` for what is no such name."""
    return int(process.rpartition("/")[2].partition("@")[0])


def is_dead(process: str) -> bool:
    """Whether the process with this name has ended; always False for a process of another machine."""
    machine = process.rpartition("/")[0]
    if machine != socket.gethostname():
        return False
    try:
        return process_name(process_id(process)) != process
    except (psutil.NoSuchProcess, ValueError):
        return True
