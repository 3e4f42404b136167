"""A raw file that turns out to be damaged when it is cleaned is fetched again, once, in the same run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from taxi_platform.ingestion.clean import Cleaned, clean
from taxi_platform.ingestion.common import Say, no_message, retry_on_conflict
from taxi_platform.ingestion.judging import judge_fetched, looks_wrong
from taxi_platform.ingestion.known_damage import known_damage, note_damage
from taxi_platform.ingestion.work_folder import work_folder
from taxi_platform.lake.base import Lake
from taxi_platform.lake.months import LakeMonth
from taxi_platform.sources.base import Source
from taxi_platform.trips.engine import Engine
from taxi_platform.trips.errors import AlteredRaw, DamagedRaw, SourceRefused, SourceUnavailable
from taxi_platform.trips.months import DatasetMonth


def clean_or_fetch_again(
    source: Source,
    lake: Lake,
    dataset_month: DatasetMonth,
    home: Path,
    engine: Engine,
    reject: Sequence[str] = (),
    force: bool = False,
    judge: bool = False,
    say: Say = no_message,
) -> Cleaned:
    """Like `clean`; a raw file that is damaged is fetched again first.

    Raises `DamagedRaw` if the source has the same file, and remembers that.
    """
    try:
        return clean(lake, dataset_month, home, engine, reject, force, judge, say)
    except DamagedRaw as damage:
        say(f"{damage} It is fetched again.")
        fetch_again(source, lake, dataset_month, home, damage, force, judge)
    return clean(lake, dataset_month, home, engine, reject, force, judge, say)


@retry_on_conflict
def fetch_again(
    source: Source,
    lake: Lake,
    dataset_month: DatasetMonth,
    home: Path,
    damage: DamagedRaw,
    force: bool = False,
    judge: bool = False,
) -> None:
    """Replace the lake's damaged raw file by what the source has now; raises `DamagedRaw` if that is the same.

    A restored file is left alone: the source has the one that it replaced. `judge` sets a file aside that looks wrong,
    and raises `DamagedRaw`.
    """
    with lake.lock(dataset_month):
        month = LakeMonth(lake, dataset_month)
        manifest = month.manifest()
        current = manifest.current
        if current is None or current.instead_of:
            raise damage
        try:
            offered = source.stat(dataset_month)
            if offered is None or (offered.is_synthetic and not current.publication.is_synthetic):
                raise DamagedRaw(f"{damage.problem} The source does not have the file.", damage.remedy)
            if not force and (known := known_damage(month, offered, current)):
                raise known
            with work_folder(home, dataset_month) as folder:
                fetched = source.fetch(dataset_month, folder)
                if judge and (reasons := judge_fetched(fetched, manifest, dataset_month)):
                    entry = month.set_aside(fetched, manifest, reasons)
                    raise DamagedRaw(f"{damage.problem} {looks_wrong(entry, dataset_month)}", damage.remedy)
                if fetched.sha256 != current.sha256 or isinstance(damage, AlteredRaw):
                    month.publish_raw(fetched, manifest, overwrite=True)
                    return
        except (SourceUnavailable, SourceRefused) as error:
            raise type(error)(f"{damage.problem} It cannot be fetched again: {error.problem}", error.remedy) from error
        same = DamagedRaw(
            f"{damage.problem} Fetched again, it has the same sha256: the published file itself is damaged.",
            "Tell the publisher. It is fetched again once the source has another version, or with --force.",
        )
        note_damage(month, offered, same, current.sha256)
        raise same
