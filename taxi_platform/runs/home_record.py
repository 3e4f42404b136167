"""`home.json`: which versions of the platform have opened a home, so that an older one says so before it does anything.

It is written by whatever opens Dagster's instance: commands, the UI and runs. Homes of 0.1.0 have none.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from packaging.version import InvalidVersion, Version

from taxi_platform import __version__
from taxi_platform.runs.home import replace_file
from taxi_platform.trips.errors import DamagedFile, NewerFormat, UserError
from taxi_platform.trips.stored_json import dump, load, record

FILE = "home.json"
HOME_FORMAT = 1
"""What this version writes and can read. Raise it only if the version before would lose or misread something, which
ends the promise that a home can go back by one version."""
REMEMBERED = 20
"""Openings that are kept; two versions that take turns on one home would add to them for ever."""

log = logging.getLogger("taxi_platform")


@dataclass(frozen=True)
class Opening:
    """A version, and when it opened the home first since another one did (UTC)."""

    version: str
    time: str


@dataclass(frozen=True)
class HomeRecord:
    """The newest format that was written here, and the versions that opened the home, the latest last."""

    home_format: int = HOME_FORMAT
    opened: tuple[Opening, ...] = ()

    @property
    def last_version(self) -> str | None:
        return self.opened[-1].version if self.opened else None


def check_home(home: Path) -> HomeRecord:
    """The home's record, empty if there is none or it is damaged: it only informs.

    Raises `UserError` if a newer version wrote what this one cannot read.
    """
    path = home / FILE
    try:
        content = record(HomeRecord, load(path.read_bytes(), str(path), "record of a home", ""))
    except (OSError, DamagedFile, ValueError):
        return HomeRecord()
    except NewerFormat:
        raise _too_new(home, "a newer taxi_platform") from None
    if content.home_format > HOME_FORMAT:
        raise _too_new(home, f"taxi_platform {content.last_version or 'of a later date'}")
    return content


def record_version(home: Path) -> None:
    """Note that this version opens the home, and warn if a newer one did so last.

    Raises `UserError` as `check_home` does. A home that cannot be written is not noted.
    """
    stored = check_home(home)
    last = stored.last_version
    if last == __version__:
        return
    if last and _is_newer(last):
        log.warning(
            "%s was last opened by taxi_platform %s; this is %s. Its months can be read, and are ingested by the rules "
            "of %s (docs/upgrading.md).",
            home,
            last,
            __version__,
            __version__,
        )
    opening = Opening(__version__, datetime.now(UTC).isoformat(timespec="seconds"))
    updated = HomeRecord(stored.home_format, (*stored.opened, opening)[-REMEMBERED:])
    with suppress(OSError):
        home.mkdir(parents=True, exist_ok=True)
        replace_file(home / FILE, dump(asdict(updated)).encode())


def _is_newer(version: str) -> bool:
    try:
        return Version(version) > Version(__version__)
    except InvalidVersion:
        return False


def _too_new(home: Path, by: str) -> UserError:
    return UserError(
        f"{home} was written by {by}, whose homes taxi_platform {__version__} cannot read. Nothing was changed.",
        "Upgrade taxi_platform, or restore the backup that was made before the upgrade (docs/upgrading.md).",
    )
