"""What a run has read and compared, so that its later steps need not do so once more.

Of a month that it cleaned or found intact: footer, report and checksums. Of a month that was unchanged: its tables.
"""

from __future__ import annotations

from typing import Any

from taxi_platform.lake.base import Lake
from taxi_platform.lake.clean_month import CleanFooter
from taxi_platform.lake.months import LakeMonth
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.trips.report import Report

_compared: dict[tuple[str, str, DatasetMonth], tuple[str, CleanFooter, Any]] = {}
"""Step, warehouse and month → the run of this process that compared its tables, the clean file, and what they hold."""


def note_comparison(
    step: str, run: str, warehouse_url: str, dataset_month: DatasetMonth, footer: CleanFooter, result: Any
) -> None:
    """Remember that a step of `run` compared its tables with the month's files, by every value, and all were equal."""
    _compared[step, warehouse_url, dataset_month] = run, footer, result


def take_comparison(
    step: str, run: str, warehouse_url: str, dataset_month: DatasetMonth
) -> tuple[CleanFooter, Any] | None:
    """What that step of the same run compared, once; None if it did not, or not in this process."""
    noted = _compared.pop((step, warehouse_url, dataset_month), None)
    return noted[1:] if noted and run and noted[0] == run else None


_cleaned: dict[str, tuple[LakeMonth, CleanFooter, Report]] = {}
"""The latest run of this process that cleaned a month or found it intact, and what it then knew of the month."""


def note_cleaned(run: str, month: LakeMonth, footer: CleanFooter, report: Report) -> None:
    """Remember what the cleaning of `run` published, or compared with its checksums."""
    _cleaned.clear()
    _cleaned[run] = month, footer, report


def cleaned_by(run: str, lake: Lake, dataset_month: DatasetMonth) -> tuple[LakeMonth, CleanFooter, Report] | None:
    """What the cleaning of the same run noted; None if it did not, or not in this process.

    The file may have been replaced since: whoever uses this has to look at its version afterwards.
    """
    noted = _cleaned.get(run) if run else None
    if noted is None or (noted[0].lake.url, noted[0].dataset_month) != (lake.url, dataset_month):
        return None
    return noted


def forget_cleaned() -> None:
    """Forget what cleaning noted, because another run has cleaned the month since."""
    _cleaned.clear()


def is_same_clean_file(lake: Lake, dataset_month: DatasetMonth, footer: CleanFooter) -> bool:
    """Whether the month's clean file is still the one whose footer was read."""
    stored = lake.stat(LakeMonth(lake, dataset_month).clean_key)
    return stored is not None and stored.version == footer.object_version
