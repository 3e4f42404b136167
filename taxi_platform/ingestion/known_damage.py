"""What the lake remembers of published files that are damaged, so that no tick downloads them again and again.

That holds for the version that the source offers until it offers another one, somebody forces a fetch, or this platform
reads files otherwise.
"""

from __future__ import annotations

from datetime import UTC, datetime

from taxi_platform.ingestion.comparing import COMPARE_EVERY
from taxi_platform.lake.manifest import RawVersion
from taxi_platform.lake.months import CleanFooter, LakeMonth
from taxi_platform.trips.contract import contract_of
from taxi_platform.trips.errors import DamagedRaw, LakeBusy, LakeError
from taxi_platform.trips.publication import Publication
from taxi_platform.trips.stored_json import dump, load

FILE_NAME = "damaged.json"
"""Beside the manifest."""


def note_damage(month: LakeMonth, offered: Publication, damage: DamagedRaw, sha256: str | None = None) -> None:
    """Remember that the source's file is damaged; `sha256` if it is a raw file of the lake nevertheless."""
    note = {
        "offer": offered.offer,
        "sha256": sha256,
        "contract_version": _contract_version(month),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "problem": damage.problem,
    }
    month.lake.write(month.raw_prefix + FILE_NAME, dump(note).encode())


def damage_ahead(
    month: LakeMonth, raw: RawVersion | None, clean: CleanFooter | None, published: Publication | None
) -> DamagedRaw | None:
    """What is known to be wrong with the file that a run would have to fetch or to clean; None if nothing is.

    `published` is None if the source was not asked.
    """
    offered = published or (raw.publication if raw else None)
    is_clean = raw and clean and clean.raw_sha256 == raw.sha256 and offered and raw.is_of(offered)
    return known_damage(month, offered, raw) if offered and not is_clean else None


def known_damage(month: LakeMonth, offered: Publication, current: RawVersion | None) -> DamagedRaw | None:
    """The error for a file that is known to be damaged at its source; None for any other. `current` is the raw file."""
    try:
        stored = month.lake.read(month.raw_prefix + FILE_NAME)
        note = load(stored[0], FILE_NAME, "note of damage", "") if stored else {}
        if (note["offer"], note["contract_version"]) != (offered.offer, _contract_version(month)):
            return None
        sha256, problem, time = note.get("sha256"), str(note["problem"]), datetime.fromisoformat(note["time"])
        # A server that tells nothing but the length may have corrected the file.
        is_old = offered.is_weak and datetime.now(UTC) - time > COMPARE_EVERY
    except LakeBusy:
        raise
    except (LakeError, LookupError, ValueError, TypeError, AttributeError):
        return None  # the note only saves work
    is_replaced = current is not None and current.publication.offer == offered.offer and current.sha256 != sha256
    if is_old or is_replaced:
        return None
    return DamagedRaw(
        f"{problem} Seen on {time:%Y-%m-%d}; it is not fetched again until the source has another version.",
        f"Tell the publisher, or run taxi ingest {month.dataset_month} --force.",
    )


def _contract_version(month: LakeMonth) -> str:
    return contract_of(month.dataset_month.dataset).version
