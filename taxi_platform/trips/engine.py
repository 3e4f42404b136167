"""What the cleaning engine may use, in a module of its own: it is configured where DuckDB is not imported."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Engine:
    """What the cleaning engine may use: memory in DuckDB's notation (`512MB`), and threads."""

    memory_limit: str = "512MB"
    threads: int = os.cpu_count() or 1
