"""What every lake can do: hold objects under keys with `/`, replace one only where it is still the expected version."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from taxi_platform.trips.errors import LakeError
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.trips.plan import Change

ANY_VERSION = "*"
"""As `if_version`: write whatever is there."""

NEW = ""
"""As `if_version`: write only if nothing is there."""


@dataclass(frozen=True)
class StoredObject:
    """An object as it is now: its size in bytes and a version that changes with every write."""

    key: str
    size: int
    version: str


class Lake(ABC):
    """Objects under keys. Raises `LakeError` when it cannot, `Conflict` when `if_version` no longer holds.

    A write is seen whole or not at all, and survives a crash once it returned.
    """

    url: str

    def uri(self, key: str) -> str:
        """Where a person or another program finds the object."""
        return f"{self.url.rstrip('/')}/{key}"

    def missing(self, key: str) -> LakeError:
        """What to say of an object that should be there."""
        asset = "raw_file" if key.startswith("raw/") else "clean_trips"
        return LakeError(f"{self.uri(key)} is missing.", f"Materialize the month's {asset} again.")

    @abstractmethod
    def stat(self, key: str) -> StoredObject | None: ...

    @abstractmethod
    def read(self, key: str) -> tuple[bytes, StoredObject] | None:
        """A small object whole, with the version that was read."""

    @abstractmethod
    def open(self, key: str) -> BinaryIO:
        """The object as a seekable stream; raises `LakeError` where there is none."""

    @abstractmethod
    def write(self, key: str, data: bytes, if_version: str = ANY_VERSION) -> StoredObject: ...

    @abstractmethod
    def upload(self, key: str, path: Path, if_version: str = ANY_VERSION) -> StoredObject:
        """Store a local file; the lake may take the file itself, so the caller must not use it afterwards."""

    @abstractmethod
    def delete(self, key: str, if_version: str = ANY_VERSION) -> None:
        """Remove the object; nothing happens where there is none, or none of that version."""

    @abstractmethod
    def list(self, prefix: str) -> list[str]:
        """The keys under a prefix that ends in `/`, sorted."""

    @abstractmethod
    def local_copy(self, key: str, folder: Path) -> AbstractContextManager[Path]:
        """The object as a local file to read: itself where it is one, else a copy in `folder`."""

    @abstractmethod
    def plan(self) -> Iterator[Change]:
        """What has to be made before the lake can hold anything."""

    def check_access(self) -> None:
        """Write, read and remove a small object; raises `LakeError` naming what is missing."""
        key = f".check/{uuid.uuid4().hex}"
        self.write(key, b"taxi_platform")
        found = self.read(key)
        self.delete(key)
        if found is None or found[0] != b"taxi_platform":
            raise LakeError(
                f"{self.url} does not give back what was written.", "Check what stands behind that address."
            )

    @contextmanager
    def lock(self, dataset_month: DatasetMonth) -> Iterator[None]:
        """Be the only writer of a month, where the lake has locks; elsewhere versions decide."""
        yield
