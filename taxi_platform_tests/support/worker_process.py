"""Processes to kill by the hundred: forked from one that has imported everything, so that each starts at once.

A child of its own would spend two seconds on imports to do half a second's work. Run as a module it is the server,
which takes a line of orders, forks a child for each, kills them when told, and answers with how they ended; imported
it starts one. It ends with whoever started it. Dagster is in none of these processes, but for a server of its own whose
children are `taxi`: so started, a command takes 2.4 seconds instead of 5.5.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taxi_platform.lake.base import Lake
    from taxi_platform.sources.base import Source
    from taxi_platform.warehouse.base import Warehouse

CHILD_SECONDS = 180
"""A child that takes longer hangs, and is ended by its alarm."""

DONE, REFUSED, BROKEN = 0, 1, 2
"""How a child ends: it did the work; it told why not, in an error of ours; it failed in another way."""


@dataclass(frozen=True)
class Order:
    """Ingest a month of green trips: samples of so many rows in turn, each number being a version of the source.

    `endless` goes round and round until it is killed. `checks` are the asset checks that follow a load. `command` are
    arguments for `taxi` instead, of which the environment tells the rest. `ends_by` is the signal of the fault point.
    """

    home: str
    lake: str
    warehouse: str
    rows: tuple[int, ...]
    month: str = "2020-04"
    endless: bool = False
    checks: bool = True
    command: tuple[str, ...] = ()
    ends_by: str = "SIGKILL"
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ending:
    """How a child ended: its exit status or the signal, negative, and what it said."""

    status: int
    told: str

    @property
    def killed(self) -> bool:
        return self.status == -signal.SIGKILL


class WorkerServer:
    """The server, seen from whoever gives orders."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, *orders: Order, kill_after: float | None = None) -> list[Ending]:
        """Carry out orders at the same time and wait for all; after so many seconds those left are killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([kill_after, *map(asdict, orders)]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the warm process is gone"
        return [Ending(*ending) for ending in json.loads(answer)]


@contextmanager
def worker_server(*libraries: str) -> Iterator[WorkerServer]:
    """A server that has the steps and these libraries in memory."""
    command = [sys.executable, "-m", "taxi_platform_tests.support.worker_process", *libraries]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, cwd=Path(__file__).parents[2], **pipes) as process:
        try:
            yield WorkerServer(process)
        finally:
            process.communicate()


def ingest(order: Order, rows: int) -> str:
    """One run of the order, of a sample of so many rows; tells which steps found nothing to do."""
    from taxi_platform.lake import open_lake
    from taxi_platform.sources import open_source
    from taxi_platform.warehouse import open_warehouse

    ways = open_source(f"sample://?rows={rows}"), open_lake(order.lake), open_warehouse(order.warehouse)
    return ingest_by(*ways, order.month, Path(order.home), order.checks)


def ingest_by(source: Source, lake: Lake, warehouse: Warehouse, month: str, home: Path, checks: bool = True) -> str:
    """The steps of one run, as the assets call them; tells which found nothing to do."""
    from taxi_platform.ingestion import steps
    from taxi_platform.trips.cleaning import Engine
    from taxi_platform.trips.errors import Conflict
    from taxi_platform.trips.months import DatasetMonth

    dataset_month = DatasetMonth.parse("green", month)
    done = (
        steps.fetch(source, lake, dataset_month, home),
        steps.clean(lake, dataset_month, home, Engine(threads=1)),
        steps.load(lake, warehouse, dataset_month, home),
    )
    if checks:
        steps.check_accounted_for(lake, dataset_month)
        with suppress(Conflict):  # the asset's check warns: another run has cleaned the month, and loads it
            steps.check_table(lake, warehouse, dataset_month, home)
    return " ".join("unchanged" if step.unchanged else "done" for step in done)


def _carry_out(order: Order) -> tuple[int, str]:
    from taxi_platform.trips import faults
    from taxi_platform.trips.errors import TaxiError

    os.environ.update(order.environment)
    faults.signal = SimpleNamespace(SIGKILL=signal.Signals[order.ends_by])
    told = ""
    try:
        if order.command:
            return _taxi(*order.command), told
        for rows in itertools.cycle(order.rows) if order.endless else order.rows:
            told = ingest(order, rows)
    except TaxiError as error:
        return REFUSED, f"{type(error).__name__}: {error}"
    except BaseException:
        return BROKEN, traceback.format_exc()
    return DONE, told


def _taxi(*arguments: str) -> int:
    """What the console script does."""
    from taxi_platform.cli import main

    sys.argv = ["taxi", *arguments]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _start(order: Order) -> tuple[int, int]:
    """Fork a child; returns its id and the pipe that it tells its end through."""
    reading, writing = os.pipe()
    if child := os.fork():
        os.close(writing)
        return child, reading
    os.close(reading)
    signal.alarm(CHILD_SECONDS)
    if order.command:
        os.dup2(writing, sys.stderr.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the server's answers go out there
    status, told = _carry_out(order)
    sys.stdout.flush()
    os.write(writing, told.encode()[:60_000])  # fits into the pipe, so nobody has to read it yet
    os._exit(status)


def _end(child: int, reading: int) -> tuple[int, str]:
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), told


def main() -> None:
    import pyarrow.parquet
    from google.cloud import storage

    from taxi_platform.ingestion import steps
    from taxi_platform.lake import gcs, local
    from taxi_platform.sources.sample import source as sample
    from taxi_platform.warehouse import bigquery, duckdb, postgres

    assert all((pyarrow.parquet, storage, steps, gcs, local, sample, bigquery, duckdb, postgres))
    assert "dagster" not in sys.modules
    for library in sys.argv[1:]:
        importlib.import_module(library)
    for line in sys.stdin:
        kill_after, *orders = json.loads(line)
        children = [_start(Order(**order)) for order in orders]
        if kill_after is not None:
            time.sleep(kill_after)
            for child, _ in children:
                os.kill(child, signal.SIGKILL)  # one that has ended keeps its id until it is waited for
        print(json.dumps([_end(*child) for child in children]), flush=True)


if __name__ == "__main__":
    main()
