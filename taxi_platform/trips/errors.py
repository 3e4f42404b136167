"""Errors as types: every one says what went wrong and where, and what to do about it.

Two families matter to whoever runs the work: a `TransientError` may go away by itself and is worth another try,
any other `TaxiError` stays until somebody acts.
"""

from __future__ import annotations


class TaxiError(Exception):
    """A failure a user can understand: one sentence on what happened, one on the remedy."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem} {remedy}".strip())


class TransientError(TaxiError):
    """May succeed when tried again: a busy server, a lock held for long, a connection cut."""


class UserError(TaxiError):
    """The request itself is wrong: a setting, a dataset, a month."""


class SettingError(UserError):
    """An environment variable holds something it does not take."""


class NotPublished(TaxiError):
    """The source does not have this month (yet)."""


class SourceUnavailable(TransientError):
    """The source did not answer, or answered that it is busy."""


class SourceRefused(TaxiError):
    """The source answered, and its answer is final (forbidden, blocked address, too many redirects)."""


class NotData(TaxiError):
    """The bytes are not trips: an HTML page, an empty file, a cut or corrupt archive, too many bytes."""


class ContractError(TaxiError):
    """The file is readable, but its columns cannot be mapped onto the contract."""


class TooManyRejected(TaxiError):
    """More than half of the rows would be rejected: something is wrong with the file or the contract."""


class IntegrityError(TaxiError):
    """Counts or contents that must agree do not."""


class LakeError(TaxiError):
    """The lake cannot be read or written."""


class LakeBusy(LakeError, TransientError):
    """The lake does not answer, or answers that it is busy."""


class WarehouseError(TaxiError):
    """The warehouse cannot be read or written."""


class WarehouseBusy(WarehouseError, TransientError):
    """Another program holds the warehouse."""


class WarehouseLocked(WarehouseBusy):
    """Another program or load holds the warehouse's file, and this caller does not wait for long."""


class Conflict(TransientError):
    """Somebody else published the same month first; starting over finds the new state."""
