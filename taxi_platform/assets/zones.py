"""`reference/taxi_zones`: the lookup shipped in the package, as a table beside the trips."""

import dagster as dg

from taxi_platform.assets.metadata import column_schema
from taxi_platform.assets.resources import WarehouseResource
from taxi_platform.assets.trips import OWNER, explained
from taxi_platform.trips.known import taxi_zones
from taxi_platform.warehouse.base import zones_table


@dg.asset(
    key=dg.AssetKey(["reference", "taxi_zones"]),
    group_name="reference",
    description="The TLC's taxi zones: what a location id means. Always from the file shipped in the package.",
    kinds={"table"},
    owners=[OWNER],
    pool="warehouse",
)
def taxi_zones_table(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> dg.MaterializeResult:
    table, zones = zones_table(), taxi_zones()
    opened = warehouse.open()
    with explained(context):
        opened.replace_reference(table, zones)
    return dg.MaterializeResult(
        metadata={
            "rows": len(zones),
            "dagster/row_count": len(zones),
            "dagster/table_name": table.name,
            "dagster/uri": opened.uri(table.name),
            "dagster/column_schema": column_schema(table.columns),
        }
    )
