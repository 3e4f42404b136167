"""Where tables live: DuckDB, BigQuery or PostgreSQL behind one interface, `base.Warehouse`.

Belongs here: a module per backend, and what the backends share.
Does not belong here: which months to load (`ingestion/`), and what the columns mean (`trips/`).
"""

from __future__ import annotations

from pathlib import Path

from taxi_platform.trips.errors import SettingError
from taxi_platform.warehouse.base import Warehouse


def open_warehouse(url: str, variable: str = "TAXI_WAREHOUSE_URL", memory_limit: str = "512MB") -> Warehouse:
    """The warehouse at `url`; raises `SettingError`, which names `variable`, for a URL that is not supported.

    `memory_limit` is DuckDB's, such as 512MB.
    """
    scheme, separator, rest = url.partition("://")
    if scheme == "duckdb" and separator and rest.startswith("/") and not rest.endswith("/") and "?" not in rest:
        from taxi_platform.warehouse.duckdb import DuckDBWarehouse

        return DuckDBWarehouse(Path(rest), memory_limit)
    if scheme == "bigquery" and separator:
        from taxi_platform.warehouse.bigquery import connect

        return connect(url, variable)
    if scheme in ("postgresql", "postgres") and separator:
        from taxi_platform.warehouse.postgres import PostgresWarehouse

        return PostgresWarehouse(url, variable)
    raise SettingError(
        f"{variable} is not the URL of a warehouse.",
        "It takes duckdb:///absolute/file.duckdb, bigquery://project/dataset or postgresql://user:password@host/database.",
    )
