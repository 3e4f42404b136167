"""`marts/overview`: the page about all months, made from the marts in the lake.

Dagster reads the annotations of asset functions when it decorates them, so they are not postponed here.
"""

from datetime import date

import dagster as dg

from taxi_platform.assets.attributes import OWNER
from taxi_platform.assets.failures import errors_as_failures
from taxi_platform.assets.mart_views import view_key
from taxi_platform.assets.names import MARTS_GROUP
from taxi_platform.assets.resources import LakeResource, WarehouseResource
from taxi_platform.marts.views import VIEWS
from taxi_platform.settings import Settings
from taxi_platform.trips.months import newest_month


def overview_asset(settings: Settings) -> dg.AssetsDefinition:
    """The asset that writes the page into the home."""

    @dg.asset(
        key=view_key("overview"),
        group_name=MARTS_GROUP,
        deps=[view_key(name) for name in VIEWS],
        description="One HTML page about all months that are loaded, for people: charts, a map, and their numbers. "
        "taxi overview writes it too.",
        kinds={"html"},
        owners=[OWNER],
    )
    def overview(
        context: dg.AssetExecutionContext, lake: LakeResource, warehouse: WarehouseResource
    ) -> dg.MaterializeResult:
        from taxi_platform.ingestion.overview import write_overview

        with errors_as_failures(context):
            path = write_overview(
                lake.open(),
                warehouse.open(),
                settings.datasets,
                lake.work_home,
                newest_month(date.today()),
                settings.reject,
            )
        return dg.MaterializeResult(metadata={"page": dg.MetadataValue.path(path), "bytes": path.stat().st_size})

    return overview
