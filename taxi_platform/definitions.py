"""The composition root: settings become resources, datasets become assets, and all of it one `Definitions`."""

from __future__ import annotations

import os
import warnings

import dagster as dg

# backfill_policy and asset checks with partitions are beta or preview in Dagster 1.13, and used knowingly.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
warnings.filterwarnings("ignore", category=dg.PreviewWarning)

from taxi_platform.assets.resources import LakeResource, SourceResource, WarehouseResource  # noqa: E402
from taxi_platform.assets.trips import build_dataset  # noqa: E402
from taxi_platform.assets.zones import taxi_zones_table  # noqa: E402
from taxi_platform.automation.freshness import freshness_check  # noqa: E402
from taxi_platform.automation.jobs import freshness_job, ingest_job  # noqa: E402
from taxi_platform.automation.schedules import catch_up_schedule, check_schedule, freshness_schedule  # noqa: E402
from taxi_platform.automation.sensors import publication_sensor  # noqa: E402
from taxi_platform.notifications.sensors import build_notifications  # noqa: E402
from taxi_platform.settings import Settings, check_urls, load_settings  # noqa: E402


def build_resources(settings: Settings) -> dict[str, object]:
    """The resources by key. A variable that is set stays an `EnvVar`, so that its value shows nowhere."""

    def url(variable: str, default: str) -> str:
        return dg.EnvVar(variable) if os.environ.get(variable, "").strip() else default

    resources: dict[str, object] = {
        "source": SourceResource(
            url=url("TAXI_SOURCE_URL", settings.source_url), datasets=[d.value for d in settings.datasets]
        ),
        "lake": LakeResource(
            url=url("TAXI_LAKE_URL", settings.lake_url),
            home=str(settings.home),
            memory_limit=settings.memory_limit,
            threads=settings.threads,
        ),
        "warehouse": WarehouseResource(url=url("TAXI_WAREHOUSE_URL", settings.warehouse_url)),
    }
    if settings.serving_url:
        resources["serving"] = WarehouseResource(url=dg.EnvVar("TAXI_SERVING_URL"), variable="TAXI_SERVING_URL")
    return resources


def build_definitions(settings: Settings) -> dg.Definitions:
    """Everything the code location offers under these settings."""
    check_urls(settings)
    check_schedule(settings.schedule)
    built = [build_dataset(dataset, settings.reject, bool(settings.serving_url)) for dataset in settings.datasets]
    fresh = [freshness_check(dataset) for dataset in settings.datasets]
    freshness = freshness_job(fresh)
    return dg.Definitions(
        assets=[taxi_zones_table, *(asset for assets, _ in built for asset in assets)],
        asset_checks=[*fresh, *(check for _, checks in built for check in checks)],
        jobs=[freshness, *(ingest_job(dataset) for dataset in settings.datasets)],
        schedules=[
            freshness_schedule(freshness),
            *(
                catch_up_schedule(dataset, settings.reject, settings.since, settings.schedule)
                for dataset in settings.datasets
            ),
        ],
        sensors=[
            *(publication_sensor(dataset, settings.reject) for dataset in settings.datasets),
            *build_notifications(settings),
        ],
        resources=build_resources(settings),
        executor=dg.in_process_executor,
    )


defs = build_definitions(load_settings())
