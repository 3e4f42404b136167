"""The sensor that looks after runs that wait for agents; it exists only with TAXI_BROKER_URL."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg

from taxi_platform.settings import Settings
from taxi_platform.trips.errors import TaxiError

INTERVAL_SECONDS = 10


def build_agents_sensor(settings: Settings) -> Iterator[dg.SensorDefinition]:
    """`agents`, on from the start. Each tick says who serves what, and what waits."""
    if not settings.broker_url:
        return
    from taxi_platform.runs.agents.check import check_installed

    check_installed()
    # Imported here: Celery takes half a second, and comes with `taxi-platform[agents]` only.
    from taxi_platform.runs.agents.shared import code_server_of, publish
    from taxi_platform.runs.agents.waiting import WaitingRuns

    waiting, server = WaitingRuns(), code_server_of(settings)

    @dg.sensor(
        name="agents",
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Looks after runs that wait for an agent: sends lost ones again, and names queues that no agent "
        "serves. It starts no runs of its own.",
    )
    def agents(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        publish(context.instance, server)
        try:
            return dg.SkipReason(waiting.look(context.instance))
        except TaxiError as error:
            return dg.SkipReason(str(error))

    yield agents
