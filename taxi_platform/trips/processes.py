"""Processes: unique names, whether one still lives, and children that do not outlive their parent."""

from __future__ import annotations

import ctypes
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
PID_NAMESPACE = Path("/proc/self/ns/pid")


def end_with_parent(by: signal.Signals = signal.SIGTERM) -> None:
    """Have the kernel send this process a signal when its parent dies for any reason; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, by)


def process_name(pid: int) -> str:
    """A name that no other process ever has: machine, id, start and container.

    Raises `psutil.NoSuchProcess` if there is none.
    """
    return f"{socket.gethostname()}/{pid}@{_start(pid)}"


def _start(pid: int) -> str:
    """When a process started, and in which container. On Linux as clock ticks since a boot: clocks are set."""
    import psutil  # here, as loading the code location needs none of it: 20 ms

    if sys.platform != "linux":
        return f"{psutil.Process(pid).create_time():.2f}"
    try:
        stat = Path(psutil.PROCFS_PATH, str(pid), "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        raise psutil.NoSuchProcess(pid) from None
    ticks = int(stat.rpartition(b")")[2].split()[19])  # the name in brackets may contain anything
    boot = BOOT_ID.read_text()[:8] if BOOT_ID.exists() else ""  # some sandboxes have none
    return f"{boot}.{ticks}.{_namespace()}"


def _namespace() -> str:
    """Of the process ids that this process sees, which is another one in each container; empty where there is none."""
    with suppress(OSError):
        return PID_NAMESPACE.readlink().name.strip("pid:[]")
    return ""


def process_id(process: str) -> int:
    """The id in a process's name. Raises `ValueError` for what is no such name."""
    return int(process.rpartition("/")[2].partition("@")[0])


def readable_name(process: str) -> str:
    """A process's name for people. Raises `ValueError` for what is no such name."""
    return f"process {process_id(process)} on {process.rpartition('/')[0]}"


def is_dead(process: str) -> bool:
    """Whether the process with this name has ended; always False where its id cannot be seen from here.

    That is on another machine, or in another container, which may have the name of this one.
    """
    import psutil

    if process.rpartition("/")[0] != socket.gethostname() or is_of_other_container(process):
        return False
    try:
        return process_name(process_id(process)) != process
    except (psutil.NoSuchProcess, ValueError):
        return True


def is_of_other_container(process: str) -> bool:
    """Whether a process with this name, on a machine of this name, runs or ran in another container than this one."""
    machine, _, rest = process.rpartition("/")
    _, _, namespace = rest.partition("@")[2].partition(".")[2].partition(".")
    return machine == socket.gethostname() and namespace not in ("", _namespace())  # earlier versions wrote none
