"""Time work in processes of its own, and compare ways of doing the same work that alternate.

A function runs in a child that has imported everything before its clock starts: the platform imports once for all its
months. The child's whole life is timed too, which is the cold figure.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from taxi_platform.trips.casting import literal

ROOT = Path(__file__).parents[1]
TAXI = str(Path(sys.executable).with_name("taxi"))
KEPT_VARIABLES = ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV")
WAITER = """
import ctypes, json, os, subprocess, sys, time
if sys.platform == "linux":
    PR_SET_CHILD_SUBREAPER = 36
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
started = time.perf_counter()
child = subprocess.Popen(sys.argv[2:])
_, status, usage = os.wait4(child.pid, 0)
child.returncode = os.waitstatus_to_exitcode(status)
wall, usages = time.perf_counter() - started, [usage]
try:
    while True:
        usages.append(os.wait3(0)[2])
except ChildProcessError:
    pass
processor = sum(each.ru_utime + each.ru_stime for each in usages)
measured = wall, processor, max(each.ru_maxrss for each in usages) * 1024 / 1e6
os.write(int(sys.argv[1]), json.dumps(measured).encode())
sys.exit(child.returncode)
"""
"""Starts a command and tells what it took. Linux counts the peak memory of the process that starts another as the
other's, and a benchmark that has just made a month has more than what it measures; this one has 10 MB. On Linux it also
counts processes that the command started and did not wait for, such as the one that its workers are forked from."""


@dataclass(frozen=True)
class Timing:
    """What some work took: seconds that passed, seconds of processor time in all threads and children, peak memory."""

    wall: float
    processor: float
    peak_mb: float
    """Of the largest process, in millions of bytes."""
    process: float
    """Seconds that passed from the start of the process to its end."""
    output: Any = None
    """What the function returned, or the command printed."""


@dataclass(frozen=True)
class Ratio:
    """Two ways compared pair by pair: the median of the ratios and their range, of the seconds that passed."""

    median: float
    low: float
    high: float
    processor: float
    """The median of the ratios of processor time, which other work on the machine disturbs less."""


def timed(function: Callable[..., Any], *arguments: Any, **environment: str) -> Timing:
    """Run a function of a module of `benchmarks` in a child; arguments and result travel as JSON.

    `wall` and `processor` are those of the function alone.
    """
    name = function.__module__.removeprefix("benchmarks.")
    code = f"from benchmarks.measure import _child; _child({name!r}, {function.__qualname__!r})"
    whole = timed_command([sys.executable, "-c", code, json.dumps(arguments, default=str)], **environment)
    wall, processor, output = json.loads(whole.output.splitlines()[-1])
    return Timing(wall, processor, whole.peak_mb, whole.process, output)


def _child(module: str, name: str) -> None:
    function = getattr(importlib.import_module(f"benchmarks.{module}"), name)
    for used in ("duckdb", "numpy", "pyarrow.parquet"):
        importlib.import_module(used)
    arguments = json.loads(sys.argv[1])
    started, before = time.perf_counter(), processor_seconds()
    output = function(*arguments)
    print(json.dumps([time.perf_counter() - started, processor_seconds() - before, output]))


def processor_seconds() -> float:
    """What this process has used so far, in all threads, with the children that have ended."""
    usage = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in usage)


def timed_command(command: Sequence[str], **environment: str) -> Timing:
    """Run a command as a user would, with only these settings; ends the benchmark if it fails."""
    own = {name: value for name, value in os.environ.items() if name in KEPT_VARIABLES}
    with tempfile.TemporaryFile("w+") as errors, tempfile.TemporaryFile("w+") as measured:
        waiter = [sys.executable, "-I", "-S", "-c", WAITER, str(measured.fileno())]
        done = subprocess.run(
            [*waiter, *command],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=ROOT,
            env={**own, **environment},
            pass_fds=[measured.fileno()],
        )
        errors.seek(0)
        if done.returncode:
            sys.exit(f"{' '.join(command)[:400]} failed:\n{done.stdout[-2000:]}\n{errors.read()[-4000:]}")
        measured.seek(0)
        wall, processor, peak_mb = json.load(measured)
    return Timing(wall, processor, peak_mb, wall, done.stdout)


def alternate(ways: Mapping[str, Callable[[], Timing]], rounds: int) -> dict[str, list[Timing]]:
    """Run the ways one after the other, and again, so many rounds; every other round in the reverse order."""
    timings: dict[str, list[Timing]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in list(ways)[:: -1 if number % 2 else 1]:
            timings[name].append(ways[name]())
    return timings


def ratio(ours: Sequence[Timing], theirs: Sequence[Timing]) -> Ratio:
    """Ours to theirs, pair by pair: 2 means that ours takes twice as long."""
    walls = [one.wall / other.wall for one, other in zip(ours, theirs, strict=True)]
    processors = [one.processor / max(other.processor, 1e-3) for one, other in zip(ours, theirs, strict=True)]
    return Ratio(median(walls), min(walls), max(walls), median(processors))


def seconds(timings: Sequence[Timing]) -> float:
    """The median of the seconds that passed."""
    return median(timing.wall for timing in timings)


def peak(timings: Sequence[Timing]) -> float:
    """The highest peak memory, in MB."""
    return max(timing.peak_mb for timing in timings)


def row_hash(path: Path | str, columns: Sequence[str]) -> tuple[int, int]:
    """Rows of a Parquet file, and a sum over hashes of these columns that is equal for equal rows in any order."""
    import duckdb

    row = duckdb.execute(
        f"SELECT count(*), sum(hash(hash({', '.join(columns)}))) FROM read_parquet({literal(str(path))})"
    ).fetchone()
    assert row
    return int(row[0]), int(row[1] or 0)


def check_equal(what: str, ours: object, theirs: object) -> None:
    """End the benchmark unless both ways came to the same: a fast way to a wrong result is not measured."""
    if ours != theirs:
        sys.exit(f"{what}: the outputs differ, so nothing is measured: {ours!r} and {theirs!r}.")
