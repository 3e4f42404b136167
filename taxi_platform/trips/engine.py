"""What the cleaning engine may use, in a module of its own: it is configured where DuckDB is not imported."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Engine:
    """What the cleaning engine may use: memory in DuckDB's notation (`512MB`), and threads."""

    memory_limit: str = "512MB"
    threads: int = os.cpu_count() or 1


NOT_BY_STATISTICS = "statistics_propagation"
"""The optimizer to switch off where files are written. A published file's statistics may be wrong, and DuckDB omits
every test that they say cannot fail. It would also declare columns that happen to have no nulls as `NOT NULL`, so that
the schemas of two months differ."""
