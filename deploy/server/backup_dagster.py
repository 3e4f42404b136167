"""Copy Dagster's home while it is in use: python deploy/server/backup_dagster.py /var/lib/taxi/dagster /backup/dagster.

SQLite files are copied by SQLite's own online backup, so each copy is a state that the file was in; everything else
is copied as it is. The copy appears under its name only once it is complete. To restore it, stop `taxi serve` and put
it in the home's place. Needs only Python.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

SIDE_FILES = ("-wal", "-shm", "-journal", ".lock")
FIRST = ("history/runs.db", "history/runs/index.db")
"""Runs before events: a run may then have more events than its state tells, which the next start settles."""


def copy_home(home: Path, target: Path) -> int:
    """Copy a home; returns the number of databases. Raises `FileExistsError` if the target is there already."""
    if target.exists():
        raise FileExistsError(f"{target} is there already")
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    files = [path for path in home.rglob("*") if path.is_file() and not path.name.endswith(SIDE_FILES)]
    files.sort(key=lambda path: (path.relative_to(home).as_posix() not in FIRST, path))
    databases = 0
    try:
        for path in files:
            copy = partial / path.relative_to(home)
            copy.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".db":
                copy_database(path, copy)
                databases += 1
            else:
                shutil.copy2(path, copy)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return databases


def copy_database(path: Path, copy: Path) -> None:
    uri = f"{path.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=60)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
        (answer,) = target.execute("PRAGMA quick_check(1)").fetchone()
    if answer != "ok":
        raise sqlite3.DatabaseError(f"{path} is damaged: {answer}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} DAGSTER_HOME TARGET")
    try:
        number = copy_home(Path(sys.argv[1]), Path(sys.argv[2]))
    except (OSError, sqlite3.Error) as error:
        sys.exit(f"The backup failed and nothing was kept: {error}")
    sys.stdout.write(f"{number} databases copied to {sys.argv[2]}\n")
