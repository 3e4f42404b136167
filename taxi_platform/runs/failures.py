"""Whether Dagster's history may say of any month that it failed: asked without Dagster, which takes 1.5 s to start."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from taxi_platform.assets.names import FRESHNESS_CHECK
from taxi_platform.runs.home import FILE, text_for
from taxi_platform.trips.machine import this_machine

RUNS = """
SELECT EXISTS (SELECT 1 FROM runs WHERE status IN ('NOT_STARTED', 'STARTING', 'STARTED')) OR EXISTS (
    SELECT 1 FROM runs AS failed WHERE status = 'FAILURE' AND NOT EXISTS (
        SELECT 1 FROM runs AS later WHERE later.status = 'SUCCESS' AND later.id > failed.id
        AND later.pipeline_name = failed.pipeline_name AND later.pipeline_name LIKE '%_ingest'
        AND later.partition = failed.partition))
"""
"""Runs that may have died, and failures after which no run of the same job and month succeeded."""
CHECKS = """
SELECT EXISTS (SELECT 1 FROM (
    SELECT execution_status, max(id) FROM asset_check_executions WHERE execution_status <> 'PLANNED'
    AND check_name <> ? GROUP BY asset_key, check_name, partition
) WHERE execution_status <> 'SUCCEEDED')
"""
"""Checks of a month that did not pass when they were last evaluated; that of the newest month is no month's."""


def may_have_failures(dagster_home: Path) -> bool:
    """False if Dagster's SQLite files show that nothing failed; True also where they do not tell, or cannot be read."""
    try:
        if (dagster_home / FILE).read_bytes() != text_for(this_machine()):
            return True  # the history may be elsewhere
        return _answer(dagster_home / "history/runs.db", RUNS) or _answer(
            dagster_home / "history/runs/index.db", CHECKS, FRESHNESS_CHECK
        )
    except (OSError, sqlite3.Error):
        return True


def _answer(path: Path, query: str, *parameters: str) -> bool:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        [(answer,)] = connection.execute(query, parameters)
        return bool(answer)
