"""Dagster's instance in its home, and the runs that killed processes left behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources

import dagster as dg
from sqlalchemy.exc import DBAPIError

from taxi_platform.assets.names import PROCESS_TAG
from taxi_platform.runs.processes import is_dead
from taxi_platform.settings import Settings
from taxi_platform.trips.errors import LakeError, TaxiError


@contextmanager
def open_instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    """Dagster's instance, created with our `dagster.yaml` if it is new; runs of dead processes are reported as failed.

    Sets DAGSTER_HOME and TAXI_HOME for this process and its children. Raises `LakeError` where the home cannot be
    written and `TaxiError` where Dagster's database fails, also while the instance is in use.
    """
    home = settings.dagster_home
    try:
        home.mkdir(parents=True, exist_ok=True)
        if not (home / "dagster.yaml").exists():
            text = resources.files("taxi_platform.runs").joinpath("dagster.yaml").read_text("utf-8")
            (home / "dagster.yaml").write_text(text)
    except OSError as error:
        raise LakeError(
            f"Cannot write {home}: {error.strerror}.", "Set TAXI_HOME (or DAGSTER_HOME) to a folder that you own."
        ) from error
    os.environ["DAGSTER_HOME"] = str(home)
    os.environ["TAXI_HOME"] = str(settings.home)
    try:
        with dg.DagsterInstance.get() as instance:
            report_dead_runs(instance)
            yield instance
    except DBAPIError as error:
        raise TaxiError(
            f"Dagster's database failed: {error.orig} (Dagster's home is {home}).",
            "Check that the disk is not full and the database server runs. Run again: finished work is not redone.",
        ) from error


def report_dead_runs(instance: dg.DagsterInstance) -> int:
    """Report the runs of killed processes as failed and free their slots in pools; returns how many.

    Dagster's own monitoring only watches runs that its launcher started.
    """
    unfinished = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING]
    dead = [
        run
        for run in instance.get_runs(dg.RunsFilter(statuses=unfinished))
        if PROCESS_TAG in run.tags and is_dead(run.tags[PROCESS_TAG])
    ]
    for run in dead:
        instance.report_run_failed(
            run, "The process of this run was killed. Run the month again: it continues where it stopped."
        )
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return len(dead)
