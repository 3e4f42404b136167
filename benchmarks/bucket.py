"""A lake in a bucket (the storage emulator): requests of a month, and `taxi status` where each request takes 50 ms."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.commands import TINY_SOURCE, status_row
from benchmarks.measure import TAXI, timed_command
from benchmarks.months import Months, Options
from benchmarks.report import Row
from taxi_platform.trips.months import Month
from taxi_platform_tests.support.emulators.fault_proxy import FaultProxy, fault_proxy
from taxi_platform_tests.support.emulators.gcs import gcs_emulator

REQUESTS_BEFORE = {"new": 90, "unchanged": 81}
"""What a month took before requests were saved; the goal is half of it."""
DELAY_SECONDS = 0.05
STATUS_GOAL_SECONDS = 5.0


def measure(months: Months, options: Options) -> list[Row]:
    """The rows of a bucket."""
    import requests

    with gcs_emulator(months.folder / "storage") as url, fault_proxy(url) as proxy:
        requests.post(f"{url}/storage/v1/b?project=bench", json={"name": "lake"}, timeout=30).raise_for_status()
        home = months.folder / "home"
        environment = {"TAXI_LAKE_URL": "gs://lake/some/prefix", "STORAGE_EMULATOR_HOST": proxy.url}
        last = Month.parse("2024-12")
        _ingest(home, last.plus(-options.months), last.plus(-options.months), environment)
        rows = []
        for what in ("new", "unchanged"):
            proxy.log.clear()
            assert _ingest(home, last, last, environment) == ["loaded" if what == "new" else "unchanged"]
            before = REQUESTS_BEFORE[what]
            note = f"{_by_method(proxy)}; {before} before"
            rows.append(Row(f"requests to the bucket, {what} month", len(proxy.log), "requests", before / 2, note=note))
        if options.months > 1:
            _ingest(home, last.plus(1 - options.months), last.plus(-1), environment, "--jobs", "2")
        proxy.delay = DELAY_SECONDS
        proxy.log.clear()
        what = f"taxi status, {options.months} months in a bucket, each request takes {1000 * DELAY_SECONDS:.0f} ms"
        return [*rows, status_row(home, min(options.pairs, 3), what, STATUS_GOAL_SECONDS, **environment)]


def _ingest(home: Path, first: Month, last: Month, environment: dict[str, str], *options: str) -> list[str]:
    """Ingest yellow months; returns what came of each."""
    settings = {"TAXI_HOME": str(home), "TAXI_SOURCE_URL": TINY_SOURCE, "TAXI_SET_ASIDE": "no", **environment}
    done = timed_command([TAXI, "ingest", "yellow", str(first), str(last), *options, "--json"], **settings)
    return [result["status"] for result in json.loads(done.output)]


def _by_method(proxy: FaultProxy) -> str:
    """How many requests of each kind: listing objects, reading metadata or media, writing, deleting."""
    kinds: Counter[str] = Counter()
    for asked, _ in proxy.log:
        path = urlsplit(asked.path).path
        if asked.method == "GET":
            kind = "download" if "download" in path or "alt=media" in asked.path else "look up"
            kinds["list" if path.endswith("/o") else kind] += 1
        else:
            kinds[{"POST": "write", "PUT": "write", "PATCH": "change", "DELETE": "delete"}[asked.method]] += 1
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
