"""Many months from a command line, in one process or several, which stop cleanly on Ctrl-C and SIGTERM."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from multiprocessing.util import Finalize

import dagster as dg

from taxi_platform.runs.dagster_internals import NOISY_LOGGERS
from taxi_platform.runs.fork_server import INTERRUPTIONS, context_of_workers, interruptions_held
from taxi_platform.runs.ingest import IngestOptions, ingest_month
from taxi_platform.runs.instance import instance_of_process, open_instance
from taxi_platform.runs.result import IngestStatus, MonthResult
from taxi_platform.settings import Settings
from taxi_platform.trips.collecting import collect_seldom
from taxi_platform.trips.errors import TaxiError
from taxi_platform.trips.locks import log_to_stderr
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.trips.processes import end_with_parent


def ingest_months(
    settings: Settings,
    definitions: Callable[[], dg.Definitions],
    dataset_months: Sequence[DatasetMonth],
    options: IngestOptions,
    jobs: int = 1,
    step_done: Callable[[str], None] = lambda step: None,
) -> Iterator[MonthResult]:
    """Run every month's job, `jobs` at a time; yields each result as it comes.

    `definitions` builds the definitions, once in every process. `step_done` is called with each finished step, but
    only if `jobs` is 1. After an interruption, months that were not begun have no result. Raises `TaxiError` if a
    process was killed, and `KeyboardInterrupt` after all processes have ended.
    """
    silence_loggers()
    with open_instance(settings) as instance:
        if jobs > 1:
            yield from _in_processes(definitions, dataset_months, options, jobs)
            return
        built = definitions()
        for dataset_month in dataset_months:
            result = ingest_month(instance, built, dataset_month, options, step_done)
            yield result
            if result.status == IngestStatus.INTERRUPTED:
                return


def silence_loggers() -> None:
    """Keep stderr for our own lines: each run has its log in the UI."""
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    # An interrupted connection to Dagster's database would print a traceback.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL + 1)


def _in_processes(
    definitions: Callable[[], dg.Definitions], dataset_months: Sequence[DatasetMonth], options: IngestOptions, jobs: int
) -> Iterator[MonthResult]:
    pool = ProcessPoolExecutor(jobs, context_of_workers(), _start_worker, (definitions, dict(os.environ)))
    futures: list[Future[MonthResult | None]] = []
    yielded: set[Future[MonthResult | None]] = set()
    try:
        with interruptions_held():  # a Ctrl-C reaches workers too, until they have a session of their own
            futures.extend(pool.submit(_ingest_in_worker, dataset_month, options) for dataset_month in dataset_months)
        for future in as_completed(futures):
            yielded.add(future)
            if result := future.result():
                yield result
    except KeyboardInterrupt:
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, signal.SIGINT)
        pool.shutdown(cancel_futures=True)
        remaining = [future for future in futures if not future.cancelled() and future not in yielded]
        yield from filter(None, (future.result() for future in remaining if not future.exception()))
        raise
    except (BrokenProcessPool, EOFError, ConnectionError) as error:  # the last two while processes start
        for child in multiprocessing.active_children():
            child.kill()  # the pool sends SIGTERM, which ends none, and waits for them
        raise TaxiError(
            "A process that ingested a month was killed, possibly because memory ran out.",
            "Run the same command again, with --jobs 1 if it happens again: it continues where it stopped.",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_interrupted = False
_definitions = dg.Definitions()
_instance: dg.DagsterInstance


def _start_worker(definitions: Callable[[], dg.Definitions], environment: dict[str, str]) -> None:
    """Prepare a worker. It has its own session, so that only the parent passes interruptions on."""
    global _definitions, _instance
    os.environ.clear()  # the process that this one was forked from started before the instance was opened
    os.environ |= environment
    collect_seldom()
    os.setsid()
    end_with_parent(signal.SIGKILL)  # Dagster takes a milder signal for the end of one run, not of the process
    for number in INTERRUPTIONS:
        signal.signal(number, _remember_interruption)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTIONS)
    silence_loggers()
    log_to_stderr()
    _definitions = definitions()
    opened = ExitStack()
    _instance = opened.enter_context(instance_of_process())
    Finalize(None, opened.close, exitpriority=1)


def _remember_interruption(number: int, frame: object) -> None:
    global _interrupted
    _interrupted = True


def _interrupt_once(number: int, frame: object) -> None:
    _remember_interruption(number, frame)
    signal.signal(number, _remember_interruption)
    raise KeyboardInterrupt


def _ingest_in_worker(dataset_month: DatasetMonth, options: IngestOptions) -> MonthResult | None:
    """One month; None after an interruption, because the pool hands out a month or two ahead."""
    global _interrupted
    if _interrupted:
        return None
    signal.signal(signal.SIGINT, _interrupt_once)
    try:
        result = ingest_month(_instance, _definitions, dataset_month, options)
        _interrupted |= result.status == IngestStatus.INTERRUPTED  # during a step Dagster handles the signal
        return result
    except KeyboardInterrupt:
        return None  # before the run began or after it ended
    finally:
        signal.signal(signal.SIGINT, _remember_interruption)
