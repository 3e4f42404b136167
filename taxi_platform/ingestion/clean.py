"""Clean: bring the lake's clean file up to date with the current raw file, the contract and the reject rules."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from taxi_platform.ingestion.common import Say, no_message, retry_on_conflict
from taxi_platform.ingestion.work_folder import work_folder
from taxi_platform.lake.base import Lake
from taxi_platform.lake.manifest import RawVersion
from taxi_platform.lake.months import CleanFooter, LakeMonth
from taxi_platform.trips.cleaning import Cleaner, CleaningInput, Engine
from taxi_platform.trips.contract import contract_of
from taxi_platform.trips.errors import AlteredRaw, LakeError
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.trips.report import Report


@dataclass(frozen=True)
class Cleaned:
    """The month's clean file, its rejected rows, and the report of its cleaning."""

    month: LakeMonth
    raw: RawVersion
    footer: CleanFooter
    report: Report
    unchanged: bool

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
    say: Say = no_message,
) -> Cleaned:
    """Bring the lake's clean file up to date with the current raw file, the contract and the rules in `reject`.

    `force` cleans again, and publishes a month that is empty or mostly rejected. Raises `LakeError`, `IntegrityError`
    or what the cleaner raises.
    """
    contract = contract_of(dataset_month.dataset)
    rules = contract.check_rules(reject)
    with lake.lock(dataset_month):
        month = LakeMonth(lake, dataset_month)
        raw = month.current_raw()
        if raw is None:
            raise LakeError(f"The lake has no raw file of {dataset_month}.", "Materialize its raw_file first.")
        version = contract.file_version(raw.sha256, rules)
        footer, object_version = month.read_clean()
        report = month.report(version) if month.is_complete(footer, version) and not force else None
        if footer and report:
            say(f"{dataset_month}: the clean file is already version {version}.")
            cleaned = Cleaned(month, raw, footer, report, unchanged=True)
        else:
            with work_folder(home, dataset_month) as folder, lake.local_copy(raw.key, folder) as path:
                _check_content(path, raw, lake.uri(raw.key))
                raw_file = CleaningInput(dataset_month, path, raw.sha256, raw.rows, raw.plain)
                output = Cleaner(raw_file, folder, rules, engine).clean(force)
                footer = month.publish_clean(output, replaces=object_version)
            cleaned = Cleaned(month, raw, footer, output.report, unchanged=False)
        say(f"{dataset_month}: {cleaned.report.rows_clean:,} rows clean, {cleaned.report.rows_rejected:,} rejected.")
        return cleaned


def _check_content(path: Path, raw: RawVersion, uri: str) -> None:
    """Raise `AlteredRaw` if a raw file is no longer the one that was fetched."""
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != raw.sha256:
            raise AlteredRaw(
                f"{uri} is not the file that was fetched on {raw.time[:10]}.",
                "Delete it, and materialize the month's raw_file again.",
            )
