"""`{dataset}/trips` and `{dataset}/serving_trips`: the month in the warehouse, and a copy in the serving warehouse."""

import time

import dagster as dg
from pydantic import Field

from taxi_platform.assets.attributes import asset_key, dataset_attributes, table_kinds
from taxi_platform.assets.failures import errors_as_failures
from taxi_platform.assets.metadata import table_metadata
from taxi_platform.assets.partitions import dataset_month, monthly_partitions
from taxi_platform.assets.resources import LakeResource, WarehouseResource
from taxi_platform.ingestion import steps
from taxi_platform.settings import Settings
from taxi_platform.trips.months import Dataset
from taxi_platform.warehouse.base import trips_table


class LoadConfig(dg.Config):
    force: bool = Field(default=False, description="Load again, even if the table has this version.")


def trips_asset(dataset: Dataset, settings: Settings) -> dg.AssetsDefinition:
    table = trips_table(dataset)
    return _table_asset(dataset, "trips", "warehouse", settings.warehouse_url, f"The table {table.name}, by month.")


def serving_trips_asset(dataset: Dataset, serving_url: str) -> dg.AssetsDefinition:
    table = trips_table(dataset)
    return _table_asset(dataset, "serving_trips", "serving", serving_url, f"A copy of {table.name} for applications.")


def _table_asset(dataset: Dataset, name: str, resource: str, url: str, description: str) -> dg.AssetsDefinition:
    """The asset that loads a month into the warehouse behind `resource`."""
    table = trips_table(dataset)

    @dg.asset(
        key=asset_key(dataset, name),
        deps=[asset_key(dataset, "clean_trips"), asset_key(dataset, "rejected_trips")],
        description=f"{table.description} {description}",
        kinds=table_kinds(url),
        required_resource_keys={"lake", resource},
        partitions_def=monthly_partitions(dataset),
        pool=resource,
        **dataset_attributes(dataset),
    )
    def load(context: dg.AssetExecutionContext, config: LoadConfig) -> dg.MaterializeResult:
        started = time.monotonic()
        lake: LakeResource = context.resources.lake
        warehouse: WarehouseResource = getattr(context.resources, resource)
        with errors_as_failures(context):
            loaded = steps.load(
                lake.open(),
                warehouse.open(),
                dataset_month(context, dataset),
                lake.work_home,
                force=config.force,
                say=context.log.info,
                run=context.run.run_id,
            )
        return dg.MaterializeResult(
            metadata=table_metadata(loaded, dataset, time.monotonic() - started),
            data_version=dg.DataVersion(loaded.file_version),
        )

    return load
