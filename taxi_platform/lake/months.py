"""What a lake holds of one month, and the order in which it is published.

Raw files are immutable and listed in a manifest; the clean file is the commit point, whose footer names everything that
belongs to it. Nothing here knows which lake it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import groupby

from taxi_platform.lake.base import ANY_VERSION, NEW, Lake, StoredObject
from taxi_platform.trips.cleaning import CleaningOutput
from taxi_platform.trips.errors import Conflict, LakeError, UserError
from taxi_platform.trips.faults import fault_point
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.trips.publication import FetchedFile, Publication
from taxi_platform.trips.report import Report

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
    """After going back: what the source offered last, which is not to be fetched again."""

    @property
    def short_sha256(self) -> str:
        return self.sha256[:SHORT]

    def is_of(self, publication: Publication) -> bool:
        """Whether what the source offers is this version, without fetching it, or one that is not to replace it.

        That is the one which it stands in for, and a synthetic month where this one was really published.
        """
        own = self.publication
        return publication.offer in (own.offer, self.instead_of) or (publication.is_synthetic and not own.is_synthetic)

    @property
    def publication(self) -> Publication:
        return Publication(self.url, self.source_version, self.size, self.etag, self.last_modified)


@dataclass(frozen=True)
class CleanFooter:
    """What the clean file says of itself; `rows` is the Parquet footer's own count, `size` in bytes."""

    file_version: str
    raw_sha256: str
    contract_version: str
    rows: int
    size: int
    object_version: str


