"""The marts of one dataset and month in a lake: one Parquet file each, named by the versions of trips and of marts.

Readers see a mart's new file and its previous one side by side for a moment, told apart by their names and by the
column `file_version`. The last mart is written last: where its file is, the others are.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from taxi_platform.lake.base import Lake
from taxi_platform.trips.faults import fault_point
from taxi_platform.trips.months import Dataset, DatasetMonth, Month

MART_KEY = re.compile(r"marts/\w+/(\w+)/month=(\d{4}-\d\d)/([0-9a-f]{12})-([0-9a-f]+)\.parquet", re.ASCII)


@dataclass(frozen=True)
class MartMonth:
    """The files of a month's marts in one version. `names` are the marts in the order in which they are published."""

    lake: Lake
    dataset_month: DatasetMonth
    names: Sequence[str]
    file_version: str
    mart_version: str

    def key(self, name: str) -> str:
        return f"{self._prefix(name)}{self.file_version}-{self.mart_version}.parquet"

    def is_complete(self) -> bool:
        """Whether the lake has all marts of the month in this version and no other."""
        return self._stored_keys == sorted(map(self.key, self.names))

    def publish(self, files: Mapping[str, Path]) -> None:
        """Store the files (mart → file) in their order, then delete those of other versions."""
        # What is listed before the last one is stored belongs to runs before this one; see `LakeMonth.publish_clean`.
        others = set(self._stored_keys) - set(map(self.key, self.names))
        outdated = [stored for key in sorted(others) if (stored := self.lake.stat(key))]
        for name in self.names:
            self.lake.upload(self.key(name), files[name])
            fault_point("mart_published")
        for stored in outdated:
            self.lake.delete(stored.key, stored.version)
            fault_point("mart_swept")

    @contextmanager
    def copies(self, folder: Path) -> Iterator[dict[str, Path]]:
        """The marts as local files to read."""
        with ExitStack() as stack:
            yield {name: stack.enter_context(self.lake.local_copy(self.key(name), folder)) for name in self.names}

    @cached_property
    def _stored_keys(self) -> list[str]:
        """The keys of the month's marts in all versions, sorted, as they were first listed here."""
        keys = self.lake.list_in_folders(f"marts/{self.dataset_month.dataset}/", f"month={self.dataset_month.month}")
        return [key for key in keys if key.split("/")[2] in self.names]

    def _prefix(self, name: str) -> str:
        return f"marts/{self.dataset_month.dataset}/{name}/month={self.dataset_month.month}/"


def complete_marts(lake: Lake, dataset: Dataset, names: Sequence[str]) -> dict[Month, tuple[str, str]]:
    """Month → file version and mart version, of the months that have all marts in that version and no other.

    One listing, of at most a thousand names as there are 200 months.
    """
    found: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for key in lake.list(f"marts/{dataset}/"):
        if match := MART_KEY.fullmatch(key):
            name, month, file_version, mart_version = match.groups()
            found[month].append((name, file_version, mart_version))
    complete = {}
    for month, files in found.items():
        _, *versions = files[0]
        if sorted(files) == sorted((name, *versions) for name in names):
            complete[Month.parse(month)] = versions[0], versions[1]
    return complete
