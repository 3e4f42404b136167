"""Killed runs that Dagster's daemon would not run again: what it asks or ends too early, and what it misses."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import dagster as dg

from taxi_platform.assets.names import BACKFILL_TAG, RETRY_STRATEGY_TAG, WILL_RETRY_TAG
from taxi_platform.runs.dagster_internals import (
    DagsterCodeLocationLoadError,
    DagsterUserCodeUnreachableError,
    asset_backfill_module,
    get_current_datetime,
    retry_modules,
)

CODE_SERVER_SECONDS = 600
"""For a code server that is starting again; the daemon's own patience with one of its threads is half an hour."""

SWEEP_SECONDS = 60
"""How often missed runs are looked for, and how long ago a run must have failed: Dagster looks every 5 s."""

MISSED_DAYS = 7
"""How long ago a run may have failed: a service that stood still for longer starts nothing that nobody expects."""


def retry_killed_runs() -> None:
    """In a daemon: have every killed run run again, up to its limit, whatever was killed with it. Called once."""
    reexecution, consumer = retry_modules()
    reexecution.retry_run = _patient(reexecution.retry_run)
    # Dagster ends a backfill of a job as failed once no run is in progress, whether one waits to be run again or not.
    others = [status for status in reexecution.BULK_ACTION_TERMINAL_STATUSES if status.name != "COMPLETED_FAILED"]
    reexecution.BULK_ACTION_TERMINAL_STATUSES = others
    backfills = asset_backfill_module()
    backfills.backfill_runs_are_complete = _settled(backfills.backfill_runs_are_complete)
    daemon = consumer.EventLogConsumerDaemon
    daemon.run_iteration = _with_sweeps(daemon.run_iteration, reexecution.consume_new_runs_for_automatic_reexecution)


def _patient(retry_run: Any) -> Any:
    """Dagster's `retry_run`, but it waits for the code server, and repeats a run of which no step is left.

    Dagster gives up at the first attempt. What kills runs often kills the code server too, which takes seconds to start
    again. And a run that is killed after its last step, before it is recorded as successful, has nothing to go on with:
    all of its steps are run again, which find their work done.
    """

    def patient(failed_run: dg.DagsterRun, workspace_context: Any) -> None:
        deadline = time.monotonic() + CODE_SERVER_SECONDS
        while True:
            try:
                try:
                    retry_run(failed_run, workspace_context)
                except dg.DagsterInvalidSubsetError:
                    whole = {**failed_run.tags, RETRY_STRATEGY_TAG: "ALL_STEPS"}
                    retry_run(failed_run.with_tags(whole), workspace_context)
                return
            except (DagsterUserCodeUnreachableError, DagsterCodeLocationLoadError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(2)

    return patient


def _settled(are_complete: Any) -> Any:
    """Dagster's judgement that a backfill of assets has no more runs to come, but sure of it.

    Dagster looks for runs in progress, then for those that are to be run again. That is stored after the failure, so
    one that fails in between is neither; nor is one that is run again in between.
    """

    def settled(backfill_id: str, instance: dg.DagsterInstance, logger: Any) -> bool:
        if not are_complete(backfill_id, instance, logger):
            return False
        failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], tags={BACKFILL_TAG: backfill_id})
        if any(waits_for_retry(instance, run) for run in instance.get_runs(failed)):
            return False
        return bool(are_complete(backfill_id, instance, logger))

    return settled


def waits_for_retry(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether a run has failed and is to be run again, or nothing is said of it: who reports that may be killed."""
    if run.status != dg.DagsterRunStatus.FAILURE or not instance.run_retries_enabled:
        return False
    return WILL_RETRY_TAG not in run.tags or run.is_complete_and_waiting_to_retry


def _with_sweeps(run_iteration: Any, retry: Any) -> Any:
    """The daemon's look at new events, and each minute one at the runs that were missed, by the same thread."""

    def iteration(self: Any, context: Any) -> Iterator[Any]:
        yield from run_iteration(self, context)
        if time.monotonic() - getattr(self, "swept", float("-inf")) >= SWEEP_SECONDS:
            self.swept = time.monotonic()
            if missed := missed_retries(context.instance):
                yield from retry(context, missed, self._logger)
                _give_up(context.instance, missed)

    return iteration


def missed_retries(instance: dg.DagsterInstance) -> list[dg.RunRecord]:
    """The runs that failed a minute ago or more, and wait to be run again.

    Dagster looks at a run once, when the event of its failure is new. The event is stored before the run's status: a
    run that is looked at in between has not failed yet, and its backfill waits for ever. On PostgreSQL, where events
    may appear in another order than their numbers, an event may also never be new.
    """
    now = get_current_datetime()
    recent = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.FAILURE],
        updated_after=now - timedelta(days=MISSED_DAYS),
        updated_before=now - timedelta(seconds=SWEEP_SECONDS),
    )
    return [record for record in instance.get_run_records(recent) if waits_for_retry(instance, record.dagster_run)]


def _give_up(instance: dg.DagsterInstance, missed: list[dg.RunRecord]) -> None:
    """Have no run wait that Dagster will not run again, such as one of a backfill that was canceled."""
    for record in missed:
        run = instance.get_run_by_id(record.dagster_run.run_id)
        if run and run.is_complete_and_waiting_to_retry:
            instance.add_run_tags(run.run_id, {WILL_RETRY_TAG: "false"})
