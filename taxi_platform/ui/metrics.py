"""`/metrics`: what is known, in the formats of Prometheus and OpenMetrics.

A scrape waits a moment for what Dagster's database says now, and never for what costs more: that it shows as it was
read last, and has it read again beside. Where nobody scrapes, nothing is read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence

import dagster as dg
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from taxi_platform.settings import Settings
from taxi_platform.ui.health import PARTS, Health
from taxi_platform.ui.known import Known
from taxi_platform.ui.metric_months import month_samples
from taxi_platform.ui.metric_names import METRICS
from taxi_platform.ui.metric_sources import (
    Age,
    Sample,
    agent_samples,
    database_samples,
    history_samples,
    home_samples,
    version_samples,
)
from taxi_platform.ui.metric_steps import StepTotals

NOW_SECONDS = 5.0
"""How old what a scrape waits for may be: many scrapers cost no more than one."""
WAIT_SECONDS = 2.0
"""How long it waits. Prometheus gives a scrape 10 s."""
BACKGROUND_SECONDS = 60.0
MONTHS_SECONDS = 300.0
"""A survey asks a bucket four times for each month, so that 606 months cost some cents a day."""


class Metrics:
    """What one webserver exports."""

    def __init__(self, settings: Settings, instance: dg.DagsterInstance) -> None:
        steps = StepTotals(instance, settings.datasets)
        self._versions = version_samples(settings.datasets)
        self.awaited = [
            Known("runs", lambda: database_samples(instance), NOW_SECONDS),
            Known("home", lambda: home_samples(settings), NOW_SECONDS),
        ]
        self.background = [
            Known("months", lambda: month_samples(settings, instance), MONTHS_SECONDS, is_costly=True),
            Known("history", lambda: history_samples(instance, settings.datasets), BACKGROUND_SECONDS, is_costly=True),
            Known("agents", lambda: agent_samples(settings, instance), BACKGROUND_SECONDS),
            Known("steps", steps.read, BACKGROUND_SECONDS / 2, is_costly=True),
        ]

    async def refresh(self) -> None:
        """Read again what is due; waits for what is about now, for a moment."""
        awaited = [known.refresh(WAIT_SECONDS) for known in self.awaited]
        await asyncio.gather(*awaited, *(known.refresh(0) for known in self.background))

    def exposition(self, health: Health, accept: str) -> tuple[bytes, str]:
        """All that is known, in the format that the header `accept` asks for, and its content type."""
        samples = [Sample("up", (part,), float(part not in health.problems)) for part in PARTS]
        registry = CollectorRegistry()
        registry.register(_Exposition([*samples, *self._versions, *self._known()]))
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type

    def _known(self) -> Iterator[Sample]:
        for known in [*self.awaited, *self.background]:
            if known.read_at is not None:
                yield from known.value or ()
                yield Sample("metrics_refresh_timestamp_seconds", (known.name,), known.read_at)
                yield Sample("metrics_refresh_duration_seconds", (known.name,), known.took)
            yield Sample("metrics_refresh_failed", (known.name,), float(known.problem is not None))


class _Exposition(Collector):
    """The samples as families, in the order in which they are declared."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = list(samples)

    def describe(self) -> Sequence[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        now = time.time()
        families = {metric.name.removeprefix("taxi_"): metric.family() for metric in METRICS}
        for sample in self._samples:
            value = now - sample.value.since if isinstance(sample.value, Age) else sample.value
            families[sample.name].add_metric(sample.labels, value)  # type: ignore[attr-defined]
        return iter(family for family in families.values() if family.samples)
