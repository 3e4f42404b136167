"""Metrics of Dagster's database, of the disk and of the outbox.

Labels take values from closed sets, so that there are a few hundred series however long the platform runs.
"""

from __future__ import annotations

import platform
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import dagster as dg
import duckdb

import taxi_platform
from taxi_platform.assets.names import AUDIT_JOB, MARTS_JOB, job_name
from taxi_platform.notifications.outbox import Outbox
from taxi_platform.runs.counts import all_runs, ticks_since, unfinished_runs
from taxi_platform.runs.history import failed_check_counts
from taxi_platform.settings import Settings
from taxi_platform.trips.contract import contract_of
from taxi_platform.trips.months import Dataset


@dataclass(frozen=True)
class Age:
    """A value that grows: the seconds since then, which is in seconds since 1970."""

    since: float


class Sample(NamedTuple):
    """A value of the metric `taxi_{name}`, with its labels in the order of their declaration."""

    name: str
    labels: tuple[str, ...]
    value: float | Age


JOBS = {*map(job_name, Dataset), AUDIT_JOB, MARTS_JOB, "freshness", "__ASSET_JOB"}
"""The values of the label `dagster_job`, because Prometheus keeps `job` for itself. `__ASSET_JOB` is Dagster's name for
what is started from an asset's page."""
OTHER = "other"
TICK_STATUSES = ("success", "skipped", "failure", "started")
DAY = 24 * 3600.0


def version_samples(datasets: Sequence[Dataset]) -> list[Sample]:
    versions = (taxi_platform.__version__, dg.__version__, duckdb.__version__, platform.python_version())
    contracts = [Sample("contract_info", (dataset.value, contract_of(dataset).version), 1.0) for dataset in datasets]
    return [Sample("build_info", versions, 1.0), *contracts]


def database_samples(instance: dg.DagsterInstance) -> list[Sample]:
    """What a few short queries tell about now."""
    unfinished, queued = unfinished_runs(instance), dg.DagsterRunStatus.QUEUED.value
    waiting = [runs for runs in unfinished if runs.status == queued]
    at_work = [runs for runs in unfinished if runs.status != queued]
    started = [runs.started for runs in at_work if runs.started]  # others may wait for an agent for as long as it takes
    heartbeats = instance.get_daemon_heartbeats()
    return [
        Sample("run_queue_length", (), sum(runs.count for runs in waiting)),
        Sample("run_queue_oldest_age_seconds", (), _age([runs.oldest for runs in waiting])),
        Sample("runs_in_progress", (), sum(runs.count for runs in at_work)),
        Sample("run_in_progress_oldest_age_seconds", (), _age(started)),
        *(
            Sample("daemon_heartbeat_age_seconds", (name.lower(),), Age(heartbeats[name].timestamp))
            for name in instance.get_required_daemon_types()
            if name in heartbeats
        ),
    ]


def _age(times: Sequence[float]) -> Age | float:
    return Age(min(times)) if times else 0.0


def agent_samples(settings: Settings, instance: dg.DagsterInstance) -> list[Sample]:
    """The agents and their queues, where `dagster.yaml` starts runs by agents. Raises `BrokerDown`."""
    if type(instance.run_launcher).__module__ != "taxi_platform.runs.agents.launcher":
        return []
    from taxi_platform.runs.agents.listing import listing_of

    shown = listing_of(instance, settings)
    waiting, serving = Counter[str](), Counter[str]()
    for state in shown.queues:
        waiting[state.queue.name] += state.waiting
        serving[state.queue.name] += len(state.agents) if state.queue.release == shown.release.name else 0
    return [
        Sample("agents", (), len(shown.agents)),
        *(Sample("agent_queue_length", (name,), count) for name, count in waiting.items()),
        *(Sample("agent_queue_agents", (name,), count) for name, count in serving.items()),
    ]


def home_samples(settings: Settings) -> list[Sample]:
    """The disks that months are written to, and the notifications that wait in TAXI_HOME."""
    disks = {place: shutil.disk_usage(folder) for place, folder in settings.disks().items()}
    waiting, oldest = Outbox(settings.home).backlog()
    return [
        *(Sample("disk_free_bytes", (place,), disk.free) for place, disk in disks.items()),
        *(Sample("disk_size_bytes", (place,), disk.total) for place, disk in disks.items()),
        Sample("outbox_pending", (), waiting),
        Sample("outbox_oldest_age_seconds", (), _age([oldest] if oldest else [])),
    ]


def history_samples(instance: dg.DagsterInstance, datasets: Sequence[Dataset]) -> list[Sample]:
    """What takes a look at all runs, a day of ticks and every month's checks."""
    counts = Counter({(job, state.value.lower()): 0 for job in sorted(JOBS) for state in dg.DagsterRunStatus})
    for runs in all_runs(instance):
        counts[runs.job if runs.job in JOBS else OTHER, runs.status.lower()] += runs.count
    checks = failed_check_counts(instance, datasets)
    return [
        *(Sample("runs", labels, count) for labels, count in counts.items()),
        *_tick_samples(instance),
        *(Sample("failed_checks", (dataset.value, name), count) for (dataset, name), count in checks.items()),
    ]


def _tick_samples(instance: dg.DagsterInstance) -> Iterator[Sample]:
    by_name: dict[tuple[str, str], dict[str, tuple[int, int]]] = defaultdict(dict)
    for ticks in ticks_since(instance, time.time() - DAY):
        by_name[ticks.name, ticks.kind][ticks.status] = ticks.count, ticks.latest
    for name, counts in by_name.items():
        for state in TICK_STATUSES:
            yield Sample("ticks", (*name, state), counts.get(state, (0, 0))[0])
        latest = max((number, state) for state, (_, number) in counts.items() if state != "started" or len(counts) == 1)
        yield Sample("tick_last_failed", name, float(latest[1] == "failure"))
