"""Clean: bring the lake's clean file up to date with the current raw file, the contract and the reject rules."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from taxi_platform.ingestion.common import Say, no_message, retry_on_conflict
from taxi_platform.ingestion.judging import judge_cleaned, looks_wrong, stays_as_it_was
from taxi_platform.ingestion.work_folder import work_folder
from taxi_platform.lake.base import Lake
from taxi_platform.lake.manifest import Manifest, RawVersion
from taxi_platform.lake.months import CleanFooter, LakeMonth
from taxi_platform.trips.contract import contract_of
from taxi_platform.trips.engine import Engine
from taxi_platform.trips.errors import AlteredRaw, DamagedFile, LakeError
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.trips.report import Report

FIRST_ROWS = 8


@dataclass(frozen=True)
class Cleaned:
    """The month's clean file, its rejected rows, and the report of its cleaning.

    `first_rows` are those of both files, by key, read here before they were stored; empty for an unchanged month.
    """

    month: LakeMonth
    raw: RawVersion
    footer: CleanFooter
    report: Report
    unchanged: bool
    first_rows: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def clean_key(self) -> str:
        return self.month.clean_key

    @property
    def rejected_key(self) -> str:
        return self.month.rejected_key(self.footer.file_version)


@retry_on_conflict
def clean(
    lake: Lake,
    dataset_month: DatasetMonth,
    home: Path,
    engine: Engine,
    reject: Sequence[str] = (),
    force: bool = False,
    judge: bool = False,
    say: Say = no_message,
) -> Cleaned:
    """Bring the lake's clean file up to date with the current raw file, the contract and the rules in `reject`.

    `force` cleans again, and publishes a month that is empty or mostly rejected. `judge` sets a new raw file aside if
    its pick-ups lie outside of the month, and cleans the one before it. Raises `LakeError`, `DamagedFile`, what the
    cleaner raises, or `LooksWrong` if there is no raw file before it.
    """
    contract = contract_of(dataset_month.dataset)
    rules = contract.check_rules(reject)
    with lake.lock(dataset_month):
        month = LakeMonth(lake, dataset_month)
        cleaned = None
        while cleaned is None:
            cleaned = _clean_current(month, home, engine, rules, force, judge, say)
        say(f"{dataset_month}: {cleaned.report.rows_clean:,} rows clean, {cleaned.report.rows_rejected:,} rejected.")
        return cleaned


def _clean_current(
    month: LakeMonth, home: Path, engine: Engine, rules: Sequence[str], force: bool, judge: bool, say: Say
) -> Cleaned | None:
    """Clean the current raw file; None if it was set aside, so that another one is current."""
    lake, dataset_month = month.lake, month.dataset_month
    manifest = month.manifest()
    raw = manifest.current
    if raw is None:
        raise LakeError(f"The lake has no raw file of {dataset_month}.", "Materialize its raw_file first.")
    version = contract_of(dataset_month.dataset).file_version(raw.sha256, rules)
    footer, object_version = month.read_clean()
    complete = month.is_complete(footer, version) and not force
    report = _intact_report(month, footer, home, say) if footer and complete else None
    if footer and report:
        say(f"{dataset_month}: the clean file is already version {version}.")
        return Cleaned(month, raw, footer, report, unchanged=True)
    from taxi_platform.trips.cleaning import Cleaner, CleaningInput  # which an unchanged month does not need

    is_new = footer is None or footer.raw_sha256 != raw.sha256
    with work_folder(home, dataset_month) as folder, lake.local_copy(raw.key, folder) as path:
        _check_content(path, raw, lake.uri(raw.key))
        raw_file = CleaningInput(dataset_month, path, raw.sha256, raw.rows, raw.plain)
        output = Cleaner(raw_file, folder, rules, engine).clean(force)
        if judge and is_new and (reasons := judge_cleaned(output.report, raw, manifest, footer, dataset_month)):
            _set_aside(month, manifest, raw, reasons, say)
            return None
        files = {month.clean_key: output.trips, month.rejected_key(version): output.rejected}
        rows = {key: first_rows(file) for key, file in files.items()}  # now, as the lake may move the files
        footer = month.publish_clean(output, replaces=object_version)
    return Cleaned(month, raw, footer, output.report, unchanged=False, first_rows=rows)


def first_rows(file: Path | IO[bytes]) -> list[dict[str, Any]]:
    """The first rows of a Parquet file."""
    import pyarrow.parquet as pq

    batch = next(pq.ParquetFile(file).iter_batches(batch_size=FIRST_ROWS), None)
    return batch.to_pylist() if batch is not None else []


def _set_aside(month: LakeMonth, manifest: Manifest, raw: RawVersion, reasons: Sequence[str], say: Say) -> None:
    """Make the raw file before this one current again; raises `LooksWrong` if there is none."""
    updated = manifest.with_set_aside(raw, reasons)
    month.write_manifest(updated)
    if updated.current is None:
        raise looks_wrong(updated.set_aside[-1], month.dataset_month)
    say(f"{month.dataset_month}: {stays_as_it_was(updated.set_aside[-1], month.dataset_month)}")


def _intact_report(month: LakeMonth, footer: CleanFooter, home: Path, say: Say) -> Report | None:
    """The report of a month whose files are what was stored; None, and why, if they have to be made again."""
    try:
        report = month.check_files(footer)
        with work_folder(home, month.dataset_month) as folder:
            month.add_checksums(footer.file_version, folder)
        return report
    except DamagedFile as damage:
        say(f"{damage.problem} The month is cleaned again.")
        return None


def _check_content(path: Path, raw: RawVersion, uri: str) -> None:
    """Raise `AlteredRaw` if a raw file is no longer the one that was fetched."""
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != raw.sha256:
            raise AlteredRaw(
                f"{uri} is not the file that was fetched on {raw.time[:10]}.",
                "Delete it, and materialize the month's raw_file again.",
            )
