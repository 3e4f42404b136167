"""`{dataset}/clean_trips` and `{dataset}/rejected_trips`: the two results of cleaning a raw file.

Dagster reads the annotations of asset functions when it decorates them, so they are not postponed here.
"""

import time
from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from taxi_platform.assets.attributes import asset_key, dataset_attributes, lake_kind
from taxi_platform.assets.checks import CLEAN_TRIPS_CHECKS, REJECTED_TRIPS_CHECKS
from taxi_platform.assets.failures import errors_as_failures
from taxi_platform.assets.metadata import clean_metadata, rejected_metadata
from taxi_platform.assets.names import cleaning_op
from taxi_platform.assets.partitions import dataset_month, monthly_partitions
from taxi_platform.assets.resources import LakeResource, SourceResource
from taxi_platform.ingestion import steps, views
from taxi_platform.settings import VIEWS_FILE, Settings
from taxi_platform.trips.contract import contract_of
from taxi_platform.trips.errors import LakeError
from taxi_platform.trips.months import Dataset


class CleanConfig(dg.Config):
    force: bool = Field(
        default=False, description="Clean again, and publish even an empty month or one that is mostly rejected."
    )
    reject: list[str] = Field(
        default_factory=list, description="Suspicious rules that reject in this run, such as zero_passengers."
    )


def cleaning_asset(dataset: Dataset, settings: Settings) -> dg.AssetsDefinition:
    """The multi-asset that cleans a month. TAXI_REJECT and the run's config both name rules that reject."""
    description = contract_of(dataset).description
    clean_trips = _spec(dataset, settings, "clean_trips", f"{description}: the month in the canonical schema.")
    rejected_trips = _spec(
        dataset, settings, "rejected_trips", f"{description}: rows that cannot be stored truthfully, and why."
    )

    @dg.multi_asset(
        name=cleaning_op(dataset),
        specs=[clean_trips, rejected_trips],
        check_specs=[
            *(check.spec(clean_trips) for check in CLEAN_TRIPS_CHECKS),
            *(check.spec(rejected_trips) for check in REJECTED_TRIPS_CHECKS),
        ],
        partitions_def=clean_trips.partitions_def,
    )
    def cleaning(
        context: dg.AssetExecutionContext, config: CleanConfig, source: SourceResource, lake: LakeResource
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        started = time.monotonic()
        contract = contract_of(dataset)
        with errors_as_failures(context):
            rules = {*contract.own_rules(settings.reject), *contract.check_rules(config.reject)}
            cleaned = steps.clean_or_fetch_again(
                source.open(),
                lake.open(),
                dataset_month(context, dataset),
                lake.work_home,
                lake.engine,
                sorted(rules),
                force=config.force,
                judge=settings.set_aside,
                say=context.log.info,
            )
            steps.note_cleaned(context.run.run_id, cleaned.month, cleaned.footer, cleaned.report)
            refresh_views(context, lake)
            metadata_of_clean = clean_metadata(cleaned, time.monotonic() - started)
            metadata_of_rejected = rejected_metadata(cleaned)
        version = dg.DataVersion(cleaned.footer.file_version)
        # Results of checks on their own: of those inside another result Dagster reads the materialization twice.
        yield dg.MaterializeResult(asset_key=clean_trips.key, metadata=metadata_of_clean, data_version=version)
        yield from (check.result(clean_trips, cleaned) for check in CLEAN_TRIPS_CHECKS)
        yield dg.MaterializeResult(asset_key=rejected_trips.key, metadata=metadata_of_rejected, data_version=version)
        yield from (check.result(rejected_trips, cleaned) for check in REJECTED_TRIPS_CHECKS)

    return cleaning


def refresh_views(context: dg.AssetExecutionContext, lake: LakeResource) -> None:
    """Keep `trips.duckdb` current. A month is published without it too, so a problem with it fails no run."""
    try:
        views.refresh_views(lake.open(), lake.work_home)
    except LakeError as error:
        context.log.info(f"{VIEWS_FILE} was not refreshed. {error}")


def _spec(dataset: Dataset, settings: Settings, name: str, description: str) -> dg.AssetSpec:
    bucket_kinds = {"gcs"} if lake_kind(settings.lake_url) == "gcs" else set()
    return dg.AssetSpec(
        asset_key(dataset, name),
        deps=[asset_key(dataset, "raw_file")],
        description=f"{description} One Parquet file.",
        kinds={"parquet", "duckdb"} | bucket_kinds,
        code_version=contract_of(dataset).version,
        partitions_def=monthly_partitions(dataset),
        **dataset_attributes(dataset),
    )
