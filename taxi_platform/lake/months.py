"""The objects of one dataset and month in a lake, and the order in which they are published.

Raw files are immutable and listed in a manifest. The clean file is the commit point: its footer names everything that
belongs to it. Nothing here knows which lake it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from taxi_platform.lake.base import ANY_VERSION, NEW, StoredObject
from taxi_platform.lake.checksums import Checksums, FileSum
from taxi_platform.lake.clean_month import CleanFooter, CleanMonth
from taxi_platform.lake.manifest import SHORT, Manifest, RawVersion, SetAside
from taxi_platform.trips.errors import Conflict, DamagedFile, LakeError, UserError
from taxi_platform.trips.faults import fault_point
from taxi_platform.trips.publication import FetchedFile
from taxi_platform.trips.stored_json import load

if TYPE_CHECKING:
    from taxi_platform.trips.cleaning import CleaningOutput


class LakeMonth(CleanMonth):
    """The objects of one dataset and month in a lake."""

    _last_manifest: Manifest | None = None

    # Raw files

    def last_manifest(self) -> Manifest:
        """The manifest as it was last read here, for what never changes: what was fetched."""
        return self._last_manifest or self.manifest()

    def manifest(self) -> Manifest:
        """The manifest as it is now, empty if there is none; raises `DamagedFile` or `NewerFormat`."""
        if (stored := self.lake.read(self.manifest_key)) is None:
            return Manifest((), NEW)
        text, manifest_object = stored
        uri = self.lake.uri(self.manifest_key)
        remedy = (
            f"Restore it from a backup; or move it away and run taxi ingest {self.dataset_month} to fetch the month "
            "again, the raw files beside it stay."
        )
        content = load(text, uri, "manifest", remedy)
        try:
            manifest = Manifest.of(content, manifest_object.version)
            if not all(raw.key.startswith(self.raw_prefix) for raw in manifest.listed):
                raise ValueError("it lists files of another month")
        except ValueError as error:
            raise DamagedFile(f"{uri} is not a manifest: {error}.", remedy) from error
        self._last_manifest = manifest
        return manifest

    def versions(self) -> tuple[list[RawVersion], str]:
        """The raw versions, oldest first, the last being current; and the manifest's version for compare-and-swap."""
        manifest = self.manifest()
        return list(manifest.versions), manifest.object_version

    def current_raw(self) -> RawVersion | None:
        return self.manifest().current

    def has_raw(self, raw: RawVersion) -> bool:
        """Whether the lake has the raw file as it was fetched."""
        return self.lake.holds(raw.key, FileSum(raw.size, raw.sha256))

    def find_damage(self, raw: RawVersion, footer: CleanFooter | None) -> DamagedFile | None:
        """What a cheap look finds damaged: the sizes of the month's current files, and the small ones read.

        None for a month that another run changes at the same time.
        """
        uri = self.lake.uri(raw.key)
        stored = self.lake.stat(raw.key)
        if stored is None or stored.size != raw.size:
            state = f"has {stored.size:,} bytes instead of {raw.size:,}" if stored else "is missing"
            return DamagedFile(f"{uri} {state}.", f"Run taxi ingest {self.dataset_month}, which fetches it again.")
        try:
            if footer:
                self.check_files(footer, whole=False)
                return None
            damage = self.damaged(self.clean_key, "is damaged") if self.lake.stat(self.clean_key) else None
        except DamagedFile as error:
            damage = error
        return damage if self.footer() == footer else None

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
        manifest = manifest or self.manifest()
        updated = manifest.with_fetched(raw)
        current = updated.versions[-1]
        self._store_raw(fetched, raw if current.key == raw.key else None, manifest, updated, overwrite)
        return current

    def set_aside(self, fetched: FetchedFile, manifest: Manifest, reasons: Sequence[str]) -> SetAside:
        """Store a fetched file that looks wrong permanently, and list it without making it the current one."""
        raw = RawVersion.of(fetched, self.raw_prefix)
        updated = manifest.with_set_aside(raw, reasons)
        self._store_raw(fetched, raw, manifest, updated)
        return updated.set_aside[-1]

    def _store_raw(
        self,
        fetched: FetchedFile,
        raw: RawVersion | None,
        manifest: Manifest,
        updated: Manifest,
        overwrite: bool = False,
    ) -> None:
        """Store the file as `raw`, unless that is None or the lake has it, and then the manifest that lists it.

        A file that `manifest` does not list is in the lake only if a run was killed, so it is not looked for.
        """
        is_listed = raw is not None and any(listed.key == raw.key for listed in manifest.listed)
        if raw and (overwrite or not is_listed or not self.has_raw(raw)):
            self.lake.upload(raw.key, fetched.path, ANY_VERSION)
        fault_point("raw_uploaded")
        self.write_manifest(updated)
        fault_point("manifest_written")

    def accept(self, version: str | None = None) -> RawVersion:
        """Make a file current that was set aside: the latest, or the one whose sha256 begins with `version`.

        It is not judged again. One that was accepted before and is current is returned: cleaning may have refused it,
        and be asked again with --force. Raises `UserError` if there is no such version, `LakeError` if its file is
        missing.
        """
        with self.lake.lock(self.dataset_month):
            manifest = self.manifest()
            current = manifest.current
            if current and version and current.sha256.startswith(version) and current.sha256 in manifest.accepted:
                return current
            named = [entry for entry in manifest.set_aside if version and entry.raw.sha256.startswith(version)]
            candidates = named if version else [entry for entry in manifest.set_aside if entry.pending]
            if len(candidates) != 1:
                wanted = f"Version {version}" if version else "No version"
                state = "is ambiguous" if candidates else "is not set aside" if version else "is set aside"
                problem = f"{wanted} of {self.dataset_month} {state}."
                raise UserError(problem, f"taxi versions {self.dataset_month} lists the versions.")
            if self.lake.stat(candidates[0].raw.key) is None:
                uri = self.lake.uri(candidates[0].raw.key)
                raise LakeError(f"{uri} is missing.", f"Fetch it again: taxi ingest {self.dataset_month} --force.")
            accepted = manifest.with_accepted(candidates[0])
            self.write_manifest(accepted)
            return accepted.versions[-1]

    def restore(self, version: str | None = None) -> RawVersion:
        """Make an older raw file current again: the previous one, or the one whose sha256 begins with `version`.

        What the source offers at that time is not fetched again; only new content is. Raises `UserError` if
        there is no such file or more than one, if it is already current, or if the month was already restored and no
        version is named.
        """
        with self.lake.lock(self.dataset_month):
            manifest = self.manifest()
            current = manifest.current
            matching = manifest.files_named(version or "none")
            if len(matching) > 1:
                raise UserError(
                    f"{version} is the beginning of {len(matching)} versions of {self.dataset_month}: "
                    f"{', '.join(sha256[:SHORT] for sha256 in matching)}.",
                    "Give more digits of the one to restore.",
                )
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
            self.write_manifest(restored)
            return restored.versions[-1]

    def prune(self, keep: int, apply: bool) -> list[StoredObject]:
        """Find raw files older than the newest `keep`, and those of killed runs; delete them if `apply`.

        The current file, the one that the clean file was made from, and one that is set aside now always stay. The
        manifest is written before a file is deleted, so a run killed in between leaves a file that the next one finds.
        Without a manifest nothing is deleted.
        """
        with self.lake.lock(self.dataset_month) if apply else nullcontext():
            manifest = self.manifest()
            if not manifest.versions and not manifest.set_aside:
                return []
            footer = self.footer()
            staying = manifest.newest_files(keep) | ({footer.raw_sha256} if footer else set())
            pruned = manifest.only(staying)
            removable = list(self._raw_files_except({raw.key for raw in pruned.listed}))
            if apply and pruned != manifest:
                self.write_manifest(pruned)
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

    def write_manifest(self, manifest: Manifest) -> None:
        """Replace the manifest; raises `Conflict` if it changed since it was read."""
        self.lake.write(self.manifest_key, manifest.to_json().encode(), manifest.object_version)

    # The clean file and what belongs to it

    def publish_clean(self, clean: CleaningOutput, replaces: str = NEW) -> CleanFooter:
        """Publish the side files, then the clean file in one step, then delete the side files of older versions.

        `replaces` is the version of the clean file that `read_clean` gave. Raises `Conflict` if the clean file changed
        since then, or if the raw file that was cleaned is no longer current.
        """
        fault_point("cleaned")
        report = clean.report
        version = report.file_version
        self._checksums.clear()
        checksums = Checksums.of_output(clean)  # first, as the lake may move the files
        self.lake.upload(self.rejected_key(version), clean.rejected)
        fault_point("rejected_published")
        self.lake.write(self.report_key(version), report.to_json().encode())
        fault_point("report_published")
        self.lake.write(self.checksums_key(version), checksums.to_json().encode())
        fault_point("checksums_published")
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
        self._checksums[version] = checksums
        return CleanFooter(
            version, report.raw_sha256, report.contract_version, report.rows_clean, stored.size, stored.version
        )

    def _side_files_except(self, file_version: str) -> list[StoredObject]:
        current = self.side_keys_of(file_version)
        others = [self.lake.stat(key) for key in self._side_keys() if key not in current]
        return [side_file for side_file in others if side_file]
