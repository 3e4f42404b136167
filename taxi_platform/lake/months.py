"""The objects of one dataset and month in a lake, and the order in which they are published.

Raw files are immutable and listed in a manifest. The clean file is the commit point: its footer names everything that
belongs to it. Nothing here knows which lake it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

from taxi_platform.lake.base import ANY_VERSION, NEW, Lake, StoredObject
from taxi_platform.lake.manifest import SHORT, Manifest, RawVersion
from taxi_platform.trips.cleaning import CleaningOutput
from taxi_platform.trips.errors import Conflict, LakeError, UserError
from taxi_platform.trips.faults import fault_point
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.trips.publication import FetchedFile
from taxi_platform.trips.report import Report


@dataclass(frozen=True)
class CleanFooter:
    """What the clean file says about itself; `rows` is the Parquet footer's own count, `size` in bytes.

    `object_version` is the lake's version of the file.
    """

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

    # Raw files

    def manifest(self) -> Manifest:
        """The manifest as it is now, empty if there is none; raises `LakeError` if it is malformed."""
        if (stored := self.lake.read(self.manifest_key)) is None:
            return Manifest((), NEW)
        text, manifest_object = stored
        try:
            return Manifest.parse(text, manifest_object.version)
        except (ValueError, KeyError, TypeError) as error:
            raise LakeError(
                f"{self.lake.uri(self.manifest_key)} is not a manifest: {error}.",
                "Repair it, or move it away and fetch the month again; the raw files beside it stay.",
            ) from error

    def versions(self) -> tuple[list[RawVersion], str]:
        """The raw versions, oldest first, the last being current; and the manifest's version for compare-and-swap."""
        manifest = self.manifest()
        return list(manifest.versions), manifest.object_version

    def current_raw(self) -> RawVersion | None:
        return self.manifest().current

    def publish_raw(
        self, fetched: FetchedFile, manifest: Manifest | None = None, overwrite: bool = False
    ) -> RawVersion:
        """Store a fetched file permanently and list it in the manifest; returns the version that is current then.

        That is the fetched one, unless a restore set its content aside (see `Manifest.with_fetched`). Raises `Conflict`
        if the manifest changed since `manifest` was read. `overwrite` replaces a stored file even if its size
        is the same: it may be damaged.
        """
        fault_point("fetched")
        raw = RawVersion.of(fetched, self.raw_prefix)
        updated = (manifest or self.manifest()).with_fetched(raw)
        current = updated.versions[-1]
        if current.key == raw.key:
            stored = self.lake.stat(raw.key)
            if overwrite or stored is None or stored.size != raw.size:
                self.lake.upload(raw.key, fetched.path, ANY_VERSION)
        fault_point("raw_uploaded")
        self._write_manifest(updated)
        fault_point("manifest_written")
        return current

    def restore(self, version: str | None = None) -> RawVersion:
        """Make an older raw file current again: the previous one, or the one whose sha256 begins with `version`.

        What the source offers at that time is not fetched again; only new content is. Raises `UserError` if
        there is no such file, if it is already current, or if the month was already restored and no version is named.
        """
        with self.lake.lock(self.dataset_month):
            manifest = self.manifest()
            current = manifest.current
            if current and current.instead_of and not version:
                raise UserError(
                    f"{self.dataset_month} was already restored to version {current.short_sha256}.",
                    f"Run taxi ingest {self.dataset_month} to load it, or name a version.",
                )
            if current and version and current.sha256.startswith(version):
                raise UserError(
                    f"Version {version} of {self.dataset_month} is already the current one.",
                    f"Run taxi ingest {self.dataset_month} to load it.",
                )
            candidates = manifest.older_files(version)
            if len(candidates) != 1 or self.lake.stat(candidates[0].key) is None:
                wanted = f"raw version {version}" if version else "earlier raw version"
                raise UserError(
                    f"The lake has no {wanted} of {self.dataset_month}.",
                    f"taxi versions {self.dataset_month} lists the versions.",
                )
            restored = manifest.with_restored(candidates[0])
            self._write_manifest(restored)
            return restored.versions[-1]

    def prune(self, keep: int, apply: bool) -> list[StoredObject]:
        """Find raw files older than the newest `keep`, and those of killed runs; delete them if `apply`.

        The current file and the one that the clean file was made from always stay. The manifest is written before a
        file is deleted, so a run killed in between leaves a file that the next one finds. Without a manifest nothing
        is deleted.
        """
        with self.lake.lock(self.dataset_month) if apply else nullcontext():
            manifest = self.manifest()
            if not manifest.versions:
                return []
            footer = self.footer()
            staying = manifest.newest_files(keep) | ({footer.raw_sha256} if footer else set())
            pruned = manifest.only(staying)
            removable = list(self._raw_files_except({raw.key for raw in pruned.versions}))
            if apply and pruned != manifest:
                self._write_manifest(pruned)
            if apply:
                for file in removable:
                    self.lake.delete(file.key, file.version)
            return removable

    def _raw_files_except(self, keys: set[str]) -> Iterator[StoredObject]:
        """Raw files that the platform stored, except under these keys; files that people put there are left alone."""
        ours = re.compile(rf"{re.escape(self.raw_prefix)}[0-9a-f]{{{SHORT}}}/[^/]+")
        for key in self.lake.list(self.raw_prefix):
            if key not in keys and ours.fullmatch(key) and (stored := self.lake.stat(key)):
                yield stored

    def _write_manifest(self, manifest: Manifest) -> None:
        """Replace the manifest; raises `Conflict` if it changed since it was read."""
        self.lake.write(self.manifest_key, manifest.to_json().encode(), manifest.object_version)

    # The clean file and what belongs to it

    def read_clean(self) -> tuple[CleanFooter | None, str]:
        """The clean file's footer, None if it is absent, damaged or not ours; and its version for compare-and-swap.

        A damaged file counts as absent and is replaced by the next cleaning.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        stored = self.lake.stat(self.clean_key)
        if stored is None:
            return None, NEW
        try:
            with self.lake.open(self.clean_key) as file:
                metadata = pq.read_metadata(file)
        except (pa.ArrowException, OSError):
            return None, stored.version
        pairs = metadata.metadata or {}
        try:
            footer = CleanFooter(
                pairs[b"file_version"].decode(),
                pairs[b"raw_sha256"].decode(),
                pairs[b"contract_version"].decode(),
                metadata.num_rows,
                stored.size,
                stored.version,
            )
        except KeyError:
            return None, stored.version
        return footer, stored.version

    def footer(self) -> CleanFooter | None:
        """The clean file's footer; None if the month has no clean file that we wrote."""
        return self.read_clean()[0]

    def report(self, file_version: str) -> Report | None:
        """The report of a version; None if it is lost, `Conflict` if a run that cleaned a newer version removed it."""
        if stored := self.lake.read(self.report_key(file_version)):
            return Report.from_json(stored[0])
        footer = self.footer()
        if footer and footer.file_version != file_version:
            raise cleaned_by_another_run(self.dataset_month)
        return None

    def is_complete(self, footer: CleanFooter | None, file_version: str) -> bool:
        """Whether the month is published in exactly this version, with its side files and no others.

        Others were left by a run that was killed before its sweep, or that lost to another run. They cannot simply be
        deleted: without locks a run may be about to commit them. That run loses once the month is published again.
        """
        return (
            footer is not None
            and footer.file_version == file_version
            and self._side_keys() == [self.rejected_key(file_version), self.report_key(file_version)]
        )

    def publish_clean(self, clean: CleaningOutput, replaces: str = NEW) -> CleanFooter:
        """Publish the side files, then the clean file in one step, then delete the side files of older versions.

        `replaces` is the version of the clean file that `read_clean` gave. Raises `Conflict` if the clean file changed
        since then, or if the raw file that was cleaned is no longer current.
        """
        fault_point("cleaned")
        report = clean.report
        version = report.file_version
        self.lake.upload(self.rejected_key(version), clean.rejected)
        fault_point("rejected_published")
        self.lake.write(self.report_key(version), report.to_json().encode())
        fault_point("report_published")
        # The manifest is read a second time: without locks another run may have published a raw file while this one
        # cleaned the previous one, and no precondition on the clean file would tell.
        raw = self.current_raw()
        if raw is None or raw.sha256 != report.raw_sha256:
            problem = f"A newer raw file of {self.dataset_month} was published during this run."
            raise Conflict(problem, "Run the month again.")
        # Without locks another run may be publishing one of these files itself. What is listed before our commit
        # belongs to a run that loses to it and starts again; what that run writes then is newer, and stays.
        outdated = self._side_files_except(version)
        stored = self.lake.upload(self.clean_key, clean.trips, replaces)
        fault_point("clean_published")
        for side_file in outdated:
            self.lake.delete(side_file.key, side_file.version)
            fault_point("swept")
        return CleanFooter(
            version, report.raw_sha256, report.contract_version, report.rows_clean, stored.size, stored.version
        )

    def _side_keys(self) -> list[str]:
        return [*self.lake.list(self.rejected_prefix), *self.lake.list(self.reports_prefix)]

    def _side_files_except(self, file_version: str) -> list[StoredObject]:
        current = (self.rejected_key(file_version), self.report_key(file_version))
        others = [self.lake.stat(key) for key in self._side_keys() if key not in current]
        return [side_file for side_file in others if side_file]


def cleaned_by_another_run(dataset_month: DatasetMonth) -> Conflict:
    """What to raise if the clean file was replaced between two looks at it."""
    return Conflict(f"{dataset_month} was cleaned by another run at the same time.", "Run the month again.")
