"""A home with a few sample months, their marts and `trips.duckdb`, as `make demo` leaves one, but without runs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from taxi_platform.ingestion import steps
from taxi_platform.ingestion.views import refresh_views
from taxi_platform.lake import open_lake
from taxi_platform.lake.base import Lake
from taxi_platform.sources import open_source
from taxi_platform.trips.engine import Engine
from taxi_platform.trips.months import DatasetMonth
from taxi_platform_tests.support.lake_marts import add_marts


def make_sample_home(home: Path, dataset_months: Iterable[DatasetMonth], rows: int = 600) -> Lake:
    """Fetch and clean the months into `home`, without a warehouse; returns the lake."""
    lake, source = open_lake((home / "lake").as_uri()), open_source(f"sample://?rows={rows}")
    for dataset_month in dataset_months:
        steps.fetch(source, lake, dataset_month, home)
        steps.clean(lake, dataset_month, home, Engine("512MB", 1))
        add_marts(lake, dataset_month, home)
    refresh_views(lake, home)
    return lake
