"""A month as its source publishes it, before and after it is fetched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SYNTHETIC = "sample://"


@dataclass(frozen=True)
class Publication:
    """A published month, as its source describes it without sending it.

    `version` changes whenever the file may have changed. It is the ETag, or else Last-Modified and size; for a local
    file, size and modification time. `size` is in bytes, None if the source does not say.
    """

    url: str
    version: str
    size: int | None = None
    etag: str | None = None
    last_modified: str | None = None

    @property
    def offer(self) -> str:
        """Identifies this file at its source: address and version. Different offers may still have the same bytes."""
        return f"{self.url} {self.version}"

    @property
    def is_weak(self) -> bool:
        """Whether the server tells nothing but the length, so that only the bytes show whether the file changed."""
        is_web = self.url.startswith(("http://", "https://"))
        return is_web and self.etag is None and self.last_modified is None

    @property
    def is_synthetic(self) -> bool:
        """Whether it is a generated sample month."""
        return self.url.startswith(SYNTHETIC)


@dataclass(frozen=True)
class FetchedFile:
    """A complete month at `path`, verified to be CSV, gzipped CSV or Parquet. `size` is in bytes.

    `rows` was counted while fetching, independently of the cleaner: CSV records without the header, or the Parquet
    footer's count. `plain` means that every CSV reader reads the file the same way (see `records.RecordCounter`).
    """

    path: Path
    publication: Publication
    size: int
    sha256: str
    rows: int
    plain: bool = False
