"""Dagster's SQLite files: locked ones are waited for, and damaged ones are named."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import event
from sqlalchemy.engine import Engine

BUSY_SECONDS = 120
"""How long to wait for a locked file. Dagster waits for 5 s (runs, schedules) or 30 s (events): less than a backup or a
slow disk may take."""

FILES = ("history/runs.db", "history/runs/index.db", "schedules/schedules.db")
"""What Dagster cannot start without, in its home."""


def wait_for_locked_files() -> None:
    """Have every connection of this process wait for a locked file. Called once in each process that uses Dagster."""
    if not event.contains(Engine, "connect", _set_busy_timeout):
        event.listen(Engine, "connect", _set_busy_timeout)


def _set_busy_timeout(connection: object, record: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}").close()


def damaged_file(dagster_home: Path) -> tuple[Path, str] | None:
    """The first damaged file of Dagster's home and what SQLite says about it; None if all can be read."""
    for path in (dagster_home / name for name in FILES):
        if not path.exists():
            continue
        try:
            with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
                (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                continue  # locked, or no permission: not damage
            answer = str(error)
        if answer != "ok":
            return path, answer.splitlines()[-1]
    return None
