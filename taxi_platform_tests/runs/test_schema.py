"""Dagster's tables of an earlier or a later Dagster: used as they are, named by the doctor, migrated by one command."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from dagster._core.storage.sql import get_alembic_config, run_alembic_downgrade

from taxi_platform.definitions import build_definitions
from taxi_platform.doctor import examine
from taxi_platform.runs.ingest import ingest_month
from taxi_platform.runs.instance import open_instance
from taxi_platform.runs.sqlite import FILES
from taxi_platform.settings import load_settings
from taxi_platform.trips.months import DatasetMonth, Month

EARLIER = "284a732df317"
"""Before backfills had a column of their own in the table of runs (Dagster 1.9)."""
LATER = "99b539ebc72a"
GREEN, NEXT = DatasetMonth.parse("green", "2020-04"), DatasetMonth.parse("green", "2020-05")


@pytest.fixture
def settings(monkeypatch):
    monkeypatch.setenv("TAXI_DATASETS", "green")
    monkeypatch.setenv("TAXI_SOURCE_URL", "sample://?rows=200")
    return load_settings()


def ingest(settings, month):
    with open_instance(settings) as instance:
        outcome = ingest_month(instance, build_definitions(settings), month)
        assert outcome.succeeded, outcome.problem
        return instance.get_runs_count()


def history(settings):
    """What the doctor says about Dagster's database."""
    return next(finding for finding in examine(settings, Month(2020, 4)) if finding.name == "history")


def downgrade(settings):
    """Give the three databases the tables that an earlier Dagster made."""
    import dagster._core.storage.runs.sqlite.sqlite_run_storage as module

    config = get_alembic_config(module.__file__)
    with open_instance(settings) as instance:
        storages = instance.run_storage.connect, instance.schedule_storage.connect
        for connect in (*storages, instance.event_log_storage.index_connection):
            with connect() as connection:
                run_alembic_downgrade(config, connection, EARLIER, "index")


@pytest.mark.fault(131)
def test_tables_of_an_earlier_dagster_work_are_named_and_are_migrated_with_their_history(settings):
    ingest(settings, GREEN)
    assert history(settings).message == "Dagster's tables are those of the installed version; runs in its history: 1"
    downgrade(settings)
    assert ingest(settings, NEXT) == 2
    found = history(settings)
    assert not found.ok
    assert f"an earlier Dagster (revision {EARLIER}). Stop everything, make a backup, and run dagster" in found.message
    command = [Path(sys.executable).with_name("dagster"), "instance", "migrate"]
    environment = {**os.environ, "DAGSTER_HOME": str(settings.dagster_home)}
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)
    assert history(settings).message == "Dagster's tables are those of the installed version; runs in its history: 2"


@pytest.mark.fault(131)
def test_tables_of_a_later_dagster_are_used_as_they_are(settings):
    with open_instance(settings):
        pass
    for name in FILES:
        with closing(sqlite3.connect(settings.dagster_home / name)) as con:
            con.execute("UPDATE alembic_version SET version_num = ?", [LATER])
            con.commit()
    assert ingest(settings, GREEN) == 1
    found = history(settings)
    assert (found.ok, found.message) == (
        True,
        f"Dagster's tables are those of a later version (revision {LATER}), which it reads; runs in its history: 1",
    )
