"""One job per dataset: a month from source to table."""

from __future__ import annotations

import dagster as dg

from taxi_platform.trips.months import Dataset


def ingest_job(dataset: Dataset) -> dg.UnresolvedAssetJobDefinition:
    """`yellow_ingest` and its likes: every asset of the dataset, for one month, in one process.

    A process per step would cost two to three seconds each.
    """
    return dg.define_asset_job(
        name=f"{dataset}_ingest",
        selection=dg.AssetSelection.groups(dataset.value),
        executor_def=dg.in_process_executor,
        description=f"Bring one month of {dataset} trips from the source into lake and warehouse.",
        tags={"dataset": dataset.value},
    )
