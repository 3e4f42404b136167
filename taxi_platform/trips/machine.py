"""The cores and the memory that this process may use: those of the machine, less what a container leaves it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
MEMORY_OF_RUN = 1024**3
"""What one run may take: 512 MB for the cleaning engine, and the process with Python, Dagster and Arrow."""
MEMORY_OF_PROCESS = 400 * 1024**2
MAX_RUNS = 8
"""More runs than this gain nothing on one machine: two at a time may fetch, and two may write."""


@dataclass(frozen=True)
class Machine:
    """What may be used: `cores` is at least 1, `memory` in bytes."""

    cores: int
    memory: int

    @property
    def runs(self) -> int:
        """How many runs at a time it bears: two for each core, as a run waits for half of its time."""
        return max(1, min(MAX_RUNS, 2 * self.cores, self.memory // MEMORY_OF_RUN))

    @property
    def engine_megabytes(self) -> int:
        """The memory of one run's cleaning engine: 512 MB; less, never below 128, where even one run would not fit."""
        free = (self.memory // self.runs - MEMORY_OF_PROCESS) // 1024**2
        return max(128, min(512, free))


def this_machine(cgroups: Path = CGROUPS, own_cgroup: Path = OWN_CGROUP) -> Machine:
    """The machine as this process finds it, within the limits of every control group (v2) that it is in."""
    cores, memory = _usable_cores(), _installed_memory()
    for folder in _folders(cgroups, own_cgroup):
        cores = min(cores, _cores_of(folder) or cores)
        memory = min(memory, _memory_of(folder) or memory)
    return Machine(cores, memory)


def _usable_cores() -> int:
    """Fewer than the machine has where a container is bound to some."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _installed_memory() -> int:
    if hasattr(os, "sysconf"):  # settings are parsed at every start, and importing psutil takes 20 ms
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    import psutil

    return int(psutil.virtual_memory().total)


def _folders(cgroups: Path, own_cgroup: Path) -> Iterator[Path]:
    """The folders of this process's groups, from its own to the root; a container sees its own as the root."""
    try:
        lines = own_cgroup.read_text("ascii").splitlines()
    except OSError:
        lines = []
    own = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "/").strip("/")
    folder = cgroups / own
    while folder != cgroups and cgroups in folder.parents:
        yield folder
        folder = folder.parent
    yield cgroups


def _cores_of(folder: Path) -> int | None:
    """Part of a core counts as one: `150000 100000` is 1.5, so 2."""
    quota, _, period = _read(folder / "cpu.max").partition(" ")
    if not (quota.isdecimal() and period.isdecimal() and int(period)):
        return None
    return max(1, math.ceil(int(quota) / int(period)))


def _memory_of(folder: Path) -> int | None:
    limit = _read(folder / "memory.max")
    return int(limit) if limit.isdecimal() and int(limit) else None


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
