"""How many runs and ticks there are, counted by the database: a few rows, however long the history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from sqlalchemy import func, select

from taxi_platform.runs.dagster_internals import NOT_FINISHED_STATUSES, runs_table, ticks_table


@dataclass(frozen=True)
class RunCount:
    """The runs of a job in one status; `oldest` is when the first of them was created, and `started` when the first
    started, in seconds since 1970."""

    job: str
    status: str
    count: int
    oldest: float
    started: float | None


@dataclass(frozen=True)
class TickCount:
    """The ticks of a schedule or sensor in one status. `latest` is the last one's number: later ticks have higher ones.

    Not its time, which PostgreSQL stores in the time zone of whoever wrote it.
    """

    name: str
    kind: str
    status: str
    count: int
    latest: int


def unfinished_runs(instance: dg.DagsterInstance) -> list[RunCount]:
    """The runs that wait or run, by job and status."""
    return _runs(instance, runs_table().c.status.in_([status.value for status in NOT_FINISHED_STATUSES]))


def all_runs(instance: dg.DagsterInstance) -> list[RunCount]:
    """All runs that Dagster knows, by job and status."""
    return _runs(instance)


def _runs(instance: dg.DagsterInstance, *conditions: Any) -> list[RunCount]:
    columns = runs_table().c
    query = (
        select(
            columns.pipeline_name,
            columns.status,
            func.count(),
            func.min(columns.create_timestamp),
            func.min(columns.start_time),
        )
        .where(*conditions)
        .group_by(columns.pipeline_name, columns.status)
    )
    return [
        RunCount(job, status, count, _seconds(oldest), started)
        for job, status, count, oldest, started in _rows(instance.run_storage, query)
    ]


def ticks_since(instance: dg.DagsterInstance, since: float) -> list[TickCount]:
    """The ticks of every schedule and sensor after `since`, seconds since 1970, by status."""
    states = {state.selector_id: state for state in instance.all_instigator_state()}
    columns = ticks_table().c
    query = (
        select(columns.selector_id, columns.status, func.count(), func.max(columns.id))
        .where(columns.selector_id.in_(states), columns.timestamp > datetime.fromtimestamp(since, UTC))
        .group_by(columns.selector_id, columns.status)
    )
    return [
        TickCount(
            states[selector].instigator_name,
            states[selector].instigator_type.value.lower(),
            status.lower(),
            count,
            latest,
        )
        for selector, status, count, latest in (_rows(instance.schedule_storage, query) if states else [])
    ]


def _rows(storage: Any, query: Any) -> Sequence[Any]:
    with storage.connect() as connection:
        return connection.execute(query).fetchall()


def _seconds(time: datetime) -> float:
    """Dagster's databases store UTC, as SQLite returns it without saying so."""
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
