"""Published tables as BigQuery's API describes them."""

from __future__ import annotations

from typing import Any

from google.cloud import bigquery as bq

from taxi_platform.trips.column_types import COLUMN_TYPES
from taxi_platform.trips.contract import Column
from taxi_platform.warehouse.tables import Table

LABELS = {"application": "taxi-platform"}

SQL_SPELLINGS = {kind.bigquery_api: kind.bigquery_sql for kind in COLUMN_TYPES.values() if kind.precision is None}
"""BigQuery's API and its SQL spell some types differently: the API's → SQL's."""


def described(table: Table, dataset: bq.DatasetReference) -> bq.Table:
    """A published table with its schema, descriptions, partitioning and clustering."""
    fields = [_field(column) for column in table.columns]
    description = bq.Table(dataset.table(table.name), schema=fields)
    description.description, description.labels = table.description, LABELS
    if table.by_month:
        description.time_partitioning = bq.TimePartitioning(type_=bq.TimePartitioningType.MONTH, field="file_month")
    if table.by_month and not table.small:
        names = {column.name for column in table.columns}
        by_reason = "reason" in names
        description.clustering_fields = ["reason"] if by_reason else ["pickup_datetime", "pickup_location_id"]
    return description


def _field(column: Column) -> bq.SchemaField:
    column_type = column.column_type
    limits: dict[str, Any] = {"precision": column_type.precision, "scale": column_type.scale}
    if column_type.precision is None:
        limits = {}
    return bq.SchemaField(column.name, column_type.bigquery_api, description=column.description, **limits)


def sql_type(field: bq.SchemaField) -> str:
    """A column's type as BigQuery's SQL spells it: `NUMERIC(10,2)`."""
    name = SQL_SPELLINGS.get(field.field_type, field.field_type)
    return f"{name}({field.precision},{field.scale or 0})" if field.precision else name
