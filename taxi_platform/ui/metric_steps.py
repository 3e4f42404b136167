"""Totals of the steps that ended since this process started, from what their materializations say of themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from taxi_platform.marts.tables import QUALITY, mart_names
from taxi_platform.trips.months import Dataset
from taxi_platform.ui.metric_sources import Sample

ROWS = {"raw_file": "rows_read", "clean_trips": "rows_clean", "trips": "rows", "serving_trips": "rows"}
"""Asset, which is the value of the label `step` → the metadata that has its rows."""
MARTS = "marts"
"""The step of all marts of a month, which are built together. What they have in common is read from the last one."""
STORED = ("raw_file", "clean_trips")
"""The steps that store a file of a size worth telling."""
SUMS = ("step_rows_total", "step_seconds_total", "step_lock_wait_seconds_total")
RESULTS = ("changed", "unchanged")
EVENTS_AT_ONCE = 200


class StepTotals:
    """Counters, as Prometheus understands them: they begin at 0 with the process, and only grow."""

    def __init__(self, instance: dg.DagsterInstance, datasets: Sequence[Dataset]) -> None:
        self._instance, self._datasets = instance, datasets
        self._cursor: int | None = None
        self._totals: dict[tuple[str, tuple[str, ...]], float] = dict.fromkeys(self._zeros(), 0.0)

    def read(self) -> list[Sample]:
        """Add the events since the last call; the first one begins at the newest event."""
        storage = self._instance.event_log_storage
        last = storage.get_maximum_record_id() or 0
        if self._cursor is None:
            self._cursor = last
        self._cursor = min(self._cursor, last)  # a database that was made anew
        while self._cursor < last:
            self._cursor = self._read_events(self._cursor, last)
        return [Sample(name, labels, value) for (name, labels), value in self._totals.items()]

    def _read_events(self, after: int, last: int) -> int:
        """Add the next events; returns the last one's number."""
        materialized = dg.EventRecordsFilter(dg.DagsterEventType.ASSET_MATERIALIZATION, after_cursor=after)
        records = self._instance.event_log_storage.get_event_records(materialized, EVENTS_AT_ONCE, ascending=True)
        for record in records:
            if record.asset_materialization:
                self._add(record.asset_materialization)
        return records[-1].storage_id if len(records) == EVENTS_AT_ONCE else last

    def _add(self, event: dg.AssetMaterialization) -> None:
        dataset, _, asset = event.asset_key.to_user_string().partition("/")
        if dataset not in self._datasets or asset not in {*ROWS, *mart_names(Dataset(dataset))}:
            return
        metadata = {name: value.value for name, value in event.metadata.items()}
        step, has_changed = asset if asset in ROWS else MARTS, not metadata.get("unchanged")
        totals, labels = self._totals, (dataset, step)
        if has_changed:
            totals["step_rows_total", labels] += _number(metadata, ROWS.get(asset, "rows"))
        if asset in ROWS or asset == QUALITY:
            result = "changed" if has_changed else "unchanged"
            totals["step_materializations_total", (*labels, result)] += 1
            totals["step_seconds_total", labels] += _number(metadata, "seconds")
            totals["step_lock_wait_seconds_total", labels] += _number(metadata, "lock_wait_seconds")
        if has_changed and asset in STORED:
            totals["step_bytes_total", labels] += _number(metadata, "bytes")

    def _zeros(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Every series, so that a rate is right from the first event on."""
        for dataset in self._datasets:
            for step in [*ROWS, MARTS]:
                yield from (("step_materializations_total", (dataset, step, result)) for result in RESULTS)
                yield from ((name, (dataset, step)) for name in SUMS)
                if step in STORED:
                    yield "step_bytes_total", (dataset, step)


def _number(metadata: Mapping[str, Any], name: str) -> float:
    """Also of events of older versions, and of reports from outside: what is missing or no number counts as 0."""
    value = metadata.get(name)
    return float(value) if isinstance(value, (int, float)) and value >= 0 else 0.0
