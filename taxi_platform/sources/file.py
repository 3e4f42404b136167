"""Months in a folder: put there by hand, by another program, or as a copy of files from the web."""

from __future__ import annotations

import stat as modes
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from taxi_platform.sources.addresses import CHECK, file_name
from taxi_platform.sources.base import FetchedFile, Progress, Publication, Source
from taxi_platform.trips.errors import NotData, NotPublished, SourceRefused, SourceUnavailable
from taxi_platform.trips.files import Inspector, received
from taxi_platform.trips.formats import chunks_of
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.trips.os_errors import TRANSIENT, remedy


@dataclass(frozen=True)
class FileSource(Source):
    """Months at `template`, an absolute path with `{dataset}` and `{month}`."""

    template: str

    def path(self, dataset_month: DatasetMonth) -> Path:
        """Where the month's file is expected."""
        return Path(
            self.template.replace("{dataset}", dataset_month.dataset).replace("{month}", str(dataset_month.month))
        )

    def address(self, dataset_month: DatasetMonth) -> str:
        return f"file://{self.path(dataset_month)}"

    def stat(self, dataset_month: DatasetMonth) -> Publication | None:
        path = self.path(dataset_month)
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            # Without the folder, the month may well be published: perhaps a disk is not mounted.
            folder = Path(self.template.partition("{")[0].rpartition("/")[0] or "/")
            if not folder.is_dir():
                problem = f"The folder {folder} does not exist."
                raise SourceUnavailable(problem, "Check TAXI_SOURCE_URL, or mount it.") from None
            return None
        except OSError as error:
            raise _refused(path, error) from error
        if not modes.S_ISREG(status.st_mode):
            raise SourceRefused(f"{path} is not a file.", CHECK)
        return Publication(self.address(dataset_month), f"{status.st_mtime_ns} {status.st_size}", status.st_size)

    def fetch(
        self, dataset_month: DatasetMonth, folder: Path, progress: Progress = lambda done, total: None
    ) -> FetchedFile:
        if not (publication := self.stat(dataset_month)):
            raise NotPublished(f"{dataset_month} is not at {self.path(dataset_month)}.", "Put the file there.")
        path = self.path(dataset_month)
        name = file_name(path.as_uri(), dataset_month.stem)
        inspector = Inspector()
        try:
            original = path.open("rb")
        except OSError as error:
            raise _refused(path, error) from error
        with original, received(folder, name) as part:
            try:
                with part.open("wb") as copy:
                    for chunk in _read(original, path):
                        inspector.feed(chunk)
                        copy.write(chunk)
                        progress(inspector.size, publication.size)
                content = inspector.finish(part)
            except NotData as error:
                self._check_unchanged(path, dataset_month, publication, inspector.size)
                raise type(error)(f"{path}: {error.problem}", error.remedy) from error
            self._check_unchanged(path, dataset_month, publication, inspector.size)
        return FetchedFile(folder / name, publication, content.size, content.sha256, content.rows, content.plain)

    def _check_unchanged(self, path: Path, dataset_month: DatasetMonth, before: Publication, size: int) -> None:
        """Raise `SourceUnavailable` if the file changed since `before`, or if `size` bytes are not all of it."""
        if self.stat(dataset_month) != before or size != before.size:
            raise SourceUnavailable(f"{path} changed while it was copied.", "Wait until it is completely written.")


def _read(original: BinaryIO, path: Path) -> Iterator[bytes]:
    """The file's chunks; an error is the source's, not that of the place it is copied to."""
    try:
        yield from chunks_of(original)
    except OSError as error:
        raise _refused(path, error) from error


def _refused(path: Path, error: OSError) -> SourceRefused | SourceUnavailable:
    kind = SourceUnavailable if error.errno in TRANSIENT else SourceRefused
    return kind(f"{path} cannot be read: {error.strerror}.", remedy(error.errno, "TAXI_SOURCE_URL"))