class LakeMonth:
    """The objects of one dataset and month in a lake."""

    def __init__(self, lake: Lake, dataset_month: DatasetMonth) -> None:
        self.lake = lake
        self.dataset_month = dataset_month
        dataset, month = dataset_month.dataset, dataset_month.month
        self.raw_prefix = f"raw/{dataset}/{month}/"
        self.manifest_key = f"{self.raw_prefix}manifest.json"
        self.clean_key = f"clean/{dataset}/month={month}/trips.parquet"
        self.rejected_prefix = f"rejected/{dataset}/month={month}/"
        self.reports_prefix = f"reports/{dataset}/month={month}/"

    def rejected_key(self, file_version: str) -> str:
        return f"{self.rejected_prefix}{file_version}.parquet"

    def report_key(self, file_version: str) -> str:
        return f"{self.reports_prefix}{file_version}.json"

    def versions(self) -> tuple[list[RawVersion], str]:
        """The raw versions in order, the last being current, and the manifest's own version for compare-and-swap."""
        found = self.lake.read(self.manifest_key)
        if found is None:
            return [], NEW
        data, stored = found
        try:
            versions = [RawVersion(**entry) for entry in json.loads(data)["versions"]]
            for raw in versions:
                texts, numbers = (raw.key, raw.url, raw.source_version, raw.sha256, raw.time), (raw.size, raw.rows)
                if {*map(type, texts)} != {str} or {*map(type, numbers)} != {int}:
                    raise TypeError(f"wrong types in the entry of {raw.time}")
        except (ValueError, KeyError, TypeError) as error:
            raise LakeError(
                f"{self.lake.uri(self.manifest_key)} is not a manifest: {error}.",
                "Mend it, or move it away and fetch the month again; the raw files beside it stay.",
            ) from error
        return versions, stored.version

    def current_raw(self) -> RawVersion | None:
        versions, _ = self.versions()
        return versions[-1] if versions else None

    def publish_raw(self, fetched: FetchedFile) -> RawVersion:
        """Keep a fetched file for ever, and make it the current one; the same content twice is one version.

        Where somebody went back to an older file, only content that is new here replaces it: what was set aside stays
        so, whatever its ETag, date or address.
        """
        fault_point("fetched")
        offered = fetched.publication
        raw = RawVersion(
            key=f"{self.raw_prefix}{fetched.sha256[:SHORT]}/{fetched.path.name}",
            url=offered.url,
            source_version=offered.version,
            etag=offered.etag,
            last_modified=offered.last_modified,
            size=fetched.size,
            sha256=fetched.sha256,
            rows=fetched.rows,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            plain=fetched.plain,
        )
        versions, manifest_version = self.versions()
        current = versions[-1] if versions else None
        if current and current.instead_of and raw.sha256 in {version.sha256 for version in versions}:
            own = current.sha256 == raw.sha256
            raw = replace(raw if own else current, instead_of=current.instead_of if own else offered.offer)
            self._write_manifest([*versions[:-1], raw], manifest_version)
            return raw
        stored = self.lake.stat(raw.key)
        if stored is None or stored.size != raw.size:
            self.lake.upload(raw.key, fetched.path, ANY_VERSION)
        fault_point("raw_uploaded")
        # Same content under a new ETag or date: the entry learns the new name, so that it is not fetched again.
        kept = versions[:-1] if versions and versions[-1].sha256 == raw.sha256 else versions
        self._write_manifest([*kept, raw], manifest_version)
        fault_point("manifest_written")
        return raw

    def restore(self, version: str | None = None) -> RawVersion:
        """Make an older raw file the current one again: the one before, or that whose sha256 begins with `version`.

        What the source offers then is left alone until it offers new content. Raises `UserError` where there is no
        such file, where it is the current one, or where somebody went back already and no version is named.
        """
        with self.lake.lock(self.dataset_month):
            versions, manifest_version = self.versions()
            current = versions[-1] if versions else None
            if current and (current.instead_of and not version):
                raise UserError(
                    f"{self.dataset_month} was gone back already, to version {current.short_sha256}.",
                    f"Run taxi ingest {self.dataset_month} to finish that, or name a version.",
                )
            if current and version and current.sha256.startswith(version):
                raise UserError(
                    f"Version {version} of {self.dataset_month} is the current one.",
                    f"Run taxi ingest {self.dataset_month}.",
                )
            others = [raw for raw in versions if raw.sha256 != versions[-1].sha256]
            named = [raw for raw in others if raw.sha256.startswith(version)] if version else others[-1:]
            chosen = {raw.sha256: raw for raw in named}
            raw = next(iter(chosen.values()), None)
            if current is None or raw is None or len(chosen) > 1 or self.lake.stat(raw.key) is None:
                wanted = f"raw version {version}" if version else "earlier raw version"
                raise UserError(
                    f"The lake has no {wanted} of {self.dataset_month}.",
                    f"taxi versions {self.dataset_month} lists what there is.",
                )
            time = datetime.now(UTC).isoformat(timespec="seconds")
            restored = replace(raw, time=time, instead_of=current.instead_of or current.publication.offer)
            self._write_manifest([*versions, restored], manifest_version)
            return restored

    def prune(self, keep: int, apply: bool) -> list[StoredObject]:
        """The raw files beyond the newest `keep`, and those of killed runs that no manifest names; gone if `apply`.

        The current one and the one that the clean file was made of always stay. The manifest forgets a file before it
        goes, so a run killed between the two leaves one to be found by the next. Without a manifest nothing goes.
        """
        with self.lake.lock(self.dataset_month) if apply else nullcontext():
            versions, manifest_version = self.versions()
            if not versions:
                return []
            footer = self.footer()
            newest_first = list(dict.fromkeys(raw.sha256 for raw in reversed(versions)))
            kept = {*newest_first[:keep], *([footer.raw_sha256] if footer else [])}
            named = {self.manifest_key, *(raw.key for raw in versions if raw.sha256 in kept)}
            ours = re.compile(rf"{re.escape(self.raw_prefix)}[0-9a-f]{{{SHORT}}}/[^/]+")  # not what people put there
            unnamed = [key for key in self.lake.list(self.raw_prefix) if key not in named and ours.fullmatch(key)]
            gone = [found for key in unnamed if (found := self.lake.stat(key))]
            staying = (raw for raw in versions if raw.sha256 in kept)
            left = [list(same)[-1] for _, same in groupby(staying, key=lambda raw: raw.sha256)]
            if apply and left != versions:
                self._write_manifest(left, manifest_version)
            if apply:
                for file in gone:
                    self.lake.delete(file.key, file.version)
            return gone

    def _write_manifest(self, versions: Sequence[RawVersion], if_version: str) -> None:
        text = json.dumps({"versions": [asdict(version) for version in versions]}, indent=1)
        self.lake.write(self.manifest_key, text.encode(), if_version)

    def footer(self) -> CleanFooter | None:
        """The clean file's footer; None where the month is not clean yet, or not by us."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        stored = self.lake.stat(self.clean_key)
        if stored is None:
            return None
        try:
            with self.lake.open(self.clean_key) as file:
                metadata = pq.read_metadata(file)
        except (pa.ArrowException, OSError):
            return None  # damaged: as good as absent, and replaced by the next cleaning
        pairs = {
            key.decode(): value.decode() for key, value in (metadata.metadata or {}).items() if key != b"ARROW:schema"
        }
        try:
            return CleanFooter(
                pairs["file_version"],
                pairs["raw_sha256"],
                pairs["contract_version"],
                metadata.num_rows,
                stored.size,
                stored.version,
            )
        except KeyError:
            return None

    def report(self, file_version: str) -> Report | None:
        """The report of a version; None where it is lost, `Conflict` where a newer version's run has swept it."""
        if found := self.lake.read(self.report_key(file_version)):
            return Report.from_json(found[0])
        footer = self.footer()
        if footer and footer.file_version != file_version:
            raise Conflict(f"{self.dataset_month} was cleaned by another run meanwhile.", "Run the month again.")
        return None

    def is_complete(self, footer: CleanFooter | None, file_version: str) -> bool:
        """Whether the month is published in exactly this version, with its side files and nobody else's.

        Others are what a run left that was killed before its sweep, or lost to another one. They cannot just be
        removed: without locks a run may be about to commit them. It loses once the month is published again.
        """
        return (
            footer is not None
            and footer.file_version == file_version
            and self._side_keys() == [self.rejected_key(file_version), self.report_key(file_version)]
        )

    def publish_clean(self, clean: CleaningOutput, replaces: CleanFooter | None) -> None:
        """Publish side files, then the clean file in one step, then remove what no reader follows any more.

        Raises `Conflict` when the raw file or the clean file changed since they were read.
        """
        fault_point("cleaned")
        report = clean.report
        self.lake.upload(self.rejected_key(report.file_version), clean.rejected)
        fault_point("rejected_published")
        self.lake.write(self.report_key(report.file_version), report.to_json().encode())
        fault_point("report_published")
        raw = self.current_raw()
        if raw is None or raw.sha256 != report.raw_sha256:
            raise Conflict(f"A newer raw file of {self.dataset_month} was published meanwhile.", "Run the month again.")
        stored = self.lake.stat(self.clean_key)
        if replaces is None and self.footer() is not None:
            raise Conflict(f"{self.dataset_month} was cleaned by another run meanwhile.", "Run the month again.")
        expected = replaces.object_version if replaces else (stored.version if stored else NEW)
        # Without locks another run may be publishing such a version itself. What is seen before our commit belongs to
        # a run that loses to it and starts over; what that run writes then is newer, and stays.
        unfollowed = self._side_files_but(report.file_version)
        self.lake.upload(self.clean_key, clean.trips, expected)
        fault_point("clean_published")
        for side_file in unfollowed:
            self.lake.delete(side_file.key, side_file.version)
            fault_point("swept")

    def _side_keys(self) -> list[str]:
        return [*self.lake.list(self.rejected_prefix), *self.lake.list(self.reports_prefix)]

    def _side_files_but(self, file_version: str) -> list[StoredObject]:
        kept = (self.rejected_key(file_version), self.report_key(file_version))
        found = [self.lake.stat(key) for key in self._side_keys() if key not in kept]
        return [side_file for side_file in found if side_file]
