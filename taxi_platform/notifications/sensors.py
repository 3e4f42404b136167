"""The sensor that sends messages about finished runs."""

from __future__ import annotations

import time

import dagster as dg

from taxi_platform.notifications.delivery import note_and_deliver
from taxi_platform.settings import Settings

TICK_SECONDS = 30


def build_notifications(settings: Settings) -> list[dg.SensorDefinition]:
    """The sensor `notifications`, running by default; an empty list if no channel is configured."""
    if not settings.notify_urls:
        return []
    loaded_at = time.time()

    @dg.sensor(
        name="notifications",
        minimum_interval_seconds=TICK_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Sends a message to the channels of TAXI_NOTIFY_URLS when a month was loaded or failed.",
    )
    def notifications(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        since = float(context.cursor) if context.cursor else loaded_at
        since, summary = note_and_deliver(context.instance, settings, since, context.log.warning)
        context.update_cursor(f"{since:.3f}")
        return dg.SkipReason(summary)

    return [notifications]
