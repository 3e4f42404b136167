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
from taxi_platform.trips.os_errors import remedy


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
        if not _is_about(root, error):  # what the caller reads or writes elsewhere says so itself
            raise
        raise LakeError(
            f"Cannot work in {root}: {error.strerror or error}.", remedy(error.errno, "TAXI_HOME")
        ) from error


def _is_about(root: Path, error: OSError) -> bool:
    """Whether the error is about a path in or above the folder; reading or writing an open file names none."""
    if not isinstance(error.filename, str):
        return True
    path = Path(error.filename)
    return path.is_relative_to(root) or root.is_relative_to(path)


def _delete_abandoned(root: Path) -> None:
    """Delete what killed processes left. A lock is taken before its folder is made: a free one means a dead owner."""
    for lock_file in root.glob("*.lock"):
        with suppress(Timeout, OSError), FileLock(lock_file, timeout=0):
            shutil.rmtree(lock_file.with_suffix(""), ignore_errors=True)
            lock_file.unlink(missing_ok=True)
