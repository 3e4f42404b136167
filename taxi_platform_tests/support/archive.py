"""A source that has published the whole archive in tiny files, and a real daemon whose schedules are on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from dagster._core.scheduler.instigation import InstigatorTick

from taxi_platform.trips.months import Dataset, newest_month
from taxi_platform_tests.support.web_server import Page, Web

ROOT = Path(__file__).parents[2]
PICKUP = {Dataset.YELLOW: "tpep_pickup_datetime", Dataset.GREEN: "lpep_pickup_datetime"}


def publish_archive(web: Web, today, seconds: float) -> dict[Dataset, int]:
    """Publish every month of every dataset, one trip each, answered after `seconds`; returns the months published."""
    counts = {}
    for dataset in Dataset:
        months = list(dataset.first_month.until(newest_month(today)))
        for month in months:
            body = f"{PICKUP.get(dataset, 'pickup_datetime')}\n{month}-01 00:10:00\n".encode()
            web.pages[f"/{dataset}_{month}.csv"] = Page(body, etag=f'"{dataset}-{month}"', delay=seconds)
        counts[dataset] = len(months)
    return counts


def archive_environment(web: Web, home: Path) -> dict[str, str]:
    """The environment of a platform on that source that catches up every minute."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("TAXI_", "DAGSTER_"))}
    return {
        **ours,
        "TAXI_HOME": str(home),
        "DAGSTER_HOME": str(home / "dagster"),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "TAXI_SOURCE_URL": web.url + "/{dataset}_{month}.csv",
        "TAXI_SET_ASIDE": "no",
        "TAXI_SINCE": "2009-01",
        "TAXI_SCHEDULE": "* * * * *",
    }


@contextmanager
def daemon(environment: dict[str, str]) -> Iterator[None]:
    """The daemon of `taxi serve` with the four schedules on; ended at the end, with the processes that it started."""
    workspace = ["-w", str(ROOT / "workspace.yaml")]
    for name in Dataset:
        command = [sys.executable, "-m", "dagster", "schedule", "start", f"{name}_schedule", *workspace]
        subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True)
    with (Path(environment["TAXI_HOME"]) / "daemon.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "taxi_platform.ui.daemon", "run", *workspace],
            env=environment,
            cwd=ROOT,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(300)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)


def ticks_of(instance: dg.DagsterInstance) -> dict[str, list[InstigatorTick]]:
    """Each schedule's ticks that have ended, newest first."""
    states = [state for state in instance.all_instigator_state() if state.instigator_name.endswith("_schedule")]
    started = {
        state.instigator_name: instance.get_ticks(state.instigator_origin_id, state.selector_id) for state in states
    }
    return {name: [tick for tick in ticks if tick.end_timestamp] for name, ticks in started.items()}
