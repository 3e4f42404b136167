"""What has to be there before a month can land: the same plan is printed, checked and applied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Change:
    """One thing that shall be there: `needed` unless it is, made by `apply`, which may be called again."""

    what: str
    needed: bool
    apply: Callable[[], object]
