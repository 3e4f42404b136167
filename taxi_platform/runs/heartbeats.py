"""Whether Dagster's daemon is alive, by the heartbeats that its parts leave in the database."""

from __future__ import annotations

import time

import dagster as dg

HEARTBEAT_SECONDS = 180.0
"""A part whose heartbeat is older counts as dead. It writes one every 30 s, but not during a sensor's tick, which may
take 60 s. Dagster itself waits for half an hour."""


def silent_parts(instance: dg.DagsterInstance) -> dict[str, float | None]:
    """The parts of the daemon that are not alive → the seconds since their last heartbeat, None if they had none."""
    heartbeats, now = instance.get_daemon_heartbeats(), time.time()
    ages = {
        name: now - heartbeats[name].timestamp if name in heartbeats else None
        for name in sorted(instance.get_required_daemon_types())
    }
    # Also one that lies ahead: the daemon would have replaced it since the clock was set back.
    return {name: age for name, age in ages.items() if age is None or abs(age) > HEARTBEAT_SECONDS}
