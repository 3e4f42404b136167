"""`make agents-demo`: a year of green on two agents, one of which is killed on the way; then everything is stopped.

Broker, storage, agents, daemon and UI run on loopback, in a folder of their own that is removed at the end.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

from taxi_platform.marts.tables import mart_names
from taxi_platform.trips.months import Dataset
from taxi_platform_tests.support.agents import Cluster, running_cluster, runs_by_month
from taxi_platform_tests.support.taxi_dev import ASSETS, Platform, taxi_dev

LOST_SECONDS = 20
"""Instead of a minute, so that the demo is short."""
DONE = ("COMPLETED_SUCCESS", "COMPLETED_FAILED", "CANCELED", "FAILED")


def main() -> int:
    """Returns 0 if every month was loaded once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--months", type=int, default=12)
    months = [f"2020-{month:02d}" for month in range(1, parser.parse_args().months + 1)]
    if not (shutil.which("redis-server") or shutil.which("valkey-server")):
        print("The demo needs redis-server. Install it: apt-get install redis-server", file=sys.stderr)
        return 2
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with tempfile.TemporaryDirectory(prefix="taxi-agents-") as folder:
        settings = {"TAXI_SOURCE_URL": "sample://?rows=500", "TAXI_DATASETS": "green"}
        with running_cluster(Path(folder) / "cluster", LOST_SECONDS, **settings) as cluster:
            say(f"Redis at {cluster.redis.url}, PostgreSQL on port {cluster.postgres.parameters['port']}")
            for agent in [cluster.start_agent(slots=1) for _ in range(2)]:
                agent.wait_until_ready()
                say(f"agent {agent.name} serves the queue default")
            with taxi_dev(cluster.home, **cluster.settings) as platform:
                say(f"the UI is at {platform.url}")
                succeeded = _backfill(cluster, platform, months)
    left = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    say("stopped everything that was started" if not left else f"left running: {left}")
    return 0 if succeeded and not left else 1


def _backfill(cluster: Cluster, platform: Platform, months: list[str]) -> bool:
    assets = [*ASSETS, *mart_names(Dataset.GREEN)]
    backfill, started = platform.launch_backfill("green", months, assets), time.monotonic()
    say(f"backfill of green {months[0]} to {months[-1]}")
    victim, shown = cluster.agents[0], -1
    while (status := platform.backfill_status(backfill)) not in DONE:
        loaded = len(platform.materialized("green/trips"))
        if loaded != shown:
            say(f"{loaded} of {len(months)} months are loaded")
            shown = loaded
        if loaded >= len(months) // 4 and victim.process.poll() is None and cluster.running_on(victim):
            victim.crash()
            say(f"killed the agent {victim.name} and the month it worked on; it never comes back")
        time.sleep(1)
    runs = runs_by_month(platform, backfill)
    ends = {month: [run["status"] for run in runs.get(month, [])] for month in months}
    good = sum(statuses.count("SUCCESS") == 1 and statuses[-1] == "SUCCESS" for statuses in ends.values())
    again = {month: statuses for month, statuses in ends.items() if len(statuses) > 1}
    say(f"the backfill ended as {status} after {time.monotonic() - started:.0f} s")
    say(f"runs: {dict(Counter(status for statuses in ends.values() for status in statuses))}; run again: {again}")
    done = cluster.taxi("status")
    stored = cluster.taxi("audit", "green")
    print(done.stdout, stored.stdout[-400:], sep="\n")
    say(f"{good} of {len(months)} months ended loaded exactly once")
    if good == len(months) and stored.returncode == 0:
        say("nothing was lost")
    return good == len(months) and stored.returncode == 0


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
