"""The errors that users see. Each says what went wrong and where, and how to fix it.

A `TransientError` may go away by itself, so the run tries again. Any other `TaxiError` needs somebody to act.
"""

from __future__ import annotations

from taxi_platform.trips.text import printable


class TaxiError(Exception):
    """A failure that a user can understand: `problem` says what happened, `remedy` what to do."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = printable(problem)
        self.remedy = printable(remedy)
        super().__init__(f"{self.problem} {self.remedy}".strip())


class TransientError(TaxiError):
    """May succeed when tried again: a busy server, a lock held for too long, a lost connection."""


class UserError(TaxiError):
    """The request is wrong: a setting, a dataset, a month."""


class SettingError(UserError):
    """An environment variable has an invalid value."""


class NotPublished(TaxiError):
    """The source does not have this month, or not yet."""


class SourceUnavailable(TransientError):
    """The source did not respond, or responded that it is busy."""


class SourceRefused(TaxiError):
    """The source will not serve the file: access forbidden, address blocked, too many redirects."""


class NotData(TaxiError):
    """The bytes are not trips: an HTML page, an empty file, a truncated or corrupt archive, too many bytes."""


class ContractError(TaxiError):
    """The file is readable, but its columns cannot be mapped to the contract."""


class TooManyRejected(TaxiError):
    """More than half of the rows would be rejected: the file or the contract is wrong."""


class LooksWrong(TaxiError):
    """The only version of a month is not one that the month can have: it is set aside, and nothing is published."""


class IntegrityError(TaxiError):
    """Counts or contents that must be equal are not."""


class DamagedRaw(NotData, IntegrityError):
    """A file of trips is damaged: at its source, on the way, or in the lake. Fetching it again may help."""


class LakeError(TaxiError):
    """The lake cannot be read or written."""


class DamagedFile(LakeError, IntegrityError):
    """A file in the lake is not what was stored: lost, cut, altered, or unreadable. The next run makes it again."""


class AlteredRaw(DamagedRaw, DamagedFile):
    """A raw file in the lake is not the one that was fetched."""


class NewerFormat(LakeError):
    """A file was stored by a newer version of the platform, which alone knows what it means."""


class LakeBusy(LakeError, TransientError):
    """The lake does not respond, or responds that it is busy."""


class WarehouseError(TaxiError):
    """The warehouse cannot be read or written."""


class WarehouseBusy(WarehouseError, TransientError):
    """The warehouse does not respond, or another process holds a lock on it."""


class WarehouseLocked(WarehouseBusy):
    """Another program or load holds the warehouse's file, and this caller does not wait for long."""


class DatabaseUnavailable(TransientError):
    """Dagster's database does not respond, or refuses the connection."""


class Conflict(TransientError):
    """Another run published the same month first. Starting over sees the new state."""
