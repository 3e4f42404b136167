"""The report on one cleaning, published beside the clean file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from taxi_platform.trips.errors import DamagedFile
from taxi_platform.trips.stored_json import load, record

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
        """The report as it is stored in the lake.

        Without a number, which means format 1: the first version of the platform refuses any field that it does not
        know. Its digest is in the month's checksums.
        """
        return json.dumps(asdict(self), indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes, name: str = "The text", remedy: str = "") -> Report:
        """Read a stored report; raises `DamagedFile` with `remedy`, or `NewerFormat`."""
        try:
            report = record(cls, load(text, name, "report", remedy))
            if report.rows_read != report.rows_clean + report.rows_rejected:
                raise ValueError("its rows do not add up")
        except ValueError as error:
            raise DamagedFile(f"{name} is not a report: {error}.", remedy) from error
        return report

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
