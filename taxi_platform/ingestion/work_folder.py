"""Folders for work in progress under `TAXI_HOME`, deleted when the work ends; after a kill, by the next run."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from taxi_platform.trips.errors import LakeError
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.trips.os_errors import REMEDIES, remedy


@contextmanager
def work_folder(home: Path, dataset_month: DatasetMonth) -> Iterator[Path]:
    """An empty folder under `home/tmp`, deleted at the end. Folders whose process was killed are deleted first.

    Raises `LakeError` if the folder cannot be written.
    """
    root = home / "tmp"
    name = f"{dataset_month.stem}-{uuid.uuid4().hex[:8]}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        _delete_abandoned(root)
        with FileLock(root / f"{name}.lock"):
            (root / name).mkdir()
            try:
                yield root / name
            finally:
                shutil.rmtree(root / name, ignore_errors=True)
                (root / f"{name}.lock").unlink(missing_ok=True)
    except OSError as error:
        if error.errno not in REMEDIES:
            raise
        name = str(error.filename or root)
        is_elsewhere = not name.startswith(str(root)) and not str(root).startswith(name)
        problem = f"Cannot use {name}" if is_elsewhere else f"Cannot work in {root}"
        setting = "the setting of its place" if is_elsewhere else "TAXI_HOME"
        raise LakeError(f"{problem}: {error.strerror}.", remedy(error.errno, setting)) from error


def _delete_abandoned(root: Path) -> None:
    """Delete what killed processes left. A lock is taken before its folder is made: a free one means a dead owner."""
    for lock_file in root.glob("*.lock"):
        with suppress(Timeout, OSError), FileLock(lock_file, timeout=0):
            shutil.rmtree(lock_file.with_suffix(""), ignore_errors=True)
            lock_file.unlink(missing_ok=True)
