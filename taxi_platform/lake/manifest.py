"""The manifest of a month: which raw files were published, in which order, and which of them is the current one.

Values and rules only. `months.py` reads and writes them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
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
class SetAside:
    """A version that looks wrong: its raw file is in the lake, but it did not become the current one.

    `reasons` are sentences. `pending` means that the source offered it last, and that nobody has accepted it.
    """

    raw: RawVersion
    reasons: tuple[str, ...]
    pending: bool = True

    @property
    def why(self) -> str:
        return " ".join(self.reasons)


@dataclass(frozen=True)
class _Stored:
    """The fields of a manifest as it is stored. Those that this version does not know are lost when it writes."""

    versions: tuple[RawVersion, ...]
    set_aside: tuple[SetAside, ...] = ()
    accepted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """A month's raw versions, oldest first. The last one is current.

    `object_version` is the lake's version of the manifest as it was read, for compare-and-swap. `accepted` has the
    sha256 of files that somebody accepted although they look wrong.
    """

    versions: tuple[RawVersion, ...]
    object_version: str
    set_aside: tuple[SetAside, ...] = ()
    accepted: tuple[str, ...] = ()

    @classmethod
    def of(cls, content: Mapping[str, Any], object_version: str) -> Manifest:
        """The manifest with these stored fields; raises `ValueError` if it is malformed."""
        stored = record(_Stored, content)
        manifest = cls(stored.versions, object_version, stored.set_aside, stored.accepted)
        for raw in manifest.listed:
            if not re.fullmatch("[0-9a-f]{64}", raw.sha256) or raw.size < 0 or raw.rows < 0:
                raise ValueError(f"wrong values in the entry of {raw.time}")
        return manifest

    def to_json(self) -> str:
        content: dict[str, Any] = {"versions": [asdict(version) for version in self.versions]}
        if self.set_aside or self.accepted:
            content |= {"set_aside": [asdict(entry) for entry in self.set_aside], "accepted": list(self.accepted)}
        return dump(content)

    @property
    def listed(self) -> tuple[RawVersion, ...]:
        """Every raw file that the manifest knows, first those that were set aside; one may be there more than once."""
        return (*(entry.raw for entry in self.set_aside), *self.versions)

    @property
    def current(self) -> RawVersion | None:
        return self.versions[-1] if self.versions else None

    @property
    def pending(self) -> SetAside | None:
        """The version that the source offered last, if it was set aside and nobody has accepted it."""
        return next((entry for entry in self.set_aside if entry.pending), None)

    def set_aside_of(self, publication: Publication) -> SetAside | None:
        """The version fetched from this publication, if it was set aside."""
        entries = [entry for entry in self.set_aside if entry.raw.publication.offer == publication.offer]
        is_current = self.current is not None and self.current.publication.offer == publication.offer
        return next((entry for entry in entries if entry.pending or not is_current), None)

    def with_set_aside(self, raw: RawVersion, reasons: Sequence[str]) -> Manifest:
        """The manifest after `raw` was set aside; the version before it is the current one if `raw` was current."""
        versions = self.versions[:-1] if self.current and self.current.sha256 == raw.sha256 else self.versions
        others = [entry for entry in self.with_none_pending().set_aside if entry.raw.sha256 != raw.sha256]
        return replace(self, versions=versions, set_aside=(*others, SetAside(raw, tuple(reasons))))

    def with_none_pending(self) -> Manifest:
        """The manifest once the source offers something else than what was set aside last."""
        return replace(self, set_aside=tuple(replace(entry, pending=False) for entry in self.set_aside))

    def with_accepted(self, entry: SetAside) -> Manifest:
        """The manifest after a person accepted what was set aside: it is current, and is not judged again."""
        current = self.current
        instead_of = None if entry.pending or not current else current.instead_of or current.publication.offer
        accepted = replace(self, accepted=(*self.accepted, entry.raw.sha256))
        return accepted._with(replace(entry.raw, time=_now(), instead_of=instead_of), after=self.versions)

    def with_fetched(self, raw: RawVersion) -> Manifest:
        """The manifest after a fetch; its last version is the current one, which need not be `raw`.

        Content that is current already stays one version and takes the new ETag, date and address, so that it is not
        fetched once more. After a restore only content that the manifest has never listed becomes current: what was
        set aside stays so, whatever its ETag, date or address.
        """
        current, contents = self.current, {version.sha256 for version in self.versions}
        settled = self.with_none_pending()
        if current and current.sha256 == raw.sha256:
            return settled._with(replace(raw, instead_of=current.instead_of), after=self.versions[:-1])
        if current and current.instead_of and raw.sha256 in contents:
            return settled._with(replace(current, instead_of=raw.publication.offer), after=self.versions[:-1])
        return settled._with(raw, after=self.versions)

    def with_restored(self, raw: RawVersion) -> Manifest:
        """The manifest after a restore of `raw`. What the source offers now is set aside."""
        replaced = self.versions[-1]
        restored = replace(raw, time=_now(), instead_of=replaced.instead_of or replaced.publication.offer)
        return self._with(restored, after=self.versions)

    def files_named(self, sha256_prefix: str) -> list[str]:
        """The sha256 of every file, current or not, that begins with the prefix, oldest first."""
        return [
            sha256 for sha256 in dict.fromkeys(raw.sha256 for raw in self.versions) if sha256.startswith(sha256_prefix)
        ]

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
        """The manifest of these files alone; neighbours that then have the same content become one version.

        Of what was set aside, only what the source offered last stays.
        """
        remaining = [raw for raw in self.versions if raw.sha256 in sha256s]
        last_of_each = [list(same)[-1] for _, same in groupby(remaining, key=lambda raw: raw.sha256)]
        set_aside = tuple(entry for entry in self.set_aside if entry.pending)
        return replace(self, versions=tuple(last_of_each), set_aside=set_aside)

    def _with(self, raw: RawVersion, after: tuple[RawVersion, ...]) -> Manifest:
        others = tuple(entry for entry in self.set_aside if entry.raw.sha256 != raw.sha256)
        return replace(self, versions=(*after, raw), set_aside=others)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
