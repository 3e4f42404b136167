"""How our errors become Dagster's: a failure that says what to do, or a retry a little later."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from taxi_platform.assets.names import HURRIED_TAG
from taxi_platform.trips import locks
from taxi_platform.trips.errors import NotPublished, TaxiError, TransientError

RETRY_SECONDS = (30, 90, 270)
"""The waits before a step is tried again after a transient error; the TLC's rate limit asks for as much."""


@contextmanager
def errors_as_failures(context: dg.AssetExecutionContext) -> Iterator[None]:
    """Turn a `TaxiError` into `dg.Failure`, or into `dg.RetryRequested` if a retry may help.

    `NotPublished` passes: it is not a failure. Waits for locks count from 0 inside, for the step's metadata.
    """
    locks.forget_waits()
    try:
        with waits_in(context.log):
            yield
    except NotPublished:
        raise
    except TaxiError as error:
        seconds = _seconds_to_retry(context, error)
        if seconds is not None:
            context.log.warning(f"{error} Trying again in {seconds:.0f} s.")
            raise dg.RetryRequested(max_retries=len(RETRY_SECONDS), seconds_to_wait=seconds) from error
        raise dg.Failure(
            description=str(error),
            metadata={"error": type(error).__name__, "problem": error.problem, "remedy": error.remedy or "none"},
            allow_retries=isinstance(error, TransientError),
        ) from error


def _seconds_to_retry(context: dg.AssetExecutionContext, error: TaxiError) -> float | None:
    """How long to wait before a retry; None if none can help, none is left, or a person is waiting for the run."""
    retries = context.op_execution_context.retry_number
    if not isinstance(error, TransientError) or retries >= len(RETRY_SECONDS) or HURRIED_TAG in context.run.tags:
        return None
    return RETRY_SECONDS[retries] * random.uniform(0.8, 1.2)


@contextmanager
def waits_in(run_log: logging.Logger | None) -> Iterator[None]:
    """Write what this thread logs about waits into the run's log as well."""
    if run_log is None:
        yield
        return
    thread, into_run = threading.get_ident(), run_log

    class Forward(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == thread:
                into_run.log(record.levelno, record.getMessage())

    forward = Forward()
    locks.log.addHandler(forward)
    try:
        yield
    finally:
        locks.log.removeHandler(forward)
