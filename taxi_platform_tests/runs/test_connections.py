"""Connections to Dagster's SQLite files, kept open while runs are executed: the files stay the same."""

import errno
import os
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest

from taxi_platform.runs.connections import FILES_HELD, _Engines, held_connections
from taxi_platform.runs.dagster_internals import sqlite_modules
from taxi_platform.runs.instance import open_instance
from taxi_platform.settings import load_settings


def tables(path):
    with closing(sqlite3.connect(path)) as connection:
        schema = sorted(connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall())
        revision = connection.execute("SELECT version_num FROM alembic_version").fetchall()
        return schema, revision, connection.execute("PRAGMA journal_mode").fetchall()


def shard_of_a_run(instance, run_id):
    with instance.event_log_storage.run_connection(run_id):
        return Path(instance.event_log_storage.path_for_shard(run_id))


def test_a_runs_file_is_the_one_that_dagster_makes():
    run_id = str(uuid.uuid4())
    with open_instance(load_settings()) as instance:
        copied = shard_of_a_run(instance, run_id)
    with dg.DagsterInstance.get() as instance:
        made = shard_of_a_run(instance, str(uuid.uuid4()))
    assert tables(copied) == tables(made)
    assert tables(copied)[2] == [("wal",)]
    assert not list(copied.parent.glob(f".{copied.name}*"))


@pytest.mark.fault(139)
def test_a_run_begins_while_somebody_opens_its_file_to_look_at_it(monkeypatch):
    link = os.link

    def link_later(source, path):
        with closing(sqlite3.connect(path)) as looking:
            looking.execute("SELECT * FROM sqlite_master").fetchall()  # makes a file, without tables
        link(source, path)

    monkeypatch.setattr(os, "link", link_later)
    with open_instance(load_settings()) as instance:
        for run_id in map(str, range(3)):
            instance.report_engine_event("begins", run_id=run_id, job_name="green_ingest")
            assert [entry.message for entry in instance.all_logs(run_id)] == ["begins"]


@pytest.mark.fault(144)
def test_runs_begin_on_a_file_system_without_hard_links(monkeypatch):
    def link(source, path):  # as exFAT answers
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), source, None, path)

    monkeypatch.setattr(os, "link", link)
    with open_instance(load_settings()) as instance:
        instance.report_engine_event("begins", run_id="run", job_name="green_ingest")
        assert [entry.message for entry in instance.all_logs("run")] == ["begins"]


def test_events_are_in_the_files_when_the_instance_is_closed_and_no_log_is_left():
    with open_instance(load_settings()) as instance:
        for number in range(2 * FILES_HELD):
            instance.report_runless_asset_event(dg.AssetMaterialization("months", metadata={"number": number}))
            shard_of_a_run(instance, f"run{number}")
        folder = Path(instance.event_log_storage.path_for_shard("index")).parent
    assert list(folder.glob("*-wal")) == []
    with dg.DagsterInstance.get() as instance:
        records = instance.fetch_materializations(dg.AssetKey("months"), limit=100).records
        assert [record.asset_materialization.metadata["number"].value for record in records] == [*range(11, -1, -1)]


def test_one_connection_a_file_is_used_again_and_only_the_latest_files_are_held(tmp_path):
    engines = _Engines()
    made = [engines.engine(f"sqlite:///{tmp_path}/{number}.db") for number in range(FILES_HELD + 2)]
    with made[0].connect() as first:
        before = first.connection.dbapi_connection
    with made[-1].connect() as connection:
        held = connection.connection.dbapi_connection
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1  # NORMAL
    made[-1].dispose()  # as Dagster does after each query
    with engines.engine(f"sqlite:///{tmp_path}/{FILES_HELD + 1}.db").connect() as connection:
        assert connection.connection.dbapi_connection is held
    assert engines.engine(f"sqlite:///{tmp_path}/0.db") is not made[0]
    engines.close()
    assert before is not held


def test_dagsters_own_way_is_back_afterwards():
    before = [module.create_engine for module in sqlite_modules()]
    with held_connections():
        assert [module.create_engine for module in sqlite_modules()] != before
    assert [module.create_engine for module in sqlite_modules()] == before
