"""Published tables as BigQuery is told of them, and the Parquet files it takes for them without converting anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from google.cloud import bigquery as bq

from taxi_platform.trips.contract import Column
from taxi_platform.trips.errors import IntegrityError
from taxi_platform.warehouse.base import Table

LABELS = {"application": "taxi-platform"}

TYPES = {"D": "DATETIME", "I": "INTEGER", "F": "FLOAT", "M": "NUMERIC", "S": "STRING", "DATE": "DATE"}
"""As the API spells them."""

ARROW_TYPES = {
    "D": "timestamp[us]",
    "I": "int64",
    "F": "double",
    "M": "decimal128(10, 2)",
    "S": "string",
    "DATE": "date32[day]",
}


def described(table: Table, dataset: bq.DatasetReference) -> bq.Table:
    """A published table as BigQuery is told of it."""

    def field(column: Column) -> bq.SchemaField:
        money: dict[str, Any] = {"precision": 10, "scale": 2} if column.type == "M" else {}
        return bq.SchemaField(column.name, TYPES[column.type], description=column.description, **money)

    found = bq.Table(dataset.table(table.name), schema=[field(column) for column in table.columns])
    found.description, found.labels = table.description, LABELS
    if not table.by_month:
        return found
    found.time_partitioning = bq.TimePartitioning(type_=bq.TimePartitioningType.MONTH, field="file_month")
    names = {column.name for column in table.columns}
    found.clustering_fields = ["reason"] if "reason" in names else ["pickup_datetime", "pickup_location_id"]
    return found


def type_of(field: bq.SchemaField) -> str:
    """A column's type as BigQuery's SQL spells it: `NUMERIC(10, 2)`."""
    standard = {"INT64": "INTEGER", "FLOAT64": "FLOAT"}.get(field.field_type, field.field_type)
    return f"{standard}({field.precision}, {field.scale})" if field.precision else standard


def check_file(table: Table, path: Path) -> None:
    """Refuse a file that BigQuery would have to convert: it is not what the contract says."""
    found = {field.name: str(field.type) for field in pq.read_schema(path)}
    for column in table.columns:
        if found.get(column.name) != ARROW_TYPES[column.type]:
            raise IntegrityError(
                f"{table.name}.{column.name} is {found.get(column.name, 'missing')} in {path.name}, "
                f"not {ARROW_TYPES[column.type]}.",
                "Materialize clean_trips again with force.",
            )
