"""Published tables as BigQuery's API describes them."""

from __future__ import annotations

from google.cloud import bigquery as bq

from taxi_platform.warehouse.tables import Table

LABELS = {"application": "taxi-platform"}

API_SPELLINGS = {"INTEGER": "INT64", "FLOAT": "FLOAT64"}
"""Types that BigQuery's API and its SQL spell differently: the API's → SQL's."""


def described(table: Table, dataset: bq.DatasetReference) -> bq.Table:
    """A published table with its schema, descriptions, partitioning and clustering."""
    fields = [
        bq.SchemaField(
            column.name,
            column.column_type.bigquery_api,
            description=column.description,
            precision=column.column_type.precision,
            scale=column.column_type.scale,
        )
        for column in table.columns
    ]
    description = bq.Table(dataset.table(table.name), schema=fields)
    description.description, description.labels = table.description, LABELS
    if table.by_month:
        description.time_partitioning = bq.TimePartitioning(type_=bq.TimePartitioningType.MONTH, field="file_month")
        names = {column.name for column in table.columns}
        has_reason = "reason" in names
        description.clustering_fields = ["reason"] if has_reason else ["pickup_datetime", "pickup_location_id"]
    return description


def sql_type(field: bq.SchemaField) -> str:
    """A column's type as BigQuery's SQL spells it: `NUMERIC(10,2)`."""
    name = API_SPELLINGS.get(field.field_type, field.field_type)
    return f"{name}({field.precision},{field.scale or 0})" if field.precision else name
