"""Random input for hours: `python -m taxi_platform_tests.support.fuzz --minutes 60`, with figures at the end.

Five targets: CSV bytes, Parquet bytes and types, a server's answers, settings, and what the platform stored. Whatever
comes, a round ends in rows that are all accounted for or in one of our errors, which names a remedy and no secret;
nothing is left behind, nothing is written or connected to elsewhere, and time and memory are bounded. What fails is
kept in a file and named, and is the exit status; `--seed … --target … --round …` repeats it, also where the process
died of it.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import os
import resource
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from taxi_platform.trips.errors import TaxiError
from taxi_platform_tests.support.fuzz_targets import check_told
from taxi_platform_tests.support.fuzz_targets.answers import answers_round
from taxi_platform_tests.support.fuzz_targets.csv import csv_round
from taxi_platform_tests.support.fuzz_targets.parquet import parquet_round
from taxi_platform_tests.support.fuzz_targets.settings import settings_round
from taxi_platform_tests.support.fuzz_targets.stored import stored_round

Round = Callable[[Random, Path], str]
"""Makes an input, keeps it as `input` in the folder, tries it, and tells what came of it."""

TARGETS: dict[str, Round] = {
    "csv": csv_round,
    "parquet": parquet_round,
    "answers": answers_round,
    "settings": settings_round,
    "stored": stored_round,
}
ROUND_SECONDS, HANG_SECONDS = 20, 120
MEMORY_BYTES = 1 << 30
"""For the whole process, above what it had at the start: twice the cleaning engine's limit."""


@dataclass
class Figures:
    """What one target has seen so far."""

    seconds: float = 0
    size: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        ended = ", ".join(f"{name} {count:,}" for name, count in self.outcomes.most_common())
        rounds = self.outcomes.total() + len(self.failures)
        return f"{rounds:,} rounds, {self.size:,} bytes, {self.seconds / 60:.1f} minutes: {ended}"


class Fuzz:
    """Rounds of any target in `folder`; the same seed and number give the same input."""

    def __init__(self, seed: str, folder: Path) -> None:
        self.seed, self.folder = seed, folder
        self.figures = {name: Figures() for name in TARGETS}
        gc.collect()  # or a temporary folder that an earlier test left would be removed in the middle of a round
        self._memory = _peak_bytes() + MEMORY_BYTES

    @property
    def failures(self) -> list[str]:
        return [failure for figures in self.figures.values() for failure in figures.failures]

    def round(self, target: str, number: int, seconds: float | None = None) -> None:
        """One round; a failure is printed, and its folder stays."""
        figures, folder = self.figures[target], self.folder / f"{target}-{number}"
        folder.mkdir(parents=True)
        started, failed = time.monotonic(), False
        try:
            with watched(folder):
                outcome = _outcome(lambda: TARGETS[target](Random(f"{self.seed} {target} {number}"), folder))
            spent = time.monotonic() - started
            assert seconds is None or spent < seconds, f"{outcome} after {spent:.0f} seconds"
            peak, allowed = _peak_bytes(), self._memory
            self._memory = max(allowed, peak)  # the peak stays, so that it is reported once
            assert peak <= allowed, f"{outcome} with {peak >> 20} MiB"
        except Exception:
            failed = True
            repeat = f"--seed {self.seed} --target {target} --round {number}"
            figures.failures.append(f"{folder / 'input'}  ({repeat})")
            print(f"{figures.failures[-1]}\n{traceback.format_exc()}", flush=True)
        else:
            figures.outcomes[outcome] += 1
        figures.seconds += time.monotonic() - started
        figures.size += sum(path.stat().st_size for path in folder.glob("input"))
        if not failed:
            shutil.rmtree(folder)


def _outcome(work: Callable[[], str]) -> str:
    try:
        return work()
    except TaxiError as error:
        check_told(error, "".join(traceback.format_exception(error)))
        return type(error).__name__


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


_folder: Path | None = None
_other_threads: frozenset[int | None] = frozenset()
"""Threads that ran before the round began: a server or daemon of another test in this process, not the round's."""
_strayed: list[str] = []
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
MOVING = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate")


def _look(event: str, arguments: tuple) -> None:
    """An audit hook: what Python code writes outside the round's folder, or connects to beyond this machine."""
    if _folder is None or threading.get_ident() in _other_threads:
        return
    if event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1][0] not in ("127.0.0.1", "::1"):
        _strayed.append(f"connects to {arguments[1]}")
    writes = event in MOVING or (event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING)
    if writes and isinstance(arguments[0], str | bytes | os.PathLike):
        path = os.fsdecode(arguments[0])
        # A relative path is removed within a folder given by a descriptor; an import writes bytecode.
        real = f"{os.path.realpath(path)}{os.sep}"
        inside = real.startswith((f"{_folder}{os.sep}", "/dev/")) or "__pycache__" in real
        if not inside and (Path(path).is_absolute() or event not in ("os.remove", "os.rmdir")):
            _strayed.append(f"{event} {path}")


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Raise `AssertionError` at the end where something strayed out of the folder meanwhile."""
    global _folder, _other_threads
    if not hasattr(_look, "installed"):
        sys.addaudithook(_look)  # for good: there is no way to take one away
        _look.installed = True
    _strayed.clear()
    _other_threads = frozenset(thread.ident for thread in threading.enumerate()) - {threading.get_ident()}
    _folder, tempfile.tempdir = folder.resolve(), str(folder)
    try:
        yield
    finally:
        _folder = tempfile.tempdir = None
        assert not _strayed, _strayed


def main() -> int:
    parser = argparse.ArgumentParser(description="Feed random input to every border of the platform.")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", default=str(time.time_ns()))
    parser.add_argument("--target", choices=TARGETS, action="append", help="only this one")
    parser.add_argument("--round", type=int, help="only this one")
    options = parser.parse_args()
    fuzz = Fuzz(options.seed, Path(tempfile.mkdtemp(prefix="fuzz-")))
    print(f"seed {options.seed}, {fuzz.folder}", flush=True)
    started, number = time.monotonic(), options.round or 0
    try:
        while time.monotonic() - started < options.minutes * 60:
            for target in options.target or TARGETS:
                faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)  # the input stays where it is
                fuzz.round(target, number, ROUND_SECONDS)
            faulthandler.cancel_dump_traceback_later()
            number += 1
            if options.round is not None:
                break
    except KeyboardInterrupt:
        pass
    print("\n".join(f"{target}: {figures}" for target, figures in fuzz.figures.items() if figures.seconds))
    print("\n".join([f"{len(fuzz.failures)} failures", *fuzz.failures]))
    if not fuzz.failures:
        shutil.rmtree(fuzz.folder, ignore_errors=True)
    return bool(fuzz.failures)


if __name__ == "__main__":
    sys.exit(main())
