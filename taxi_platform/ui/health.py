"""`/health`: whether Dagster's database, its daemon, the code location and the lake answer.

Each is asked by a thread of its own, at most every `CACHE_SECONDS` however many ask, and nobody waits longer than
`WAIT_SECONDS`, also where nothing answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial

import dagster as dg

from taxi_platform.lake import open_lake
from taxi_platform.lake.base import Lake
from taxi_platform.runs.dagster_internals import WorkspaceProcessContext, sync_list_repositories_grpc
from taxi_platform.runs.heartbeats import silent_parts
from taxi_platform.settings import Settings
from taxi_platform.trips.errors import TaxiError
from taxi_platform.ui.known import Known

CACHE_SECONDS = 5.0
WAIT_SECONDS = 3.0

PARTS = ("database", "daemon", "code_location", "lake")


@dataclass(frozen=True)
class Health:
    """What does not answer, and why: part → one line. Nothing else is wrong."""

    problems: Mapping[str, str]

    @property
    def is_healthy(self) -> bool:
        return not self.problems

    def as_json(self) -> dict[str, object]:
        parts = {part: {"healthy": part not in self.problems} for part in PARTS}
        return {
            "healthy": self.is_healthy,
            "parts": {
                part: state | ({"problem": self.problems[part]} if part in self.problems else {})
                for part, state in parts.items()
            },
        }


class HealthChecks:
    """The four probes of one webserver, and what they found last."""

    def __init__(self, settings: Settings, instance: dg.DagsterInstance, context: WorkspaceProcessContext) -> None:
        lake = cache(partial(open_lake, settings.lake_url))  # a bucket's client asks for credentials when it is made
        probes: dict[str, Callable[[], None]] = {
            "database": partial(check_database, instance),
            "daemon": partial(check_daemon, instance),
            "code_location": partial(check_code_locations, context),
            "lake": lambda: check_lake(lake()),
        }
        self._probes = [Known(part, probes[part], CACHE_SECONDS) for part in PARTS]

    async def look(self) -> Health:
        """What does not answer now, or did not within the last seconds."""
        answered = await asyncio.gather(*(probe.refresh(WAIT_SECONDS) for probe in self._probes))
        problems = {
            probe.name: probe.problem if has_answered else f"No answer for {probe.hanging_for:.0f} s."
            for probe, has_answered in zip(self._probes, answered, strict=True)
        }
        return Health({part: problem for part, problem in problems.items() if problem})


def check_database(instance: dg.DagsterInstance) -> None:
    """Read from the storages of runs, events, and schedules, each of which is a file in the embedded default."""
    instance.get_runs(limit=1)
    instance.event_log_storage.get_maximum_record_id()
    instance.all_instigator_state()


def check_daemon(instance: dg.DagsterInstance) -> None:
    """Raises `TaxiError` for the daemon's parts whose last heartbeat is missing or old."""
    silent = silent_parts(instance)
    if silent and silent == dict.fromkeys(instance.get_required_daemon_types()):
        raise TaxiError("No daemon has run on this database.", "Start taxi serve or taxi dev.")
    if silent:
        said = ", ".join(f"{name}: {_when(age)}" for name, age in silent.items())
        raise TaxiError(f"The daemon's last heartbeats are missing or old: {said}.", "See daemon.log.")


def _when(age: float | None) -> str:
    if age is None:
        return "none"
    return f"{age:.0f} s ago" if age >= 0 else f"{-age:.0f} s ahead of the clock"


def check_code_locations(context: WorkspaceProcessContext) -> None:
    """Ask every code server what it has loaded; raises `TaxiError` where one has loaded nothing."""
    for name, entry in context.get_current_workspace().code_location_entries.items():
        if entry.load_error:
            raise TaxiError(f"{name} did not load: {entry.load_error.message.strip()}")
        if client := getattr(entry.code_location, "client", None):
            sync_list_repositories_grpc(client)


def check_lake(lake: Lake) -> None:
    """List the lake's top; one that does not exist yet is empty, which is no fault."""
    lake.names("raw/")
