"""Measure agents: `python -m benchmarks.agents [SCENARIO …]`; `make bench-agents` runs all of them, in about an hour.

Redis, PostgreSQL, `taxi dev` and agents as processes on this machine, tiny synthetic months, backfills by GraphQL.
`--months` and `--agents` make it smaller. Prints a line for each measurement, and the table at the end.

`overhead`: many tiny months, by the default daemon and by 1, 2 and 4 agents · `waiting`: months whose source takes
10 s to answer, twice, by 1 to 8 agents, some for each agent · `kills`: one of three agents killed every 20 s, with its
run · `outages`: the broker down for 60 s and the storage for 20 s · `queued`: every month of all datasets at once.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import requests

from taxi_platform.marts.tables import mart_names
from taxi_platform.sources.sample.writing import write_sample
from taxi_platform.trips.months import Dataset, DatasetMonth
from taxi_platform_tests.support.agents import Cluster, running_cluster
from taxi_platform_tests.support.system import TAXI
from taxi_platform_tests.support.taxi_dev import ASSETS, Platform, selector, taxi_dev
from taxi_platform_tests.support.web_server import Page, serving

ENDED = {"SUCCESS", "FAILURE", "CANCELED"}
DONE = ("COMPLETED_SUCCESS", "COMPLETED_FAILED", "CANCELED", "FAILED")
TINY = {"TAXI_SOURCE_URL": "sample://?rows=200", "TAXI_DATASETS": "green"}
LATENCY = 10.0
LIMIT_SECONDS = 4 * 3600


@dataclass
class Outcome:
    """One backfill: `seconds` from its first run's creation to its last run's end, `processor` seconds of all its
    processes, Redis and PostgreSQL included, and what became of its months."""

    name: str
    months: int
    load: float = field(default_factory=lambda: os.getloadavg()[0])
    """Of the machine, in the minute before: what else ran on it."""
    seconds: float = 0
    processor: float = 0
    loaded_once: int = 0
    runs: int = 0
    longest_stall: float = 0
    is_complete: bool = False
    notes: list[str] = field(default_factory=list)

    def line(self) -> str:
        each = f"{self.seconds / self.months:.2f} s a month, {self.processor / self.months:.2f} s of processor time"
        good = f"{self.loaded_once} of {self.months} loaded once in {self.runs} runs"
        notes = "; ".join([f"longest stall {self.longest_stall:.0f} s", *self.notes, f"load before {self.load:.1f}"])
        return f"| {self.name} | {self.seconds:.0f} s | {each} | {good} | {notes} |"


def backfill(
    name: str,
    platform: Platform,
    dataset: str,
    months: Sequence[str],
    pids: Callable[[], list[int]],
    once_on_its_way: Callable[[], object] = lambda: None,
    audited: bool = False,
) -> Outcome:
    """Materialize months and follow them to the end; a storage that is down for a while is waited for.

    `once_on_its_way` is called, in a thread, when a quarter of them is loaded. If `audited`, marts are made too, and
    `taxi audit` compares lake and tables afterwards.
    """
    outcome, started, before = Outcome(name, len(months)), time.monotonic(), processor_seconds(pids())
    assets = [*ASSETS, *(mart_names(Dataset(dataset)) if audited else ())]
    launched = platform.launch_backfill(dataset, months, assets)
    thread, done, changed = threading.Thread(target=once_on_its_way), 0, None
    while time.monotonic() - started < LIMIT_SECONDS:
        time.sleep(1)
        with suppress(requests.RequestException, AssertionError, ValueError, KeyError):
            loaded = platform.backfill_run_counts(launched).get("SUCCESS", 0)
            if loaded != done:
                outcome.longest_stall = max(outcome.longest_stall, time.monotonic() - (changed or time.monotonic()))
                done, changed = loaded, time.monotonic()
            if done >= len(months) / 4 and not thread.ident:
                thread.start()
            if platform.backfill_status(launched) in DONE:
                break
    outcome.processor = processor_seconds(pids()) - before
    if thread.ident:
        thread.join()
    judge(outcome, platform, launched, months)
    if audited:
        audit(outcome, platform)
    print(outcome.line(), flush=True)
    return outcome


def judge(outcome: Outcome, platform: Platform, launched: str, months: Sequence[str]) -> None:
    """Note how long it took by its runs, and whether each month was loaded once."""
    runs = platform.backfill_runs(launched)
    outcome.seconds = max(run["endTime"] or 0 for run in runs) - min(run["creationTime"] for run in runs)
    outcome.runs = len(runs)
    by_month: dict[str, list[str]] = {}
    for run in runs:
        by_month.setdefault(run["tags"]["dagster/partition"], []).append(run["status"])
    outcome.loaded_once = sum(by_month.get(month, []).count("SUCCESS") == 1 for month in months)
    stuck = [month for month, statuses in by_month.items() if not ENDED.issuperset(statuses)]
    outcome.notes += [f"stuck: {stuck}"] if stuck else []
    outcome.is_complete = outcome.loaded_once == len(months) and not stuck


def audit(outcome: Outcome, platform: Platform) -> None:
    """Have lake and tables proved: every value of every month."""
    done = subprocess.run([TAXI, "audit"], env=platform.environment, capture_output=True, text=True, check=False)
    outcome.notes.append(f"audit failed: {done.stdout}{done.stderr}" if done.returncode else "audit: no difference")
    outcome.is_complete &= done.returncode == 0


def processor_seconds(pids: Sequence[int]) -> float:
    """Of these processes, all that descend from them, and all of these that have ended and were waited for."""
    total, seen = 0.0, set()
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
            for process in tree:
                with suppress(psutil.NoSuchProcess):
                    if process.pid not in seen:
                        seen.add(process.pid)
                        total += sum(process.cpu_times()[:4])
    return total


@contextmanager
def running(agents: int, pool: int = 4, **settings: str) -> Iterator[tuple[Cluster, Platform]]:
    """A cluster with so many agents of one slot; `pool` limits fetching and writing over all of them."""
    with (
        tempfile.TemporaryDirectory(prefix="taxi-agents-") as folder,
        running_cluster(Path(folder) / "cluster", **{**TINY, **settings}) as cluster,
    ):
        file = cluster.home / "dagster" / "dagster.yaml"
        file.write_text(file.read_text().replace("default_limit: 4", f"default_limit: {pool}"))
        for agent in [cluster.start_agent() for _ in range(agents)]:
            agent.wait_until_ready()
        with taxi_dev(cluster.home, **cluster.settings) as platform:
            yield cluster, platform


def of_cluster(cluster: Cluster, platform: Platform) -> Callable[[], list[int]]:
    return lambda: [platform.pid, *cluster.server_pids(), *(agent.process.pid for agent in cluster.agents)]


def green_months(platform: Platform, count: int) -> list[str]:
    return platform.partitions("green/trips")[:count]


def overhead(options: argparse.Namespace) -> list[Outcome]:
    """The default daemon (0 agents) forks runs; agents do the same, with PostgreSQL and Redis between."""
    outcomes = []
    for agents in options.agents or (0, 1, 2, 4):
        with ExitStack() as stack:
            if agents:
                cluster, platform = stack.enter_context(running(agents))
                pids = of_cluster(cluster, platform)
            else:
                home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="taxi-daemon-")))
                platform = stack.enter_context(taxi_dev(home, TAXI_SET_ASIDE="no", **TINY))
                pids = partial(list, [platform.pid])
            months = green_months(platform, options.months or 100)
            name = f"tiny months, {f'{agents} agents' if agents else 'default daemon'}"
            outcomes.append(backfill(name, platform, "green", months, pids))
    return outcomes


def waiting(options: argparse.Namespace) -> list[Outcome]:
    """Months that wait for their source, so that the processor is not the limit; as many for each agent."""
    outcomes: list[Outcome] = []
    with serving() as web, tempfile.TemporaryDirectory(prefix="taxi-source-") as folder:
        raw = Path(folder) / "raw.csv.gz"
        write_sample(DatasetMonth.parse("green", "2020-01"), 200, raw)
        settings = {"TAXI_SOURCE_URL": f"{web.url}/{{dataset}}_tripdata_{{month}}.csv.gz"}
        for agents in options.agents or (1, 2, 4, 8):
            with running(agents, agents, **settings) as (cluster, platform):
                months = green_months(platform, agents * (options.months or 6))
                for month in months:
                    web.pages[f"/green_tripdata_{month}.csv.gz"] = Page(raw.read_bytes(), etag='"1"', delay=LATENCY)
                name = f"waiting months, {agents} agents"
                outcomes.append(backfill(name, platform, "green", months, of_cluster(cluster, platform)))
    first, *others = zip(outcomes, options.agents or (1, 2, 4, 8), strict=True)
    for outcome, agents in others:
        speed_up = (outcome.months / outcome.seconds) / (first[0].months / first[0].seconds)
        times = agents / first[1]
        outcome.notes.append(f"{speed_up:.2f} times as fast as {first[1]}, {speed_up / times:.2f} × agents")
    return outcomes


def kills(options: argparse.Namespace) -> list[Outcome]:
    """Every 20 s one of three agents is killed, and another is started in its place."""
    with running(3) as (cluster, platform):
        ended, killed = threading.Event(), 0

        def kill() -> None:
            nonlocal killed
            while not ended.wait(20):
                victim = next(agent for agent in cluster.agents if agent.process.poll() is None)
                victim.crash()
                killed += 1
                cluster.start_agent()

        thread = threading.Thread(target=kill)
        thread.start()
        try:
            months = green_months(platform, options.months or 60)
            pids = of_cluster(cluster, platform)
            outcome = backfill("one of three agents killed every 20 s", platform, "green", months, pids, audited=True)
        finally:
            ended.set()
            thread.join()
        outcome.notes.append(f"{killed} agents killed")
        return [outcome]


def outages(options: argparse.Namespace) -> list[Outcome]:
    """The broker and the storage stop in mid-backfill."""
    outcomes = []
    for name, seconds in (("broker", 60), ("storage", 20)):
        with running(3) as (cluster, platform):
            server: Any = cluster.redis if name == "broker" else cluster.postgres

            def outage(server: Any = server, seconds: float = seconds) -> None:
                server.stop()
                time.sleep(seconds)
                server.start()

            months, pids = green_months(platform, options.months or 60), of_cluster(cluster, platform)
            outcomes.append(backfill(f"{name} down for {seconds} s", platform, "green", months, pids, outage, True))
    return outcomes


def queued(options: argparse.Namespace) -> list[Outcome]:
    """Every month at once: how usable the UI and the daemon stay meanwhile, for `--minutes`."""
    with running(2, TAXI_DATASETS=",".join(Dataset)) as (_, platform):
        launched = []
        count = 0
        for dataset in Dataset:
            months = platform.partitions(f"{dataset}/trips")[: options.months or None]
            count += len(months)
            launched.append(platform.launch_backfill(dataset.value, months))
        outcome, started = Outcome(f"{count} months queued at once", count), time.monotonic()
        latencies: dict[str, list[float]] = {}
        while time.monotonic() - started < options.minutes * 60:
            questions: dict[str, Callable[[], object]] = {
                "backfill": lambda: platform.backfill_status(launched[0]),
                "runs by status": lambda: platform.backfill_run_counts(launched[0]),
                "graph of a group": lambda: platform.latest_checks("green"),
                "tick of the sensor": lambda: platform.ticks("Sensor", "agents"),
            }
            for name, question in questions.items():
                asked = time.monotonic()
                question()
                latencies.setdefault(name, []).append(time.monotonic() - asked)
            time.sleep(2)
        outcome.seconds = time.monotonic() - started
        counts = [platform.backfill_run_counts(each) for each in launched]
        outcome.loaded_once = sum(each.get("SUCCESS", 0) for each in counts)
        outcome.runs = sum(sum(each.values()) for each in counts)
        outcome.notes += [f"{name}: median {statistics.median(all_):.2f} s" for name, all_ in latencies.items()]
        outcome.notes += [f"ticks {seconds}" for seconds in _tick_seconds(platform)]
        outcome.is_complete = not any(each.get("FAILURE") for each in counts)  # so far: most are queued yet
        print(outcome.line(), flush=True)
        return [outcome]


def _tick_seconds(platform: Platform) -> list[str]:
    """How long the latest ticks of the sensor took."""
    query = """query($selector: SensorSelector!) { sensorOrError(sensorSelector: $selector) { ... on Sensor {
                 sensorState { ticks(limit: 20) { timestamp endTimestamp } } } } }"""
    ticks = platform.ask(query, selector=selector("Sensor", "agents"))["sensorOrError"]["sensorState"]["ticks"]
    seconds = [tick["endTimestamp"] - tick["timestamp"] for tick in ticks if tick["endTimestamp"]]
    return [f"median {statistics.median(seconds):.1f} s, longest {max(seconds):.1f} s"] if seconds else []


SCENARIOS = {each.__name__: each for each in (overhead, waiting, kills, outages, queued)}


def main() -> int:
    """Returns 1 if a month was lost, doubled or stuck."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenarios", nargs="*", choices=[[], *SCENARIOS], metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--months", type=int, help="Months of each backfill.")
    parser.add_argument("--agents", type=lambda text: [int(each) for each in text.split(",")], help="Such as 1,2,4.")
    parser.add_argument("--minutes", type=float, default=15, help="How long `queued` looks.")
    options = parser.parse_args()
    outcomes = [each for name in options.scenarios or SCENARIOS for each in SCENARIOS[name](options)]
    print("\n| what | took | each month | months | |\n|---|---|---|---|---|")
    print("\n".join(outcome.line() for outcome in outcomes))
    return 0 if all(outcome.is_complete for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
