"""Fetch: bring the lake's current raw file up to date with what the source publishes now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from taxi_platform.ingestion.common import Say, no_message, retry_on_conflict
from taxi_platform.ingestion.comparing import must_compare, must_compare_month
from taxi_platform.ingestion.judging import judge_fetched, looks_wrong, stays_as_it_was
from taxi_platform.ingestion.known_damage import known_damage, note_damage
from taxi_platform.ingestion.work_folder import work_folder
from taxi_platform.lake.base import Lake
from taxi_platform.lake.manifest import Manifest, RawVersion, SetAside
from taxi_platform.lake.months import LakeMonth
from taxi_platform.sources.base import Progress, Source
from taxi_platform.trips.errors import DamagedRaw, LakeError, NotPublished, SourceRefused, SourceUnavailable
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.trips.publication import Publication

PUBLISHED_FILE_STAYS = (
    "The lake has this month as published, and sample:// would replace it with a synthetic one. "
    "Set TAXI_SOURCE_URL to a real source, or use force."
)


@dataclass(frozen=True)
class Fetched:
    """The month's current raw file. `warning` says why an older file is used instead of the source's.

    `set_aside` is the source's version, if it looks wrong and was set aside.
    """

    raw: RawVersion
    uri: str
    previous: RawVersion | None
    unchanged: bool
    warning: str | None = None
    set_aside: SetAside | None = None


@retry_on_conflict
def fetch(
    source: Source,
    lake: Lake,
    dataset_month: DatasetMonth,
    home: Path,
    force: bool = False,
    use_lake_copy: bool = False,
    judge: bool = False,
    progress: Progress = lambda done, total: None,
    say: Say = no_message,
) -> Fetched:
    """Bring the lake's current raw file up to date with what the source publishes now.

    `use_lake_copy` takes the file in the lake and does not ask the source. `judge` sets a version aside that looks
    wrong; the month stays as it was, also with `force`. `home` is where work in progress goes.
    If the source cannot be reached, or no longer has the month, the file in the lake is used, with a warning. Raises
    `NotPublished`, what the source raises, `LakeError`, or `LooksWrong` if the lake has no version but one set aside.
    """
    with lake.lock(dataset_month):
        month = LakeMonth(lake, dataset_month)
        manifest = month.manifest()
        raw = manifest.current
        in_lake = raw is not None and month.has_raw(raw)
        if raw and not in_lake:
            say(f"{lake.uri(raw.key)} is missing or damaged.")
        # A restored file that is missing is reported: what the source offers is what somebody replaced on purpose.
        if use_lake_copy or (raw and raw.instead_of and not in_lake):
            return _lake_copy(month, raw, in_lake)
        try:
            return _fetch_if_new(source, month, manifest, in_lake, home, force, judge, progress, say)
        except (SourceUnavailable, NotPublished) as error:
            if raw is None or not in_lake or force:
                raise
            return Fetched(raw, lake.uri(raw.key), raw, unchanged=True, warning=str(error))


def _lake_copy(month: LakeMonth, raw: RawVersion | None, in_lake: bool) -> Fetched:
    if raw is None:
        raise LakeError(
            f"The lake has no raw file of {month.dataset_month}.", "Fetch it: materialize raw_file without `kept`."
        )
    uri = month.lake.uri(raw.key)
    if not in_lake:
        state = "damaged" if month.lake.stat(raw.key) else "missing"
        raise LakeError(f"{uri} is {state}.", f"Restore another one: taxi versions {month.dataset_month} lists them.")
    return Fetched(raw, uri, raw, unchanged=True)


def _fetch_if_new(
    source: Source,
    month: LakeMonth,
    manifest: Manifest,
    in_lake: bool,
    home: Path,
    force: bool,
    judge: bool,
    progress: Progress,
    say: Say,
) -> Fetched:
    """Ask the source, and fetch what it offers unless the lake has it; `in_lake` is about the current raw file."""
    dataset_month, lake, current = month.dataset_month, month.lake, manifest.current
    publication = source.stat(dataset_month)
    if publication is None:
        problem = f"{dataset_month} is not published at {source.address(dataset_month)}."
        raise NotPublished(problem, "Try again later, or choose an earlier month.")
    would_replace_published = current is not None and publication.is_synthetic and not current.publication.is_synthetic
    if would_replace_published and not in_lake and not force:
        raise SourceRefused(f"{dataset_month} cannot be fetched again.", PUBLISHED_FILE_STAYS)
    if judge and not force and (entry := _known_to_be_wrong(month, manifest, publication)):
        return _with_set_aside(month, current, entry, say)
    must_fetch = force or must_compare_month(manifest, publication, datetime.now(UTC))
    if current and in_lake and not must_fetch and current.is_of(publication):
        uri = lake.uri(current.key)
        if would_replace_published:
            return Fetched(current, uri, current, unchanged=True, warning=PUBLISHED_FILE_STAYS)
        was_set_aside = current.instead_of == publication.offer
        history = "set aside by a restore" if was_set_aside else f"fetched on {current.time[:10]}"
        say(f"{dataset_month}: the source still has the file that was {history}.")
        if manifest.pending and current.publication.offer == publication.offer:
            month.write_manifest(manifest.with_none_pending())
        return Fetched(current, uri, current, unchanged=True)
    if not force and (damage := known_damage(month, publication, current)):
        raise damage
    with work_folder(home, dataset_month) as folder:
        try:
            fetched = source.fetch(dataset_month, folder, progress)
        except DamagedRaw as error:
            note_damage(month, publication, error)
            raise
        if judge and (reasons := judge_fetched(fetched, manifest, dataset_month)):
            return _with_set_aside(month, current, month.set_aside(fetched, manifest, reasons), say)
        raw = month.publish_raw(fetched, manifest, overwrite=force)
    unchanged = current is not None and current.sha256 == raw.sha256
    if fetched.sha256 != raw.sha256:
        note = ", which a restore has set aside"
    else:
        note = ", the same as before" if unchanged else ""
    say(f"{dataset_month}: fetched {fetched.size:,} bytes, {fetched.rows:,} rows{note}.")
    return Fetched(raw, lake.uri(raw.key), current, unchanged)


def _known_to_be_wrong(month: LakeMonth, manifest: Manifest, publication: Publication) -> SetAside | None:
    """What was fetched from this publication, if it was set aside and is in the lake: it is not fetched again."""
    entry = manifest.set_aside_of(publication)
    if entry is None or must_compare(entry.raw, publication, datetime.now(UTC)):
        return None
    if month.lake.stat(entry.raw.key) is None:
        return None
    if not entry.pending:  # the source has gone back to it
        month.write_manifest(manifest.with_set_aside(entry.raw, entry.reasons))
    return entry


def _with_set_aside(month: LakeMonth, current: RawVersion | None, entry: SetAside, say: Say) -> Fetched:
    """The current raw file, which stays; raises `LooksWrong` if there is none."""
    if current is None:
        raise looks_wrong(entry, month.dataset_month)
    say(f"{month.dataset_month}: {stays_as_it_was(entry, month.dataset_month)}")
    return Fetched(current, month.lake.uri(current.key), current, unchanged=True, set_aside=entry)
