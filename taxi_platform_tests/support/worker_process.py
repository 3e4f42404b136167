"""Processes to kill by the hundred, forked from one that has imported everything, so that each starts at once.

A new process would spend two seconds on imports for half a second of work. Run as a module, this is the server: it
reads a line of orders, forks a child for each, kills them after the time that the line gives, and answers with their
outcomes. Imported, it starts such a server, which ends with its parent. Only the server that runs whole `taxi` commands
imports Dagster; a command then takes 2.4 seconds instead of 5.5.
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
"""A child that takes longer hangs, and its alarm ends it."""

DONE, REFUSED, BROKEN = 0, 1, 2
"""Exit statuses of a child: it did the work; it raised a `TaxiError`; it failed in another way."""


@dataclass(frozen=True)
class Order:
    """Ingest a month of green trips from samples with these `rows`, one after the other; each is a version of the file.

    `endless` repeats them until the process is killed. `checks` runs the asset checks after a load, `marts` builds the
    month's marts. `command`, if given, are arguments for `taxi`, which runs instead. `ends_by` is the signal that the
    fault point sends.
    """

    home: str
    lake: str
    warehouse: str
    rows: tuple[int, ...]
    month: str = "2020-04"
    endless: bool = False
    checks: bool = True
    marts: bool = False
    command: tuple[str, ...] = ()
    ends_by: str = "SIGKILL"
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How a child ended: its exit status, or the signal as a negative number, and its last message."""

    status: int
    output: str

    @property
    def killed(self) -> bool:
        return self.status == -signal.SIGKILL


class WorkerServer:
    """The server as its parent uses it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, *orders: Order, kill_after: float | None = None) -> list[Outcome]:
        """Carry out orders at the same time and wait for all; kills those that still run after `kill_after` seconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([kill_after, *map(asdict, orders)]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the server has ended"
        return [Outcome(*outcome) for outcome in json.loads(answer)]


@contextmanager
def worker_server(*libraries: str) -> Iterator[WorkerServer]:
    """A server that has imported the steps and these libraries."""
    command = [sys.executable, "-m", "taxi_platform_tests.support.worker_process", *libraries]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, cwd=Path(__file__).parents[2], **pipes) as process:
        try:
            yield WorkerServer(process)
        finally:
            process.communicate()


def ingest(order: Order, rows: int) -> str:
    """One run of the order, from a sample of `rows` rows; returns `done` or `unchanged` for each step."""
    from taxi_platform.lake import open_lake
    from taxi_platform.sources import open_source
    from taxi_platform.warehouse import open_warehouse

    source, lake, warehouse = (
        open_source(f"sample://?rows={rows}"),
        open_lake(order.lake),
        open_warehouse(order.warehouse),
    )
    done = ingest_by(source, lake, warehouse, order.month, Path(order.home), order.checks)
    if order.marts:
        from taxi_platform.ingestion.marts import build_marts
        from taxi_platform.trips.months import DatasetMonth

        built = build_marts(lake, warehouse, DatasetMonth.parse("green", order.month), Path(order.home))
        done += " unchanged" if built.unchanged else " done"
    return done


def ingest_by(source: Source, lake: Lake, warehouse: Warehouse, month: str, home: Path, checks: bool = True) -> str:
    """The steps of one run, as the assets call them; returns `done` or `unchanged` for each step."""
    from taxi_platform.ingestion import steps
    from taxi_platform.trips.engine import Engine
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
    output = ""
    try:
        if order.command:
            return _taxi(*order.command), output
        for rows in itertools.cycle(order.rows) if order.endless else order.rows:
            output = ingest(order, rows)
    except TaxiError as error:
        return REFUSED, f"{type(error).__name__}: {error}"
    except BaseException:
        return BROKEN, traceback.format_exc()
    return DONE, output


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
    """Fork a child; returns its process id and the pipe with its output."""
    reading, writing = os.pipe()
    if child := os.fork():
        os.close(writing)
        return child, reading
    os.close(reading)
    signal.alarm(CHILD_SECONDS)
    if order.command:
        os.dup2(writing, sys.stderr.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # stdout is for the server's answers
    status, output = _carry_out(order)
    sys.stdout.flush()
    os.write(writing, output.encode()[:60_000])  # fits into the pipe, so that writing does not wait for a reader
    os._exit(status)


def _end(child: int, reading: int) -> tuple[int, str]:
    with os.fdopen(reading, "rb") as pipe:
        output = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), output


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
