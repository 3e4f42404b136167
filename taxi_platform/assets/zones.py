"""`reference/taxi_zones`: the zone lookup shipped in the package, as a table beside the trips."""

import dagster as dg

from taxi_platform.assets.attributes import OWNER, table_kinds
from taxi_platform.assets.failures import errors_as_failures
from taxi_platform.assets.metadata import column_schema
from taxi_platform.assets.resources import WarehouseResource
from taxi_platform.ingestion.load import load_zones
from taxi_platform.settings import Settings
from taxi_platform.trips.known import taxi_zones
from taxi_platform.warehouse.base import zones_table


def taxi_zones_asset(settings: Settings) -> dg.AssetsDefinition:
    """The asset that replaces the table of zones."""

    @dg.asset(
        key=dg.AssetKey(["reference", "taxi_zones"]),
        group_name="reference",
        description="The TLC's taxi zones: what a location id means. Always from the file shipped in the package.",
        kinds=table_kinds(settings.warehouse_url),
        owners=[OWNER],
        pool="warehouse",
    )
    def taxi_zones_table(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> dg.MaterializeResult:
        table = zones_table()
        with errors_as_failures(context):
            opened = warehouse.open()
            load_zones(opened)
        return dg.MaterializeResult(
            metadata={
                "rows": len(taxi_zones()),
                "dagster/row_count": len(taxi_zones()),
                "dagster/table_name": table.name,
                "dagster/uri": opened.uri(table.name),
                "dagster/column_schema": column_schema(table.columns),
            }
        )

    return taxi_zones_table
