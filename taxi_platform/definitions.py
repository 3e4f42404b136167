"""The composition root: settings become resources, datasets become assets, and all of it one `Definitions`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import Any

import dagster as dg

from taxi_platform.assets.checks import (
    marts_match_trips,
    no_version_set_aside,
    rows_accounted_for,
    table_matches_clean_trips,
)
from taxi_platform.assets.cleaning import cleaning_asset
from taxi_platform.assets.mart_views import mart_views_asset
from taxi_platform.assets.marts import marts_asset
from taxi_platform.assets.overview import overview_asset
from taxi_platform.assets.raw_file import raw_file_asset
from taxi_platform.assets.resources import LakeResource, SourceResource, WarehouseResource
from taxi_platform.assets.tables import serving_trips_asset, trips_asset
from taxi_platform.assets.zones import taxi_zones_asset
from taxi_platform.automation.agents import build_agents_sensor
from taxi_platform.automation.audits import audit_job, audit_schedule
from taxi_platform.automation.freshness import freshness_check
from taxi_platform.automation.jobs import freshness_job, ingest_job, marts_job
from taxi_platform.automation.schedules import catch_up_schedule, check_schedule, freshness_schedule, marts_schedule
from taxi_platform.automation.sensors import publication_sensor
from taxi_platform.notifications.sensors import build_notifications
from taxi_platform.runs.dagster_internals import fork_runs
from taxi_platform.runs.sqlite import wait_for_locked_files
from taxi_platform.settings import Settings, check_urls, load_settings
from taxi_platform.trips.collecting import collect_seldom
from taxi_platform.trips.months import Dataset


@dg.definitions
def defs() -> dg.Definitions:
    """What Dagster loads: the platform under the settings of this process's environment."""
    collect_seldom()  # also in runs that Dagster starts, as Kubernetes Jobs or by its own commands
    fork_runs("taxi_platform.warm.runs")
    return build_definitions(load_settings())


def build_definitions(settings: Settings, resource_overrides: Mapping[str, object] | None = None) -> dg.Definitions:
    """Everything the code location offers under these settings; raises `SettingError` for a wrong one.

    `resource_overrides` replaces resources by key: `source`, `lake`, `warehouse`, `serving`.
    """
    _accept_beta_features()
    wait_for_locked_files()
    check_urls(settings)
    check_schedule(settings.schedule)
    freshness_checks = [freshness_check(dataset) for dataset in settings.datasets]
    freshness = freshness_job(freshness_checks)
    audit = audit_job(settings.datasets, ["warehouse", *(["serving"] if settings.serving_url else [])])
    assets = [a for dataset in settings.datasets for a in _assets(dataset, settings)]
    assets = [taxi_zones_asset(settings), *assets, mart_views_asset(settings), overview_asset(settings)]
    marts = marts_job()
    checks = [check for dataset in settings.datasets for check in _checks(dataset, settings)]
    catch_up = [catch_up_schedule(d, settings.reject, settings.since, settings.schedule) for d in settings.datasets]
    publication = [publication_sensor(dataset, settings.reject) for dataset in settings.datasets]
    return dg.Definitions(
        assets=list(map(_linked_to_source, assets)),
        asset_checks=[*freshness_checks, *checks],
        jobs=[freshness, audit, marts, *(ingest_job(dataset) for dataset in settings.datasets)],
        schedules=[freshness_schedule(freshness), audit_schedule(audit), marts_schedule(marts), *catch_up],
        sensors=[*publication, *build_notifications(settings), *build_agents_sensor(settings)],
        resources={**build_resources(settings), **(resource_overrides or {})},
        executor=dg.in_process_executor,
    )


def _accept_beta_features() -> None:
    """Code references and checks with partitions are beta or preview in Dagster 1.13, and used deliberately."""
    warnings.filterwarnings("ignore", category=dg.BetaWarning)
    warnings.filterwarnings("ignore", category=dg.PreviewWarning)


def _assets(dataset: Dataset, settings: Settings) -> list[dg.AssetsDefinition]:
    assets = [raw_file_asset(dataset, settings), cleaning_asset(dataset, settings), trips_asset(dataset, settings)]
    assets.append(marts_asset(dataset, settings))
    if settings.serving_url:
        assets.append(serving_trips_asset(dataset, settings.serving_url))
    return assets


def _linked_to_source(asset: dg.AssetsDefinition) -> dg.AssetsDefinition:
    """The asset with a link to its function. For the same line Dagster's own way reads each to its end: 0.03 s."""
    function: Any = asset.op.compute_fn
    code = function.decorated_fn.__code__
    link = dg.LocalFileCodeReference(file_path=code.co_filename, line_number=code.co_firstlineno)
    links = {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[link])}
    return asset.map_asset_specs(lambda spec: spec.merge_attributes(metadata=links))


def _checks(dataset: Dataset, settings: Settings) -> list[dg.AssetChecksDefinition]:
    checks = [
        no_version_set_aside(dataset),
        rows_accounted_for(dataset),
        table_matches_clean_trips(dataset, "trips", "warehouse"),
        marts_match_trips(dataset),
    ]
    if settings.serving_url:
        checks.append(table_matches_clean_trips(dataset, "serving_trips", "serving"))
    return checks


def build_resources(settings: Settings) -> dict[str, object]:
    """The resources by key. A variable that is set stays an `EnvVar`, so that its value is never shown."""

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
