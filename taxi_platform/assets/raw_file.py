"""`{dataset}/raw_file`: the month's file as the source publishes it, in the lake.

Dagster reads the annotations of asset functions when it decorates them, so they are not postponed here.
"""

import time
from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from taxi_platform.assets.attributes import asset_key, dataset_attributes, raw_file_kinds
from taxi_platform.assets.failures import errors_as_failures
from taxi_platform.assets.metadata import raw_metadata
from taxi_platform.assets.partitions import dataset_month, monthly_partitions
from taxi_platform.assets.resources import LakeResource, SourceResource
from taxi_platform.ingestion import steps
from taxi_platform.settings import Settings
from taxi_platform.sources.base import Progress
from taxi_platform.trips.contract import contract_of
from taxi_platform.trips.errors import NotPublished
from taxi_platform.trips.months import Dataset

PROGRESS_SECONDS = 5


class FetchConfig(dg.Config):
    force: bool = Field(
        default=False,
        description="Fetch the file again, even if the lake has it. It may still be set aside.",
    )
    kept: bool = Field(default=False, description="Use the raw file in the lake, and do not ask the source.")


def raw_file_asset(dataset: Dataset, settings: Settings) -> dg.AssetsDefinition:
    """The asset that fetches a month. A month that is not published stays missing, and no later step runs."""

    @dg.asset(
        key=asset_key(dataset, "raw_file"),
        description=f"{contract_of(dataset).description}: the month's file as published. Every version is kept.",
        kinds=raw_file_kinds(settings.lake_url, settings.source_url),
        partitions_def=monthly_partitions(dataset),
        output_required=False,
        pool="source",
        **dataset_attributes(dataset),
    )
    def raw_file(
        context: dg.AssetExecutionContext, config: FetchConfig, source: SourceResource, lake: LakeResource
    ) -> Iterator[dg.MaterializeResult]:
        started = time.monotonic()
        try:
            with errors_as_failures(context):
                fetched = steps.fetch(
                    source.open(),
                    lake.open(),
                    dataset_month(context, dataset),
                    lake.work_home,
                    force=config.force,
                    use_lake_copy=config.kept,
                    judge=settings.set_aside,
                    progress=_progress_logger(context.log.info),
                    say=context.log.info,
                )
        except NotPublished as error:
            context.log.warning(f"{error} The partition stays missing, and no later step runs.")
            return
        if fetched.set_aside:
            context.log.warning(steps.stays_as_it_was(fetched.set_aside, dataset_month(context, dataset)))
        if fetched.warning:
            context.log.warning(f"The raw file in the lake is used: {fetched.warning}")
        yield dg.MaterializeResult(
            metadata=raw_metadata(fetched, time.monotonic() - started),
            data_version=dg.DataVersion(fetched.raw.short_sha256),
        )

    return raw_file


def _progress_logger(say: steps.Say) -> Progress:
    """Log how many bytes are fetched, at most every `PROGRESS_SECONDS`."""
    last_message = time.monotonic()

    def log_progress(done: int, total: int | None) -> None:
        nonlocal last_message
        if time.monotonic() - last_message > PROGRESS_SECONDS:
            last_message = time.monotonic()
            of_total = f" of {total / 1e6:,.0f} MB" if total else ""
            say(f"{done / 1e6:,.0f} MB{of_total} fetched.")

    return log_progress
