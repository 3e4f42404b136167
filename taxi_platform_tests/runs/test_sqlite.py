"""Dagster's SQLite files: locked for longer than Dagster waits, and damaged."""

import sqlite3
import subprocess
import threading
from contextlib import closing

import pytest
import sqlalchemy

from taxi_platform.runs.instance import open_instance
from taxi_platform.runs.sqlite import BUSY_SECONDS, FILES, wait_for_locked_files
from taxi_platform.settings import load_settings
from taxi_platform_tests.support.system import TAXI


@pytest.fixture
def dagster_home():
    settings = load_settings()
    with open_instance(settings):
        pass
    return settings.dagster_home


@pytest.mark.slow
@pytest.mark.fault(81)
def test_a_locked_database_of_runs_is_waited_for_beyond_dagsters_five_seconds(dagster_home):
    with (
        closing(sqlite3.connect(dagster_home / FILES[0], check_same_thread=False, isolation_level=None)) as other,
        open_instance(load_settings()) as instance,
    ):
        other.execute("BEGIN IMMEDIATE")
        release = threading.Timer(8, lambda: other.execute("ROLLBACK"))
        release.start()
        instance.run_storage.set_cursor_values({"taxi": "1"})
        assert not release.is_alive()
        release.join()


def test_every_connection_waits_for_two_minutes():
    wait_for_locked_files()
    with sqlalchemy.create_engine("sqlite://", connect_args={"timeout": 5}).connect() as connection:
        assert connection.execute(sqlalchemy.text("PRAGMA busy_timeout")).scalar() == BUSY_SECONDS * 1000


@pytest.mark.fault(81)
@pytest.mark.parametrize("command", [["ingest", "green", "2020-04"], ["status"], ["dev", "--port", "31999"]])
def test_a_damaged_database_is_named_with_how_to_go_on(dagster_home, command):
    path = dagster_home / FILES[0]
    for log in path.parent.glob("runs.db-*"):
        log.unlink()
    path.write_bytes(b"This is not a database. " * 200)
    done = subprocess.run([TAXI, *command], capture_output=True, text=True, check=False)
    message = " ".join(done.stderr.split())
    assert done.returncode == 1
    assert f"Dagster's database {path} is damaged: file is not a database." in message
    assert f"move {path.parent} away, and run again" in message
    assert "The months in lake and warehouse stay" in message
    assert "Traceback" not in message
    path.parent.rename(path.parent.with_name("history.away"))
    with open_instance(load_settings()) as instance:
        assert instance.get_runs() == []


@pytest.mark.fault(81)
@pytest.mark.parametrize("name", FILES)
def test_a_page_that_was_overwritten_is_found(dagster_home, name):
    path = dagster_home / name
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode = DELETE")
    content = bytearray(path.read_bytes())
    content[4096:] = b"\x05" * (len(content) - 4096)
    path.write_bytes(content)
    from taxi_platform.runs.sqlite import damaged_file

    damaged = damaged_file(dagster_home)
    assert damaged
    assert damaged[0] == path
