"""Changes that prepare a lake or a warehouse: `taxi bootstrap` applies them, `taxi doctor` only lists them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Change:
    """One thing that must exist, such as a bucket or a table."""

    what: str
    needed: bool
    """False where it already exists."""
    apply: Callable[[], object]
    """Creates it; does no harm when it already exists."""
