"""The runs that a code server on this machine executes, each in a process of its own."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from contextlib import suppress

import dagster as dg

from taxi_platform.assets.names import CODE_SERVER_TAG, RETRY_STEP_FAILURES_TAG
from taxi_platform.assets.partitions import dataset_months_of
from taxi_platform.runs.instance import allow_another_try, is_killed, process_of
from taxi_platform.trips.processes import process_id


def runs_launched_at(instance: dg.DagsterInstance, code_socket: str) -> list[dg.DagsterRun]:
    """The unfinished runs that this code server was asked to start, and whose process was not killed."""
    active = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
    runs = instance.get_runs(dg.RunsFilter(statuses=active))
    return [run for run in runs if _socket_of(run) == code_socket and not is_killed(run)]


def interrupt(instance: dg.DagsterInstance, runs: Sequence[dg.DagsterRun]) -> None:
    """End these runs as Ctrl-C would: they publish nothing half, fail, and Dagster's daemon runs them again."""
    for run in runs:
        process = process_of(run)
        if process and not is_killed(run):
            allow_another_try(instance, run)
            # An interruption in the middle of a step is a failure of that step, which is not tried again otherwise.
            instance.add_run_tags(run.run_id, {RETRY_STEP_FAILURES_TAG: "true"})
            with suppress(ProcessLookupError):
                os.kill(process_id(process), signal.SIGTERM)


def months_of(runs: Sequence[dg.DagsterRun]) -> str:
    """The runs by their months, `green 2020-04, yellow 2020-05`; by the job's name where there is none."""
    names = [", ".join(map(str, dataset_months_of(run))) or run.job_name for run in runs]
    return ", ".join(sorted(names))


def _socket_of(run: dg.DagsterRun) -> str | None:
    return json.loads(run.tags.get(CODE_SERVER_TAG, "{}")).get("socket")
