"""The part of Dagster's daemon that runs killed runs again, as ours has it, one look at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.test_utils import freeze_time
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget

from taxi_platform.definitions import build_definitions
from taxi_platform.runs.dagster_internals import asset_backfill_module, get_current_datetime, retry_modules
from taxi_platform.runs.ingest import IngestOptions, create_run, month_job
from taxi_platform.runs.retries import retry_killed_runs
from taxi_platform.settings import load_settings
from taxi_platform.trips.months import DatasetMonth

WORKSPACE = Path(__file__).parents[2] / "workspace.yaml"
GREEN = DatasetMonth.parse("green", "2020-04")


class RetryDaemon:
    """`look` is what the daemon does every 5 s; `look(later=…)` as if that many seconds had passed."""

    def __init__(self, context: WorkspaceProcessContext) -> None:
        self.instance, self._context = context.instance, context
        self._daemon = retry_modules()[1].EventLogConsumerDaemon()
        self.look()  # Dagster notes where the events end, and ignores earlier ones

    def look(self, later: float = 0.0) -> None:
        self._daemon.swept = time.monotonic() if not later else float("-inf")
        with freeze_time(get_current_datetime() + timedelta(seconds=later)):
            assert not [error for error in self._daemon.run_iteration(self._context) if error]

    def new_run(self) -> dg.DagsterRun:
        """A run of a month."""
        job = month_job(build_definitions(load_settings()), GREEN, IngestOptions())
        return create_run(self.instance, job, GREEN, IngestOptions(), for_daemon=True)

    def started_run(self) -> dg.DagsterRun:
        """One in progress, as the daemon sees it."""
        run = self.new_run()
        event = dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, run.job_name)
        self.instance.report_dagster_event(event, run.run_id)
        return run

    def tags(self, run: dg.DagsterRun) -> dict[str, str]:
        found = self.instance.get_run_by_id(run.run_id)
        assert found is not None
        return dict(found.tags)

    def retries(self, run: dg.DagsterRun) -> list[dg.DagsterRun]:
        return list(self.instance.get_runs(dg.RunsFilter(tags={"dagster/parent_run_id": run.run_id})))


def restore_after_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what `retry_killed_runs` replaces be as it was."""
    reexecution, consumer = retry_modules()
    replaced = [(reexecution, "retry_run"), (reexecution, "BULK_ACTION_TERMINAL_STATUSES")]
    replaced += [(consumer.EventLogConsumerDaemon, "run_iteration")]
    replaced += [(asset_backfill_module(), "backfill_runs_are_complete")]
    for owner, name in replaced:
        monkeypatch.setattr(owner, name, getattr(owner, name))


@contextmanager
def retry_daemon(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Iterator[RetryDaemon]:
    restore_after_test(monkeypatch)
    retry_killed_runs()
    with WorkspaceProcessContext(instance, WorkspaceFileTarget([str(WORKSPACE)])) as context:
        yield RetryDaemon(context)


def fail_while_looked_at(daemon: RetryDaemon, run: dg.DagsterRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Report the run as failed, with a look of the daemon's after the event is stored and before the status is."""
    storage = daemon.instance.run_storage
    store_status = storage.handle_run_event

    def look_first(*arguments: object) -> None:
        daemon.look()
        store_status(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "handle_run_event", look_first)
        daemon.instance.report_run_failed(run)
