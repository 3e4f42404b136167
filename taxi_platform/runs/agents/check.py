"""What `taxi doctor` says about agents."""

from __future__ import annotations

import importlib.util

from taxi_platform.settings import Settings
from taxi_platform.trips.errors import TaxiError, UserError

PACKAGES = ("dagster_celery", "redis")


def check_installed() -> None:
    """Raise `UserError` if the packages that agents need are missing."""
    if not all(map(importlib.util.find_spec, PACKAGES)):
        raise UserError("Agents need packages that are not installed.", "Run: pip install 'taxi_platform[agents]'")


def check_agents(settings: Settings) -> str:
    """Who serves which queue, in a sentence; raises `TaxiError` if something is wrong with the agents or the broker."""
    check_installed()
    from taxi_platform.runs.agents.listing import listing_of
    from taxi_platform.runs.instance import open_instance

    with open_instance(settings) as instance:
        shown = listing_of(instance, settings)
    if problems := [*shown.problems(), *shown.risks]:
        raise TaxiError(" ".join(problems), "taxi agents shows all agents and queues.")
    queues = "; ".join(f"{state.queue.name} by {len(state.agents)}, {state.waiting} waiting" for state in shown.queues)
    return f"{len(shown.agents)} agents; queues served: {queues}"
