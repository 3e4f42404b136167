"""What every lake can do: hold objects under keys with `/`, and replace one only if it has the expected version."""

from __future__ import annotations

import copy
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from taxi_platform.lake.checksums import FileSum
from taxi_platform.trips.errors import LakeError
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.trips.plan import Change

ANY_VERSION = "*"
"""As `if_version`: write, whether or not the object exists."""

NEW = ""
"""As `if_version`: write only if the object does not exist."""


@dataclass(frozen=True)
class StoredObject:
    """An object as it is now: its size in bytes, and a version that changes with every write."""

    key: str
    size: int
    version: str


class Lake(ABC):
    """Objects under keys. Methods raise `LakeError` if they fail, `Conflict` if `if_version` no longer holds.

    Readers see a write completely or not at all, and once it has returned it survives a crash.
    """

    url: str
    _listed: Mapping[str, StoredObject] | None = None

    def listed(self, prefixes: Sequence[str]) -> Lake:
        """The same lake for a look at many months: `stat` answers from one listing of these prefixes, made now.

        What is found damaged this way may have been replaced since: look at it again without.
        """
        lake = copy.copy(self)
        lake._listed = {stored.key: stored for prefix in prefixes for stored in self.objects(prefix)}
        return lake

    def unlisted(self) -> Lake:
        """The same lake, asked anew each time."""
        lake = copy.copy(self)
        lake._listed = None
        return lake

    def uri(self, key: str) -> str:
        """The object's URL, for people and for other programs."""
        return f"{self.url.rstrip('/')}/{key}"

    def missing(self, key: str) -> LakeError:
        """The error for an object that should exist and does not."""
        asset = {"raw": "raw_file", "marts": "marts"}.get(key.partition("/")[0], "clean_trips")
        return LakeError(f"{self.uri(key)} is missing.", f"Materialize the month's {asset} again.")

    @abstractmethod
    def stat(self, key: str) -> StoredObject | None:
        """The object's size and version; None if there is none."""

    @abstractmethod
    def read(self, key: str) -> tuple[bytes, StoredObject] | None:
        """A small object's bytes, with the version that was read; None if there is none."""

    @abstractmethod
    def read_end(self, key: str, size: int) -> tuple[bytes, StoredObject] | None:
        """The last `size` bytes of an object, or all if it has fewer, with its version; None if there is none."""

    @abstractmethod
    def holds(self, key: str, expected: FileSum) -> bool:
        """Whether the object is what was stored; False if there is none.

        A folder's file is read whole. Of a bucket's object size and CRC32C are compared, as far as they are known.
        """

    @abstractmethod
    def open(self, key: str) -> BinaryIO:
        """The object as a seekable stream; raises `LakeError` if there is none."""

    @abstractmethod
    def write(self, key: str, content: bytes, if_version: str = ANY_VERSION) -> StoredObject:
        """Store a small object."""

    @abstractmethod
    def upload(self, key: str, path: Path, if_version: str = ANY_VERSION) -> StoredObject:
        """Store a local file. The lake may move the file, so the caller must not use it afterwards."""

    @abstractmethod
    def delete(self, key: str, if_version: str = ANY_VERSION) -> None:
        """Delete the object, if it exists and has that version."""

    @abstractmethod
    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """The objects under a prefix ending in `/`, as `stat` gives them, in any order."""

    @abstractmethod
    def list_in_folders(self, prefix: str, folder: str) -> list[str]:
        """The keys `{prefix}*/{folder}/…`, sorted, of a prefix ending in `/` and a name without `*`; in one request."""

    @abstractmethod
    def list(self, prefix: str) -> list[str]:
        """The keys that begin with a prefix ending in `/`, sorted."""

    @abstractmethod
    def names(self, prefix: str) -> set[str]:
        """The names of the folders and objects directly under a prefix ending in `/`."""

    @abstractmethod
    def local_copy(self, key: str, folder: Path) -> AbstractContextManager[Path]:
        """The object as a local file to read: the stored file itself, or a temporary copy in `folder`."""

    @abstractmethod
    def plan(self) -> Iterator[Change]:
        """What has to be created before the lake can hold anything."""

    def check_access(self) -> None:
        """Write, read and delete a small object; raises `LakeError` naming the permission that is missing."""
        key = f".check/{uuid.uuid4().hex}"
        self.write(key, b"taxi_platform")
        stored = self.read(key)
        self.delete(key)
        if stored is None or stored[0] != b"taxi_platform":
            raise LakeError(f"{self.url} does not return what was written to it.", "Check what serves that URL.")

    @contextmanager
    def lock(self, dataset_month: DatasetMonth) -> Iterator[None]:
        """Be the only writer of a month. A lake without locks relies on `if_version` instead."""
        yield
