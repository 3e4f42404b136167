"""One job per dataset, which brings a month from source to marts; one that checks that the newest are loaded; and one
for the views over the marts."""

from __future__ import annotations

import dagster as dg

from taxi_platform.assets.names import DATASET_TAG, MARTS_GROUP, MARTS_JOB, job_name
from taxi_platform.trips.months import Dataset


def ingest_job(dataset: Dataset) -> dg.UnresolvedAssetJobDefinition:
    """The job `{dataset}_ingest`: every asset and check of the dataset, for one month, in one process.

    A process per step would cost two to three seconds each.
    """
    return dg.define_asset_job(
        name=job_name(dataset),
        selection=dg.AssetSelection.groups(dataset.value),
        executor_def=dg.in_process_executor,
        description=f"Bring one month of {dataset} trips from the source into lake and warehouse.",
        tags={DATASET_TAG: dataset.value},
    )


def marts_job() -> dg.UnresolvedAssetJobDefinition:
    """The views over the marts of all datasets."""
    return dg.define_asset_job(
        MARTS_JOB,
        selection=dg.AssetSelection.groups(MARTS_GROUP),
        executor_def=dg.in_process_executor,
        description="Create the views over the marts of all datasets, and report how many rows they have.",
    )


def freshness_job(checks: list[dg.AssetChecksDefinition]) -> dg.UnresolvedAssetJobDefinition:
    """All freshness checks at once."""
    return dg.define_asset_job(
        "freshness",
        selection=dg.AssetSelection.checks(*checks),
        executor_def=dg.in_process_executor,
        description="Check that the newest months are loaded, for every dataset.",
    )
