"""Every metric of `/metrics`: its name, type, labels and meaning, from which docs/monitoring.md has its table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric


@dataclass(frozen=True)
class Declared:
    """A metric as it is exported; `name` is that of its samples, so a counter's ends in `_total`."""

    name: str
    labels: tuple[str, ...]
    help: str

    @property
    def kind(self) -> Literal["counter", "gauge"]:
        return "counter" if self.name.endswith("_total") else "gauge"

    def family(self) -> Metric:
        family = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        return family(self.name, self.help, labels=self.labels)


def _declare(name: str, labels: str, help_text: str) -> Declared:
    return Declared(f"taxi_{name}", tuple(labels.split()), help_text)


METRICS = (
    # The platform
    _declare("up", "part", "1 where the part answers, 0 where it does not, as /health says."),
    _declare("build_info", "version dagster duckdb python", "Always 1; the labels say which versions run."),
    _declare("contract_info", "dataset version", "Always 1; the version of the dataset's contract."),
    _declare("metrics_refresh_timestamp_seconds", "part", "When these metrics were last read, in seconds since 1970."),
    _declare("metrics_refresh_duration_seconds", "part", "How long it took to read them the last time."),
    _declare("metrics_refresh_failed", "part", "1 where reading them failed the last time; older values are shown."),
    # Dagster
    _declare("runs", "dagster_job status", "Runs that Dagster knows, by job and status."),
    _declare("run_queue_length", "", "Runs that wait in the queue."),
    _declare("run_queue_oldest_age_seconds", "", "How long ago the oldest run in the queue was created; 0 if none is."),
    _declare("runs_in_progress", "", "Runs that start, run or are being canceled."),
    _declare("run_in_progress_oldest_age_seconds", "", "How long the oldest of them has been at work; 0 if none is."),
    _declare("agents", "", "Agents that answer, where runs are executed by agents."),
    _declare("agent_queue_length", "queue", "Runs that were sent to a queue and that no agent has taken."),
    _declare("agent_queue_agents", "queue", "Agents that take runs from the queue."),
    _declare("ticks", "name kind status", "Ticks of a schedule or sensor in the last 24 hours, by status."),
    _declare("tick_last_failed", "name kind", "1 where the latest tick that has ended failed, else 0."),
    _declare("daemon_heartbeat_age_seconds", "daemon", "Time since the last heartbeat of a part of Dagster's daemon."),
    # Months
    _declare("months", "dataset state", "Months by state: those of taxi status, and missing where one is overdue."),
    _declare("newest_month_age_seconds", "dataset", "Time since the end of the newest month that is loaded."),
    _declare("lake_rows", "dataset kind", "Rows of all months in the lake: clean and rejected."),
    _declare("lake_bytes", "dataset", "What the lake holds of all months but their marts."),
    _declare("rejected_ratio", "dataset", "Share of all rows read that were rejected."),
    _declare("newest_month_rejected_ratio", "dataset", "The same of the newest month that is loaded."),
    _declare("failed_checks", "dataset check", "Months of which the check did not pass when it was last evaluated."),
    # Work done since this process started
    _declare("step_materializations_total", "dataset step result", "Steps that ended, and whether they found changes."),
    _declare("step_rows_total", "dataset step", "Rows that steps which found changes wrote (raw_file: read)."),
    _declare("step_bytes_total", "dataset step", "Bytes of the files that such steps stored in the lake."),
    _declare("step_seconds_total", "dataset step", "Time that steps took, waits for locks included."),
    _declare("step_lock_wait_seconds_total", "dataset step", "Time that steps waited for locks that other runs held."),
    # The machine
    _declare(
        "disk_free_bytes", "place", "Free space on the disk of TAXI_HOME, and of others that months are written to."
    ),
    _declare("disk_size_bytes", "place", "Size of that disk."),
    _declare("outbox_pending", "", "Notifications that wait to be sent, one for each channel."),
    _declare("outbox_oldest_age_seconds", "", "How long the oldest of them has waited; 0 if none does."),
)
"""In the order in which they are exported."""


def table() -> str:
    """The table of docs/monitoring.md."""
    rows = [
        f"| `{metric.name}` | {metric.kind} | {', '.join(f'`{label}`' for label in metric.labels)} | {metric.help} |"
        for metric in METRICS
    ]
    return "\n".join(["| metric | type | labels | meaning |", "|---|---|---|---|", *rows, ""])


if __name__ == "__main__":
    print(table(), end="")  # noqa: T201
