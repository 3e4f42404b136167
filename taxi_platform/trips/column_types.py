"""The types a column can have, each as every engine spells it: one row a type, the only place that maps types."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ColumnType:
    """One type of the contract. `letter` is what the contracts (`contracts/*.toml`) write.

    Each spelling is the one its engine reports for an existing column or file, so the two can be compared as text.
    """

    letter: str
    duckdb: str
    arrow: str
    bigquery_api: str
    bigquery_sql: str
    postgres: str
    display: str
    """What Dagster's UI shows."""
    precision: int | None = None
    scale: int | None = None


COLUMN_TYPES = {
    column_type.letter: column_type
    for column_type in (
        ColumnType(
            letter="D",
            duckdb="TIMESTAMP",
            arrow="timestamp[us]",
            bigquery_api="DATETIME",
            bigquery_sql="DATETIME",
            postgres="timestamp(6) without time zone",
            display="datetime",
        ),
        ColumnType(
            letter="I",
            duckdb="BIGINT",
            arrow="int64",
            bigquery_api="INTEGER",
            bigquery_sql="INT64",
            postgres="bigint",
            display="int64",
        ),
        ColumnType(
            letter="F",
            duckdb="DOUBLE",
            arrow="double",
            bigquery_api="FLOAT",
            bigquery_sql="FLOAT64",
            postgres="double precision",
            display="float64",
        ),
        ColumnType(
            letter="M",
            duckdb="DECIMAL(10,2)",
            arrow="decimal128(10, 2)",
            bigquery_api="NUMERIC",
            bigquery_sql="NUMERIC(10,2)",
            postgres="numeric(10,2)",
            display="decimal(10,2)",
            precision=10,
            scale=2,
        ),
        ColumnType(
            letter="TOTAL",  # a sum of M or of hundredths: 10^16 hold the 24 million trips of the largest month
            duckdb="DECIMAL(18,2)",
            arrow="decimal128(18, 2)",
            bigquery_api="NUMERIC",
            bigquery_sql="NUMERIC",  # without limits, as the results of queries have none
            postgres="numeric(18,2)",
            display="decimal(18,2)",
        ),
        ColumnType(
            letter="S",
            duckdb="VARCHAR",
            arrow="string",
            bigquery_api="STRING",
            bigquery_sql="STRING",
            postgres="text",
            display="string",
        ),
        ColumnType(
            letter="DATE",
            duckdb="DATE",
            arrow="date32[day]",
            bigquery_api="DATE",
            bigquery_sql="DATE",
            postgres="date",
            display="date",
        ),
        ColumnType(
            letter="BOOL",  # of views only
            duckdb="BOOLEAN",
            arrow="bool",
            bigquery_api="BOOLEAN",
            bigquery_sql="BOOL",
            postgres="boolean",
            display="bool",
        ),
    )
}
"""The letter of a contract → its type."""
