"""Load the whole archive by schedules alone: `python -m benchmarks.archive`, with the ticks' times at the end.

A source that answers after 100 ms has published every month of the four datasets in tiny files; a real daemon ticks
every minute until all are loaded. An hour or two on two cores.
"""

from __future__ import annotations

import os
import tempfile
import time
from datetime import date
from pathlib import Path

import dagster as dg
from dagster._core.scheduler.instigation import TickStatus

from taxi_platform.runs.instance import open_instance
from taxi_platform.settings import load_settings
from taxi_platform_tests.support.archive import archive_environment, daemon, publish_archive, ticks_of
from taxi_platform_tests.support.web_server import serving


def main() -> None:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="archive-") as folder, serving() as web:
        environment = archive_environment(web, Path(folder))
        os.environ.update(environment)
        months = sum(publish_archive(web, date.today(), seconds=0.1).values())
        with open_instance(load_settings()) as instance, daemon(environment):
            while (loaded := _succeeded(instance)) < months:
                print(f"{(time.monotonic() - started) / 60:4.0f} min: {loaded} of {months} months", flush=True)
                time.sleep(60)
            for name, ticks in ticks_of(instance).items():
                seconds = [tick.end_timestamp - tick.timestamp for tick in ticks if tick.end_timestamp]
                failed = sum(tick.status == TickStatus.FAILURE for tick in ticks)
                print(f"{name}: {len(ticks)} ticks, {failed} failed, the longest took {max(seconds):.1f} s")
        print(f"{months} months in {(time.monotonic() - started) / 60:.0f} minutes, {len(web.requests)} requests")


def _succeeded(instance: dg.DagsterInstance) -> int:
    runs = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS]))
    return len({(run.job_name, run.tags.get("dagster/partition")) for run in runs})


if __name__ == "__main__":
    main()
