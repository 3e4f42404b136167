"""What the assets of a dataset have in common: key, group, owner and tags; and the kinds that name their backends."""

from __future__ import annotations

from typing import Any

import dagster as dg

from taxi_platform.assets.names import DATASET_TAG
from taxi_platform.trips.months import Dataset

OWNER = "team:taxi-platform"
WAREHOUSE_KINDS = {"duckdb": "duckdb", "bigquery": "bigquery", "postgresql": "postgres", "postgres": "postgres"}
SOURCE_FORMATS = {"tlc://": "parquet", "course://": "csv", "sample://": "csv", ".parquet": "parquet", ".csv": "csv"}
"""Part of the source's URL → the format of its files."""


def asset_key(dataset: Dataset, name: str) -> dg.AssetKey:
    return dg.AssetKey([dataset.value, name])


def dataset_attributes(dataset: Dataset) -> dict[str, Any]:
    """The arguments that every asset of a dataset passes to Dagster."""
    return {"group_name": dataset.value, "owners": [OWNER], "tags": {DATASET_TAG: dataset.value}}


def lake_kind(lake_url: str) -> str:
    return "gcs" if lake_url.startswith("gs://") else "file"


def raw_file_kinds(lake_url: str, source_url: str) -> set[str]:
    """Where raw files lie, and their format if the source's URL tells it."""
    formats = [kind for part, kind in SOURCE_FORMATS.items() if part in source_url]
    return {lake_kind(lake_url), *formats[:1]}


def table_kinds(warehouse_url: str) -> set[str]:
    return {"table", WAREHOUSE_KINDS[warehouse_url.partition("://")[0]]}
