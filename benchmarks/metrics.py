"""Measure what monitoring costs, in processor time: `python -m benchmarks.metrics [--home FOLDER] [--scrapes 50]`.

On a home with every month of every dataset, made if absent by `benchmarks.ui`. Prints milliseconds of one scrape of
`/metrics`, with what it waits for read again each time and from what is kept, and of each reading in the background.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.ui import fill
from taxi_platform.runs.instance import open_instance
from taxi_platform.settings import load_settings
from taxi_platform.ui.health import Health
from taxi_platform.ui.metrics import Metrics

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--since", default="2009-01", help="the first month that is loaded, if the home is made")
    parser.add_argument("--home", type=Path, help="the home (default: a temporary one)")
    parser.add_argument("--scrapes", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="metrics-") as folder:
        home = options.home or Path(folder) / "home"
        if not home.exists():
            fill(home, options.since)
        os.environ |= {"TAXI_HOME": str(home), "TAXI_SINCE": options.since}
        settings = load_settings()
        with open_instance(settings) as instance:
            measure(Metrics(settings, instance), options.scrapes)


def measure(metrics: Metrics, scrapes: int) -> None:
    for known in metrics.background:
        first, again = (milliseconds(known.read_now) for _ in range(2))
        print(f"{known.name}, in the background: {first:.0f} ms, again {again:.0f} ms of processor time")

    def scrape() -> bytes:
        asyncio.run(metrics.refresh())
        return metrics.exposition(Health({}), OPENMETRICS)[0]

    def scrape_anew() -> None:
        for known in metrics.awaited:
            known.read_now()
        scrape()

    lines = scrape().decode().splitlines()
    months = sum(float(line.split()[-1]) for line in lines if line.startswith("taxi_months{") and "loaded" in line)
    print(f"{months:.0f} months are loaded; {sum(not line.startswith('#') for line in lines)} series")
    for name, function in {"everything kept": scrape, "queue, heartbeats and disk read again": scrape_anew}.items():
        times = [milliseconds(function) for _ in range(scrapes)]
        print(f"a scrape, {name}: median {statistics.median(times):.1f} ms, at most {max(times):.1f} ms")


def milliseconds(function: Callable[[], object]) -> float:
    """Processor time of this process, all threads, user and system."""
    began = time.process_time()
    function()
    return 1000 * (time.process_time() - began)


if __name__ == "__main__":
    main()
