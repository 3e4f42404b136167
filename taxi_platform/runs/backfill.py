"""Many months from a command line, by several processes at once, ended cleanly by Ctrl-C or SIGTERM."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

import dagster as dg

from taxi_platform.runs.ingest import IngestOptions, RunOutcome, ingest_month, open_instance
from taxi_platform.runs.processes import end_with_parent
from taxi_platform.settings import Settings
from taxi_platform.trips.errors import TaxiError
from taxi_platform.trips.months import DatasetMonth


def ingest_months(
    settings: Settings,
    definitions: Callable[[], dg.Definitions],
    wanted: Sequence[DatasetMonth],
    options: IngestOptions,
    jobs: int = 1,
    step_done: Callable[[str], None] = lambda step: None,
) -> Iterator[tuple[RunOutcome, float]]:
    """Run every month's job; yields outcomes with their seconds as they come.

    `definitions` builds what is run, in every process anew. `step_done` is told the steps only where one process does
    it all. Raises `TaxiError` when a process was killed, and passes `KeyboardInterrupt` on once all have ended.
    """
    _quiet()
    with open_instance(settings) as instance:
        if jobs > 1:
            yield from _by_processes(definitions, wanted, options, jobs)
            return
        defs = definitions()
        for dataset_month in wanted:
            outcome, seconds = _timed(instance, defs, dataset_month, options, step_done)
            yield outcome, seconds
            if outcome.interrupted:
                return


def _quiet() -> None:
    """What a run has to say is in its own log; an interrupted connection to that log would print a traceback."""
    logging.getLogger("dagster").setLevel(logging.ERROR)
    # By name, as a run sets the one above anew: of a month that is not published it says that nothing is checked.
    logging.getLogger("dagster._core.execution.plan.active").setLevel(logging.ERROR)
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL + 1)


def _timed(
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    dataset_month: DatasetMonth,
    options: IngestOptions,
    step_done: Callable[[str], None] = lambda step: None,
) -> tuple[RunOutcome, float]:
    started = time.monotonic()
    return ingest_month(instance, definitions, dataset_month, options, step_done), time.monotonic() - started


def _by_processes(
    definitions: Callable[[], dg.Definitions], wanted: Sequence[DatasetMonth], options: IngestOptions, jobs: int
) -> Iterator[tuple[RunOutcome, float]]:
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _start_worker, (definitions,))
    # While the workers start they inherit this: a Ctrl-C reaches them too, until they have a session of their own.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    futures = [pool.submit(_work, dataset_month, options) for dataset_month in wanted]
    signal.signal(signal.SIGINT, before)
    told = set()
    try:
        for future in as_completed(futures):
            told.add(future)
            if found := future.result():
                yield found
    except KeyboardInterrupt:
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, signal.SIGINT)
        pool.shutdown(cancel_futures=True)
        rest = [future.result() for future in futures if not future.cancelled() and future not in told]
        yield from filter(None, rest)
        raise
    except BrokenProcessPool as error:
        raise TaxiError(
            "A process that ingested a month was killed, perhaps for want of memory.",
            "Run the same command again, perhaps with --jobs 1: it goes on where it stopped.",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_interrupted = False
_definitions = dg.Definitions()


def _start_worker(definitions: Callable[[], dg.Definitions]) -> None:
    """Make ready for work. In a session of its own: only the parent passes interruptions on."""
    global _definitions
    os.setsid()
    end_with_parent(signal.SIGKILL)  # anything milder Dagster takes for the end of one run, not of the process
    signal.signal(signal.SIGINT, _remember)
    _quiet()
    _definitions = definitions()


def _remember(number: int, frame: object) -> None:
    global _interrupted
    _interrupted = True


def _interrupt(number: int, frame: object) -> None:
    _remember(number, frame)
    signal.signal(number, _remember)
    raise KeyboardInterrupt


def _work(dataset_month: DatasetMonth, options: IngestOptions) -> tuple[RunOutcome, float] | None:
    """One month; None once interrupted, because the pool hands out a month or two ahead."""
    global _interrupted
    if _interrupted:
        return None
    with dg.DagsterInstance.get() as instance:
        signal.signal(signal.SIGINT, _interrupt)
        try:
            outcome, seconds = _timed(instance, _definitions, dataset_month, options)
            _interrupted |= outcome.interrupted  # inside a step the signal is Dagster's
            return outcome, seconds
        except KeyboardInterrupt:
            return None  # between two runs: nothing was begun, or all of it was done
        finally:
            signal.signal(signal.SIGINT, _remember)
