"""The lake as a folder: write to a temporary file, fsync, rename; one lock per dataset and month."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from taxi_platform.lake.base import ANY_VERSION, NEW, Lake, StoredObject
from taxi_platform.lake.checksums import FileSum
from taxi_platform.trips.errors import Conflict, LakeError, TransientError
from taxi_platform.trips.faults import fault_point
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.trips.plan import Change

LOCK_WAIT_SECONDS = 3 * 3600
"""The largest month takes minutes, so a run that holds a lock this long is stuck."""


class LocalLake(Lake):
    """Objects as files under `root`, with temporary files in `root/.tmp` and locks in `root/.locks`."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.url = self.root.as_uri()

    def _path(self, key: str) -> Path:
        if "\0" in key:
            raise self._leads_out(key)
        path = (self.root / key).resolve()
        if self.root not in path.parents and not path.is_relative_to(self.root.resolve()):
            raise self._leads_out(key)
        return path

    def _leads_out(self, key: str) -> LakeError:
        return LakeError(f"The key {key!r} leads out of the lake.", "Keys consist of dataset, month and file name.")

    def stat(self, key: str) -> StoredObject | None:
        if self._listed is not None:
            return self._listed.get(key)
        with self._translated_errors("read", key):
            try:
                status = self._path(key).stat()
            except FileNotFoundError:
                return None
            if stat.S_ISDIR(status.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            return _stored_object(key, status)

    def holds(self, key: str, expected: FileSum) -> bool:
        with self._translated_errors("read", key):
            try:
                found = FileSum.of_path(self._path(key))
                return (found.size, found.sha256) == (expected.size, expected.sha256)
            except FileNotFoundError:
                return False

    def read(self, key: str) -> tuple[bytes, StoredObject] | None:
        with self._translated_errors("read", key):
            # The version is read first: if the file is replaced in between, a later write raises Conflict.
            if (stored := self.stat(key)) is None:
                return None
            return self._path(key).read_bytes(), stored

    def read_end(self, key: str, size: int) -> tuple[bytes, StoredObject] | None:
        with self._translated_errors("read", key):
            try:
                with self._path(key).open("rb") as file:
                    stored = _stored_object(key, os.fstat(file.fileno()))
                    file.seek(max(0, stored.size - size))
                    return file.read(), stored
            except FileNotFoundError:
                return None

    def open(self, key: str) -> BinaryIO:
        with self._translated_errors("read", key):
            return self._path(key).open("rb")

    def write(self, key: str, content: bytes, if_version: str = ANY_VERSION) -> StoredObject:
        with self._translated_errors("write", key):
            temporary = self._temporary(key)
            temporary.write_bytes(content)
            return self._commit(key, temporary, if_version)

    def upload(self, key: str, path: Path, if_version: str = ANY_VERSION) -> StoredObject:
        with self._translated_errors("write", key):
            temporary = self._temporary(key)
            try:
                path.replace(temporary)
            except OSError as error:
                if error.errno != errno.EXDEV:  # the lake is on another file system
                    raise
                shutil.copyfile(path, temporary)
            return self._commit(key, temporary, if_version)

    def delete(self, key: str, if_version: str = ANY_VERSION) -> None:
        with self._translated_errors("delete", key):
            stored = self.stat(key)
            if stored and if_version in (ANY_VERSION, stored.version):
                self._path(key).unlink(missing_ok=True)

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        with self._translated_errors("list", prefix):
            root = self.root.resolve()
            for path in _files(self._path(prefix)):
                with suppress(FileNotFoundError):  # deleted since it was listed
                    yield _stored_object(path.relative_to(root).as_posix(), path.stat())

    def list_in_folders(self, prefix: str, folder: str) -> list[str]:
        names = [name for name in self.names(prefix) if self._path(prefix + name).is_dir()]
        return sorted(key for name in names for key in self.list(f"{prefix}{name}/{folder}/"))

    def list(self, prefix: str) -> list[str]:
        with self._translated_errors("list", prefix):
            return sorted(path.relative_to(self.root.resolve()).as_posix() for path in _files(self._path(prefix)))

    def names(self, prefix: str) -> set[str]:
        with self._translated_errors("list", prefix), suppress(FileNotFoundError):
            return {path.name for path in self._path(prefix).iterdir()}
        return set()

    @contextmanager
    def local_copy(self, key: str, folder: Path) -> Iterator[Path]:
        if self.stat(key) is None:
            raise self.missing(key)
        path = self._path(key)
        try:
            yield path
        except OSError as error:  # of the lake, not of what the caller does meanwhile
            if str(path) not in (error.filename, error.filename2):
                raise
            with self._translated_errors("read", key):
                raise

    def plan(self) -> Iterator[Change]:
        yield Change(f"folder {self.root}", not self.root.is_dir(), self._create_root)

    def _create_root(self) -> None:
        with self._translated_errors("create", ""):
            _make_folders(self.root)

    @contextmanager
    def lock(self, dataset_month: DatasetMonth) -> Iterator[None]:
        """Hold the month's lock, and delete its temporary files: if any exist by then, a killed run left them.

        A thread that holds it may take it again.
        """
        from filelock import Timeout  # 11 ms, which those who only read need not wait for

        from taxi_platform.trips.locks import holder_of, lock_file

        path = self.root / ".locks" / f"{dataset_month.stem}.lock"
        with ExitStack() as stack:
            with self._translated_errors("write", ".locks"):
                _make_folders(path.parent)
                try:
                    is_first = stack.enter_context(lock_file(path, f"{dataset_month}", LOCK_WAIT_SECONDS))
                except Timeout:
                    raise TransientError(
                        f"{dataset_month} has been held for {LOCK_WAIT_SECONDS // 3600} hours by {holder_of(path)}.",
                        "Terminate it if it is stuck.",
                    ) from None
                if is_first:
                    for orphan in (self.root / ".tmp").glob(f"*~{dataset_month.dataset}~*{dataset_month.month}~*"):
                        orphan.unlink(missing_ok=True)
            yield

    def _commit_lock(self, key: str) -> Path:
        """A lock for the objects of one month: a process that is stuck in a commit holds up no other month."""
        parts = key.split("/")
        return self.root / ".locks" / f"commit{'~'.join(['', *parts[1:3]]) if len(parts) > 3 else ''}.lock"

    def _temporary(self, key: str) -> Path:
        path = self.root / ".tmp" / f"{key.replace('/', '~')}.{uuid.uuid4().hex[:8]}"
        _make_folders(path.parent)
        return path

    def _commit(self, key: str, temporary: Path, if_version: str) -> StoredObject:
        """Replace the object with a temporary file, durably, if the object still has the expected version."""
        from filelock import FileLock  # see `lock`

        target = self._path(key)
        try:
            fault_point("temp_written")
            _make_folders(target.parent)
            _sync(temporary)
            fault_point("fsynced")
            (self.root / ".locks").mkdir(exist_ok=True)
            with FileLock(self._commit_lock(key)):
                current = self.stat(key)
                if if_version != ANY_VERSION and if_version != (current.version if current else NEW):
                    raise Conflict(f"{self.uri(key)} was replaced by another run.", "Run the month again.")
                temporary.replace(target)
                fault_point("renamed")
                _sync(target.parent)
                stored = self.stat(key)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if stored is None:
            raise LakeError(
                f"{self.uri(key)} disappeared while it was written.",
                "Check whether another program deletes files there.",
            )
        return stored

    @contextmanager
    def _translated_errors(self, action: str, key: str) -> Iterator[None]:
        """Turn what the operating system raises into the lake's errors."""
        try:
            yield
        except OSError as error:
            setting = "TAXI_LAKE_URL" if os.environ.get("TAXI_LAKE_URL") else "TAXI_HOME"
            remedy = {
                errno.ENOSPC: "The disk is full: free some space and run again.",
                errno.EDQUOT: "The disk quota is used up: free some space and run again.",
                errno.EROFS: f"The file system is read-only: set {setting} to a folder that you can write to.",
                errno.EACCES: f"Let this user read and write it, or set {setting} to a folder that you own.",
                errno.EPERM: f"Let this user read and write it, or set {setting} to a folder that you own.",
                errno.ENOENT: "Materialize again the asset that writes it.",
                errno.ENOTDIR: f"A file is in the place of a folder: move it away, or correct {setting}.",
                errno.EEXIST: f"A file is in the place of a folder: move it away, or correct {setting}.",
                errno.EISDIR: "A folder is in the place of a file: move it away.",
                errno.ENAMETOOLONG: f"Set {setting} to a shorter path.",
                errno.ELOOP: f"A link leads back to itself: remove it, or correct {setting}.",
                errno.EIO: "The disk reports errors: check it, and copy the lake to another one.",
            }.get(error.errno or 0, f"Check the folder that {setting} names.")
            raise LakeError(f"Cannot {action} {self.uri(key)}: {error.strerror or error}.", remedy) from error
        except RuntimeError as error:  # what older versions of Python raise for ELOOP
            if "loop" not in str(error):
                raise
            raise LakeError(f"Cannot {action} {self.uri(key)}: {error}.", "Remove the link.") from error


def _stored_object(key: str, status: os.stat_result) -> StoredObject:
    return StoredObject(key, status.st_size, f"{status.st_mtime_ns}-{status.st_ino}-{status.st_size}")


def _files(folder: Path) -> Iterator[Path]:
    """The files below a folder; raises `OSError` where a folder cannot be read, which `rglob` passes over."""
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry.path))
            elif entry.is_file():
                yield Path(entry.path)


def _make_folders(folder: Path) -> None:
    """Make a folder and those above it that are missing, durably: each is an entry of the one above."""
    if folder.is_dir():
        return
    _make_folders(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync(folder.parent)


def _sync(path: Path) -> None:
    """Force a file's bytes, or a folder's entries, to the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder to sync it
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
