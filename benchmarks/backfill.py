"""Measure a backfill launched in the UI: `python -m benchmarks.backfill [--dataset yellow] [--minutes 40] [--watch]`.

A real `taxi dev` on a temporary home materializes every month of all datasets, or of one, as one action in a browser,
from tiny synthetic files: this measures what Dagster needs for a run, not the cleaning. Prints the rate, where the time
goes and how fast GraphQL answers meanwhile; fails unless every month succeeded in a run of its own with every check
evaluated. The page is left after the launch, unless `--watch` is given: a browser that draws the backfill takes a third
of two cores. `--pictures FOLDER` stores screenshots of the backfill and of the graph.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from taxi_platform.trips.months import Dataset
from taxi_platform_tests.support.system import chromium, wait_for
from taxi_platform_tests.support.taxi_dev import Platform, taxi_dev
from taxi_platform_tests.support.ui_actions import materialize_everything, materialize_group

RUNNING = ("REQUESTED", "CANCELING", "FAILING")
PICTURE_AFTER = 0.5
"""The share of runs after which the screenshots of a running backfill are taken."""


@dataclass
class Backfill:
    """One backfill of `months` runs, looked at every few seconds."""

    platform: Platform
    id: str
    months: int
    started: float = field(default_factory=time.monotonic)
    latencies: dict[str, list[float]] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def look(self) -> tuple[str, dict[str, int]]:
        """Its status and the number of runs by status, each question timed."""
        status = self._timed("backfill", self.platform.backfill_status, self.id)
        self._timed("months of a backfill", self.platform.backfill_months, self.id)
        counts = self._timed("runs by status", self.platform.backfill_run_counts, self.id)
        for dataset in Dataset:
            self._timed("graph of a group", self.platform.latest_checks, dataset.value)
        return status, counts

    def _timed(self, name: str, question: Any, argument: str) -> Any:
        asked = time.monotonic()
        answer = question(argument)
        self.latencies.setdefault(name, []).append(time.monotonic() - asked)
        return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Dataset, help="only this one, all its months (default: all datasets)")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=40, help="cancel the backfill after so long, and fail")
    parser.add_argument("--watch", action="store_true", help="keep the page of the backfill open meanwhile")
    parser.add_argument("--pictures", type=Path, help="a folder for screenshots")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="backfill-") as folder,
        taxi_dev(Path(folder) / "home", TAXI_SOURCE_URL=f"sample://?rows={options.rows}") as platform,
        chromium() as browser,
    ):
        page = browser.new_page(viewport={"width": 1500, "height": 950})
        page.set_default_timeout(60_000)
        datasets = [options.dataset] if options.dataset else list(Dataset)
        months = {dataset: platform.partitions(f"{dataset}/trips") for dataset in datasets}
        backfill = _launch(platform, page, months)
        if not options.watch:
            page.goto("about:blank")
        with _cores_busy() as busy:
            status = _follow(backfill, page, options.minutes * 60, options.pictures)
        seconds = backfill.seconds
        _take_pictures(backfill, page, options.pictures, "done")
        _print_figures(backfill, seconds, busy[0])
        problems = [f"the backfill is {status}"] if status != "COMPLETED_SUCCESS" else []
        problems += _problems(platform, backfill.id, months)
    for problem in problems:
        print(problem)
    sys.exit(1 if problems else 0)


def _launch(platform: Platform, page: Any, months: dict[Dataset, list[str]]) -> Backfill:
    count = sum(map(len, months.values()))
    if len(months) == 1:
        [(dataset, names)] = months.items()
        materialize_group(page, platform.url, dataset.value, f"[{names[0]}...{names[-1]}]")
    else:
        print(f"The dialog says: {' / '.join(materialize_everything(page, platform.url).splitlines())}")
    backfill = Backfill(platform, wait_for(platform.newest_backfill), count)
    print(f"Backfill {backfill.id} of {count} months is launched.", flush=True)
    return backfill


def _follow(backfill: Backfill, page: Any, limit: float, pictures: Path | None) -> str:
    """Print progress until the backfill ends; cancel it after `limit` seconds."""
    printed, is_pictured, is_canceled = 0.0, False, False
    while True:
        status, counts = backfill.look()
        succeeded = counts.get("SUCCESS", 0)
        if backfill.seconds - printed >= 30 or status not in RUNNING:
            printed = backfill.seconds
            print(f"{printed:5.0f} s: {status}, {dict(sorted(counts.items()))}", flush=True)
        if status not in RUNNING:
            return status
        if not is_pictured and succeeded >= PICTURE_AFTER * backfill.months:
            _take_pictures(backfill, page, pictures, "running")
            is_pictured = True
        if not is_canceled and backfill.seconds > limit:
            print(f"Out of time: canceled with {succeeded} of {backfill.months} months.", flush=True)
            backfill.platform.cancel_backfill(backfill.id)
            is_canceled = True
        time.sleep(5)


@contextmanager
def _cores_busy() -> Iterator[list[float]]:
    """Yields a list that holds, at the end, how many cores were busy on average."""
    before, started, busy = psutil.cpu_times(), time.monotonic(), [0.0]
    yield busy
    after = psutil.cpu_times()
    idle = after.idle + after.iowait - before.idle - before.iowait
    busy[0] = (psutil.cpu_count() or 1) - idle / (time.monotonic() - started)


def _take_pictures(backfill: Backfill, page: Any, folder: Path | None, name: str) -> None:
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    groups = "/locations/taxi_platform/asset-groups"
    paths = {
        "backfill": f"/runs/b/{backfill.id}",
        "backfills": "/runs?view=backfills",
        "lineage": "/asset-groups",
        "graph": f"{groups}/yellow/lineage",
    }
    for picture, path in paths.items():
        opened = time.monotonic()
        page.goto(backfill.platform.url + path)
        page.wait_for_timeout(8000)  # the UI polls for ever, so there is no moment at which it is done
        page.screenshot(path=folder / f"{name}-{picture}.png")
        print(f"{name}-{picture}.png after {time.monotonic() - opened:.1f} s, 8 of them waiting", flush=True)


def _print_figures(backfill: Backfill, seconds: float, busy: float) -> None:
    runs = [run for run in backfill.platform.backfill_runs(backfill.id) if run["status"] == "SUCCESS"]
    if not runs:
        print("No run has succeeded.")
        return
    durations = [run["endTime"] - run["startTime"] for run in runs]
    waits = [run["startTime"] - run["creationTime"] for run in runs]
    created = [run["creationTime"] for run in runs]
    print(f"{len(runs)} runs in {seconds:.0f} s, {seconds / len(runs):.2f} s per month, {busy:.2f} cores busy")
    print(f"runs were created within {max(created) - min(created):.0f} s, and waited {max(waits):.0f} s at most")
    print(f"a run takes {statistics.median(durations):.2f} s (median), {max(durations):.2f} s at most")
    print(f"{sum(durations) / seconds:.2f} runs were executing at a time")
    for name, latencies in backfill.latencies.items():
        milliseconds = sorted(1000 * latency for latency in latencies)
        print(
            f"GraphQL, {name}: {statistics.median(milliseconds):.0f} ms (median of {len(milliseconds)}), "
            f"{milliseconds[-1]:.0f} ms at most"
        )


def _problems(platform: Platform, backfill: str, months: dict[Dataset, list[str]]) -> list[str]:
    """What is not as it should be: months without exactly one run that succeeded, and checks not evaluated."""
    runs = [run for run in platform.backfill_runs(backfill) if run["datasets"] != {"reference"}]
    problems = [f"{run['status']}: {run['tags']}" for run in runs if run["status"] != "SUCCESS"]
    incomplete = 0
    for dataset, names in months.items():
        latest = platform.latest_checks(dataset.value)
        own = [run for run in runs if dataset.value in run["datasets"]]
        if sorted(run["tags"].get("dagster/partition", "") for run in own) != names:
            problems.append(f"{dataset}: {len(own)} runs for {len(names)} months, not one run for each")
        missing = sorted(set(names) - platform.materialized(f"{dataset}/trips"))
        problems += [f"{dataset} {month} is not materialized" for month in missing]
        for run in own:
            if set(platform.run_checks(run["runId"])) != {*latest, f"{dataset}/quality:marts_match_trips"}:
                incomplete += 1
                problems.append(f"{dataset} {run['tags'].get('dagster/partition')}: not every check was evaluated")
        problems += [f"{name} shows {status}" for name, status in latest.items() if status in (None, "SKIPPED")]
        print(f"{dataset}: {len(own)} runs for {len(names)} months, {len(latest)} checks: {latest}")
    print(f"{len(runs)} runs, {incomplete} of them without every check evaluated")
    return problems


if __name__ == "__main__":
    main()
