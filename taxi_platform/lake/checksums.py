"""What the files of a clean month are, byte by byte: stored beside them, and compared before they are used.

The clean file's footer cannot hold the clean file's own sha256, so the checksums are a small file of their own, under
the same file version. Months that an earlier version of the platform published have none.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import google_crc32c

from taxi_platform.trips.stored_json import dump, record

if TYPE_CHECKING:
    from taxi_platform.trips.cleaning import CleaningOutput

BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class FileSum:
    """A file's size in bytes, its sha256 as hex, and its CRC32C, which a bucket gives without sending the file.

    `crc32c` is empty where it is not known, of raw files.
    """

    size: int
    sha256: str
    crc32c: str = ""

    @classmethod
    def of(cls, file: BinaryIO) -> FileSum:
        """Read an open file to its end."""
        sha256, crc32c, size = hashlib.sha256(), google_crc32c.Checksum(), 0
        while block := file.read(BLOCK_BYTES):
            sha256.update(block)
            crc32c.update(block)
            size += len(block)
        return cls(size, sha256.hexdigest(), base64.b64encode(crc32c.digest()).decode())

    @classmethod
    def of_path(cls, path: Path) -> FileSum:
        with path.open("rb") as file:
            return cls.of(file)


@dataclass(frozen=True)
class Checksums:
    """The three files of one version of a clean month."""

    file_version: str
    clean: FileSum
    rejected: FileSum
    report: FileSum

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Checksums:
        """The checksums with these stored fields; raises `ValueError` if they are malformed."""
        sums = {name: record(FileSum, content.get(name)) for name in ("clean", "rejected", "report")}
        return cls(str(content.get("file_version")), **sums)

    @classmethod
    def of_output(cls, clean: CleaningOutput) -> Checksums:
        """The checksums of what a cleaning has just written."""
        report = io.BytesIO(clean.report.to_json().encode())
        sums = FileSum.of_path(clean.trips), FileSum.of_path(clean.rejected), FileSum.of(report)
        return cls(clean.report.file_version, *sums)

    def to_json(self) -> str:
        return dump(asdict(self))
