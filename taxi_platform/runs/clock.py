"""Times that Dagster stored while the clock was ahead.

Dagster starts no tick before the last one's time plus the interval: after a clock that was years ahead for a minute,
sensors and schedules would rest for years.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg

from taxi_platform.runs.dagster_internals import get_current_timestamp

MARGIN_SECONDS = 60.0
"""Clocks of several machines differ by seconds."""


def forget_times_ahead(instance: dg.DagsterInstance) -> int:
    """Set what Dagster knows about the ticks of schedules and sensors to now where it lies ahead; returns how many."""
    now = get_current_timestamp()
    return sum(_reset(instance, state, now) for state in instance.all_instigator_state())


def _reset(instance: dg.DagsterInstance, state: Any, now: float) -> int:
    ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, after=now + MARGIN_SECONDS)
    for tick in ticks:
        instance.update_tick(tick._replace(tick_data=tick.tick_data._replace(timestamp=now)))
    data = state.instigator_data
    ahead = dict(_times_ahead(data, now))
    if ahead:
        instance.update_instigator_state(state.with_data(data._replace(**dict.fromkeys(ahead, now))))
    return len(ticks) + len(ahead)


def _times_ahead(data: Any, now: float) -> Iterator[tuple[str, float]]:
    for name, value in (data._asdict() if data else {}).items():
        if name.endswith("timestamp") and value is not None and value > now + MARGIN_SECONDS:
            yield name, value
