"""What one cleaning found, as a value that is published beside the clean file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Report:
    """Counts of one cleaned month. `rows_read == rows_clean + rows_rejected` always holds."""

    dataset: str
    month: str
    file_version: str
    raw_sha256: str
    contract_version: str
    reject: tuple[str, ...]
    format: str
    rows_read: int
    rows_clean: int
    rows_rejected: int
    rejected_by_reason: dict[str, int] = field(default_factory=dict)
    """Reason, with the column where one is at fault (`invalid_value trip_distance`), → rows."""
    suspicious: dict[str, int] = field(default_factory=dict)
    """Rule → clean rows that look odd under it."""
    unknown_columns: tuple[str, ...] = ()
    missing_columns: tuple[str, ...] = ()
    trips_per_day: dict[str, int] = field(default_factory=dict)
    """Day (2021-01-31) of the pick-up → clean trips; days outside the month are left out."""

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Report:
        data = json.loads(text)
        tuples = {name: tuple(data[name]) for name in ("reject", "unknown_columns", "missing_columns")}
        return cls(**{**data, **tuples})

    @property
    def share_rejected(self) -> float:
        return self.rows_rejected / self.rows_read if self.rows_read else 0.0

    def unusual(self, usual_share: Mapping[str, float]) -> dict[str, float]:
        """Rule → share of the clean rows, where it is larger than usual. Under 10,000 rows a share says little."""
        if self.rows_clean < 10_000:
            return {}
        shares = {rule: rows / self.rows_clean for rule, rows in self.suspicious.items()}
        return {rule: share for rule, share in shares.items() if share > usual_share.get(rule, 1)}
