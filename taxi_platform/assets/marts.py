"""`{dataset}/daily_zones` and its siblings: the month's answers, computed from the trips in lake and warehouse.

Dagster reads the annotations of asset functions when it decorates them, so they are not postponed here.
"""

import time
from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from taxi_platform.assets.attributes import asset_key, dataset_attributes, table_kinds
from taxi_platform.assets.cleaning import refresh_views
from taxi_platform.assets.failures import errors_as_failures
from taxi_platform.assets.metadata import mart_metadata
from taxi_platform.assets.names import marts_op
from taxi_platform.assets.partitions import dataset_month, monthly_partitions
from taxi_platform.assets.resources import LakeResource, WarehouseResource
from taxi_platform.ingestion import steps
from taxi_platform.ingestion.mart_views import try_create_views
from taxi_platform.marts.tables import QUALITY, mart_names, mart_table, mart_version
from taxi_platform.settings import Settings
from taxi_platform.trips.months import Dataset


class MartsConfig(dg.Config):
    force: bool = Field(default=False, description="Build the marts again, even if they are of this version.")


def mart_keys(dataset: Dataset) -> list[dg.AssetKey]:
    """The assets of the dataset's marts, which one step makes together."""
    return [asset_key(dataset, name) for name in mart_names(dataset)]


def marts_asset(dataset: Dataset, settings: Settings) -> dg.AssetsDefinition:
    """The multi-asset that builds all marts of a month at once, so that they always tell of the same trips."""

    @dg.multi_asset(
        name=marts_op(dataset),
        specs=[_spec(dataset, name, settings) for name in mart_names(dataset)],
        partitions_def=monthly_partitions(dataset),
        pool="warehouse",
    )
    def marts(
        context: dg.AssetExecutionContext, config: MartsConfig, lake: LakeResource, warehouse: WarehouseResource
    ) -> Iterator[dg.MaterializeResult]:
        started = time.monotonic()
        with errors_as_failures(context):
            opened = warehouse.open()
            built = steps.build_marts(
                lake.open(),
                opened,
                dataset_month(context, dataset),
                lake.work_home,
                force=config.force,
                say=context.log.info,
                engine=lake.engine,
                run=context.run.run_id,
            )
            try_create_views(opened, settings.datasets, context.log.info)
            refresh_views(context, lake)
            metadata = mart_metadata(opened, dataset, built, time.monotonic() - started)
        version = dg.DataVersion(f"{built.file_version}-{built.mart_version}")
        for name in mart_names(dataset):
            yield dg.MaterializeResult(
                asset_key=asset_key(dataset, name), metadata=metadata[name], data_version=version
            )

    return marts


def _spec(dataset: Dataset, name: str, settings: Settings) -> dg.AssetSpec:
    table = mart_table(dataset, name)
    # The report, which the rows of `quality` are, belongs to cleaning; the trips of all others are in the table.
    sources = ("clean_trips", "rejected_trips") if name == QUALITY else ("trips",)
    return dg.AssetSpec(
        asset_key(dataset, name),
        deps=[asset_key(dataset, source) for source in sources],
        description=f"{table.description} The table {table.name}, by month.",
        kinds=table_kinds(settings.warehouse_url),
        code_version=mart_version(dataset),
        partitions_def=monthly_partitions(dataset),
        **dataset_attributes(dataset),
    )
