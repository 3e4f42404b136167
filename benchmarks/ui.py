"""Measure the UI with every month of every dataset materialized: `python -m benchmarks.ui [--since 2009-01]`.

Two homes with the same graph stand side by side, one with every month in it, each from a run of its own, and one
without any. Chromium opens the same pages of both in turn; then the queries that a page sent are sent to both in
turn. Prints the medians and their ratios. `--home FOLDER` is the full home; it is made if absent.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from benchmarks.measure import timed_command
from taxi_platform_tests.support.system import TAXI, chromium
from taxi_platform_tests.support.taxi_dev import Platform, taxi_dev

SOURCE = "sample://?rows=200"
ASSET, GROUP = "/assets/yellow/trips?view=", "/locations/taxi_platform/asset-groups/yellow/lineage"
PAGES = {
    "asset page": f"{ASSET}overview",
    "events": f"{ASSET}events",
    "partitions": f"{ASSET}partitions",
    "plots": f"{ASSET}plots",
    "checks": f"{ASSET}checks",
    "lineage of an asset": f"{ASSET}lineage",
    "graph of a group": GROUP,
    "graph of all assets": "/asset-groups",
}
QUIET_SECONDS = 1.5
"""A page is loaded when it has asked nothing new for so long: it polls, so it never stops asking."""
LOAD_LIMIT = 60.0

Body = str
"""A GraphQL request as the UI sent it."""


@dataclass
class Loads:
    """What one page did on one server: seconds of each load, and the queries of the last."""

    seconds: list[float] = field(default_factory=list)
    queries: dict[str, Body] = field(default_factory=dict)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--since", default="2009-01", help="the first month that is materialized")
    parser.add_argument("--loads", type=int, default=5, help="how often each page is opened on each server")
    parser.add_argument("--repeats", type=int, default=15, help="how often each query is sent to each server")
    parser.add_argument("--home", type=Path, help="the full home (default: a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ui-") as folder:
        home = options.home or Path(folder) / "full"
        if not home.exists():
            fill(home, options.since)
        with (
            taxi_dev(home, TAXI_SOURCE_URL=SOURCE) as full,
            taxi_dev(Path(folder) / "empty", TAXI_SOURCE_URL=SOURCE) as empty,
        ):
            for name, platform in {"full": full, "empty": empty}.items():
                print(f"{name}: yellow/trips has {len(platform.materialized('yellow/trips'))} months")
            measure({"full": full, "empty": empty}, options.loads, options.repeats)


def fill(home: Path, since: str) -> None:
    """Load every month since then from tiny synthetic files, with the command, two at a time."""
    settings = {"TAXI_HOME": str(home), "TAXI_SOURCE_URL": SOURCE, "TAXI_SINCE": since}
    timing = timed_command([str(TAXI), "ingest", "--jobs", "2"], **settings)
    print(f"The full home is ready after {timing.wall:.0f} s.", flush=True)


def measure(servers: Mapping[str, Platform], loads: int, repeats: int) -> None:
    """Print a line for each page: browser and GraphQL, full and empty, and the query that differs most."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1500, "height": 950})
        pages: dict[str, dict[str, Loads]] = {name: {server: Loads() for server in servers} for name in PAGES}
        for _ in range(loads + 1):
            for name, path in PAGES.items():
                for server, platform in servers.items():
                    seconds, queries = load(page, platform.url + path)
                    pages[name][server].seconds.append(seconds)
                    pages[name][server].queries = queries
    for name, by_server in pages.items():
        # The first load fetches the UI itself, which the browser then has in its cache.
        full, empty = (statistics.median(by_server[server].seconds[1:]) for server in ("full", "empty"))
        print(f"{name}: browser {full:.2f} s, empty {empty:.2f} s, ratio {full / empty:.2f}", flush=True)
        answers = {
            operation: answer_times(servers, body, repeats) for operation, body in by_server["full"].queries.items()
        }
        total_full, total_empty = (sum(times[index] for times in answers.values()) for index in (0, 1))
        print(
            f"    GraphQL {1000 * total_full:.0f} ms, empty {1000 * total_empty:.0f} ms in {len(answers)} queries, "
            f"ratio {total_full / total_empty:.2f}"
        )
        for operation, (slow, fast) in sorted(answers.items(), key=lambda item: item[1][1] - item[1][0])[:4]:
            print(f"    {operation}: {1000 * slow:.0f} ms, empty {1000 * fast:.0f} ms")


def load(page: Any, url: str) -> tuple[float, dict[str, Body]]:
    """Open a page; returns the seconds until its last query was answered, and each operation's first query."""
    queries: dict[str, Body] = {}
    asked, pending, latest = set(), set(), [time.monotonic()]

    def began(request: Any) -> None:
        if (request.method == "POST" and request.url.endswith("graphql")) or "/graphql?" in request.url:
            operation = request.url.partition("?op=")[2] or str((request.post_data_json or {}).get("operationName"))
            queries.setdefault(operation, request.post_data)
            if request.post_data not in asked:
                asked.add(request.post_data)
                pending.add(request)

    def ended(request: Any) -> None:
        if request in pending:
            pending.discard(request)
            latest[0] = time.monotonic()

    page.on("request", began)
    page.on("requestfinished", ended)
    page.on("requestfailed", ended)
    started = time.monotonic()
    page.goto(url)
    while time.monotonic() - started < LOAD_LIMIT and (
        not asked or pending or time.monotonic() - latest[0] < QUIET_SECONDS
    ):
        page.wait_for_timeout(50)
    for event, listener in (("request", began), ("requestfinished", ended), ("requestfailed", ended)):
        page.remove_listener(event, listener)
    return latest[0] - started, queries


def answer_times(servers: Mapping[str, Platform], body: Body, repeats: int) -> Sequence[float]:
    """The median seconds of an answer, in the order of the servers, which are asked in turn."""
    times: dict[str, list[float]] = {name: [] for name in servers}
    with requests.Session() as session:
        for _ in range(repeats):
            for name, platform in servers.items():
                asked = time.perf_counter()
                answer = session.post(f"{platform.url}/graphql", body, headers={"Content-Type": "application/json"})
                times[name].append(time.perf_counter() - asked)
                if not answer.ok or "errors" in answer.json():
                    sys.exit(f"{body[:300]} failed: {answer.text[:1000]}")
    return [statistics.median(each) for each in times.values()]


if __name__ == "__main__":
    main()
