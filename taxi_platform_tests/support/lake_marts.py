"""Marts in a lake without a warehouse, for tests of what reads them."""

from pathlib import Path

from taxi_platform.lake.base import Lake
from taxi_platform.lake.mart_month import MartMonth
from taxi_platform.lake.months import LakeMonth
from taxi_platform.marts.computing import MonthOfMarts
from taxi_platform.marts.quality import quality_rows
from taxi_platform.marts.tables import mart_names, mart_version
from taxi_platform.trips.engine import Engine
from taxi_platform.trips.months import DatasetMonth


def add_marts(lake: Lake, dataset_month: DatasetMonth, home: Path) -> None:
    """Compute the month's marts from its clean file, and publish them."""
    month, dataset = LakeMonth(lake, dataset_month), dataset_month.dataset
    version = month.footer().file_version
    of_month = MonthOfMarts(dataset_month, version, quality_rows(month.report(version)))
    with month.copies(version, home) as (clean, _):
        paths = of_month.compute(clean, home, Engine("512MB", 1))
    MartMonth(lake, dataset_month, mart_names(dataset), version, mart_version(dataset)).publish(paths)
