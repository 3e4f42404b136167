"""A month as its source publishes it, and as it was fetched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SYNTHETIC = "sample://"


@dataclass(frozen=True)
class Publication:
    """A published month, as its source describes it without sending it.

    `version` changes whenever the file may have changed: its ETag, else Last-Modified and size; of a file, its size
    and modification time. `size` is in bytes, None where the source does not tell.
    """

    url: str
    version: str
    size: int | None = None
    etag: str | None = None
    last_modified: str | None = None

    @property
    def offer(self) -> str:
        """What names this very file: another address or version is another file until its bytes say otherwise."""
        return f"{self.url} {self.version}"

    @property
    def is_weak(self) -> bool:
        """Whether the server tells nothing but the length, so that only the bytes show whether the file changed."""
        is_web = self.url.startswith(("http://", "https://"))
        return is_web and self.etag is None and self.last_modified is None

    @property
    def is_synthetic(self) -> bool:
        """Whether it is a synthetic month, of which nobody but us knows."""
        return self.url.startswith(SYNTHETIC)


@dataclass(frozen=True)
class FetchedFile:
    """A month fetched to `path` and verified: complete, and CSV, gzipped CSV or Parquet by its bytes.

    `rows` is counted while fetching, independently of the cleaner: CSV records without the header, or the Parquet
    footer's count. `plain` says that any CSV reader reads it the same way (see `files.RecordCounter`).
    """

    path: Path
    publication: Publication
    size: int
    sha256: str
    rows: int
    plain: bool = False
