"""The report on one cleaning, published beside the clean file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

ROWS_FOR_SHARES = 10_000
"""In smaller months shares vary too much to be compared."""


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
    """Reason, followed by the column at fault if there is one (`invalid_value trip_distance`) → rows."""
    suspicious: dict[str, int] = field(default_factory=dict)
    """Rule → clean rows that it applies to."""
    unknown_columns: tuple[str, ...] = ()
    missing_columns: tuple[str, ...] = ()
    trips_per_day: dict[str, int] = field(default_factory=dict)
    """Day of the pick-up (`2021-01-31`) → clean trips; days outside the month are omitted."""

    def to_json(self) -> str:
        """The report as it is stored in the lake."""
        return json.dumps(asdict(self), indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Report:
        """Read a stored report; JSON has no tuples, so lists become tuples again."""
        fields = json.loads(text)
        for name in ("reject", "unknown_columns", "missing_columns"):
            fields[name] = tuple(fields[name])
        return cls(**fields)

    @property
    def share_rejected(self) -> float:
        """Rejected rows as a share of the rows read, 0 to 1."""
        return self.rows_rejected / self.rows_read if self.rows_read else 0.0

    def unusual(self, usual_share: Mapping[str, float]) -> dict[str, float]:
        """Rule → share of the clean rows, for rules above their usual share; empty below 10,000 clean rows."""
        if self.rows_clean < ROWS_FOR_SHARES:
            return {}
        shares = {rule: rows / self.rows_clean for rule, rows in self.suspicious.items()}
        return {rule: share for rule, share in shares.items() if share > usual_share.get(rule, 1)}
