"""The manifest of a month: which raw files were published, in which order, and which of them is the current one.

Values and rules only. `months.py` reads and writes them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from taxi_platform.trips.publication import FetchedFile, Publication
from taxi_platform.trips.stored_json import dump, record

SHORT = 12
"""Hex digits of a sha256 that name a raw file to people and in its key."""


@dataclass(frozen=True)
class RawVersion:
    """One published version of a month's raw file. `time` is when it was fetched, UTC; `size` is in bytes."""

    key: str
    url: str
    source_version: str
    etag: str | None
    last_modified: str | None
    size: int
    sha256: str
    rows: int
    time: str
    plain: bool = False
    instead_of: str | None = None
    """Set by a restore: what the source offered last, which must not be fetched again."""

    @classmethod
    def of(cls, fetched: FetchedFile, raw_prefix: str) -> RawVersion:
        """The version that a file fetched just now becomes, under its key in the lake."""
        publication = fetched.publication
        return cls(
            key=f"{raw_prefix}{fetched.sha256[:SHORT]}/{fetched.path.name}",
            url=publication.url,
            source_version=publication.version,
            etag=publication.etag,
            last_modified=publication.last_modified,
            size=fetched.size,
            sha256=fetched.sha256,
            rows=fetched.rows,
            time=_now(),
            plain=fetched.plain,
        )

    @property
    def short_sha256(self) -> str:
        return self.sha256[:SHORT]

    @property
    def publication(self) -> Publication:
        return Publication(self.url, self.source_version, self.size, self.etag, self.last_modified)

    def is_of(self, publication: Publication) -> bool:
        """Whether fetching this publication would bring nothing that may replace this version.

        True for the publication that it was fetched from, for the one that a restore set aside in its favour, and for
        a synthetic month if this version is a published one.
        """
        own = self.publication
        return publication.offer in (own.offer, self.instead_of) or (publication.is_synthetic and not own.is_synthetic)


@dataclass(frozen=True)
class Manifest:
    """A month's raw versions, oldest first. The last one is current.

    `object_version` is the lake's version of the manifest as it was read, for compare-and-swap.
    """

    versions: tuple[RawVersion, ...]
    object_version: str

    @classmethod
    def of(cls, content: Mapping[str, Any], object_version: str) -> Manifest:
        """The manifest with these stored fields; raises `ValueError` if it is malformed."""
        entries = content.get("versions")
        if not isinstance(entries, list):
            raise ValueError("it has no list of versions")
        versions = tuple(record(RawVersion, entry) for entry in entries)
        for raw in versions:
            if not re.fullmatch("[0-9a-f]{64}", raw.sha256) or raw.size < 0 or raw.rows < 0:
                raise ValueError(f"wrong values in the entry of {raw.time}")
        return cls(versions, object_version)

    def to_json(self) -> str:
        return dump({"versions": [asdict(version) for version in self.versions]})

    @property
    def current(self) -> RawVersion | None:
        return self.versions[-1] if self.versions else None

    def with_fetched(self, raw: RawVersion) -> Manifest:
        """The manifest after a fetch; its last version is the current one, which need not be `raw`.

        Content that is current already stays one version and takes the new ETag, date and address, so that it is not
        fetched once more. After a restore only content that the manifest has never listed becomes current: what was
        set aside stays so, whatever its ETag, date or address.
        """
        current, contents = self.current, {version.sha256 for version in self.versions}
        if current and current.sha256 == raw.sha256:
            return self._with(replace(raw, instead_of=current.instead_of), after=self.versions[:-1])
        if current and current.instead_of and raw.sha256 in contents:
            return self._with(replace(current, instead_of=raw.publication.offer), after=self.versions[:-1])
        return self._with(raw, after=self.versions)

    def with_restored(self, raw: RawVersion) -> Manifest:
        """The manifest after a restore of `raw`. What the source offers now is set aside."""
        replaced = self.versions[-1]
        restored = replace(raw, time=_now(), instead_of=replaced.instead_of or replaced.publication.offer)
        return self._with(restored, after=self.versions)

    def older_files(self, sha256_prefix: str | None) -> list[RawVersion]:
        """What a restore may choose: the files with that prefix, or the one before the current, without repetitions."""
        others = [raw for raw in self.versions if raw.sha256 != self.versions[-1].sha256]
        chosen = [raw for raw in others if raw.sha256.startswith(sha256_prefix)] if sha256_prefix else others[-1:]
        return list({raw.sha256: raw for raw in chosen}.values())

    def newest_files(self, count: int) -> set[str]:
        """The sha256 of the `count` files that were current most recently."""
        newest_first = dict.fromkeys(raw.sha256 for raw in reversed(self.versions))
        return set(list(newest_first)[:count])

    def only(self, sha256s: Collection[str]) -> Manifest:
        """The manifest of these files alone; neighbours that then have the same content become one version."""
        remaining = [raw for raw in self.versions if raw.sha256 in sha256s]
        last_of_each = [list(same)[-1] for _, same in groupby(remaining, key=lambda raw: raw.sha256)]
        return replace(self, versions=tuple(last_of_each))

    def _with(self, raw: RawVersion, after: tuple[RawVersion, ...]) -> Manifest:
        return replace(self, versions=(*after, raw))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
