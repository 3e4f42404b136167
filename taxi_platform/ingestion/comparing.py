"""Published files whose headers do not tell whether they have changed: they are fetched and compared by sha256.

A server that sends neither ETag nor Last-Modified leaves only the length, which a corrected file may share.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from taxi_platform.lake.manifest import Manifest, RawVersion
from taxi_platform.trips.publication import Publication

COMPARE_EVERY = timedelta(days=30)
"""How long a comparison is trusted. The TLC corrected files on ten days in four years, and the largest have 500 MB."""


def must_compare(raw: RawVersion, offered: Publication, now: datetime) -> bool:
    """Whether the offered file has to be fetched to see whether it still is `raw`.

    Each comparison renews `raw.time`. A restored file is left alone: fetching would bring back the file that it
    replaced. `now` has a time zone.
    """
    if not offered.is_weak or raw.instead_of or not raw.is_of(offered):
        return False
    try:
        fetched = datetime.fromisoformat(raw.time)
    except ValueError:
        return True
    if fetched.tzinfo is None:
        fetched = fetched.replace(tzinfo=UTC)
    # Also where it lies ahead, because the clock was wrong once: otherwise the month would not be compared for years.
    return abs(now - fetched) > COMPARE_EVERY


def must_compare_month(manifest: Manifest, offered: Publication, now: datetime) -> bool:
    """The same for a month: the file that was fetched last from this publication may be one that is set aside."""
    pending = manifest.pending
    fetched_last = pending.raw if pending and pending.raw.is_of(offered) else manifest.current
    return fetched_last is not None and must_compare(fetched_last, offered, now)
