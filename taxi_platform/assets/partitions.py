"""Months as Dagster's partitions, and which of them a run is about.

There is no backfill policy, so every month of a range becomes its own run.
"""

from __future__ import annotations

import dagster as dg

from taxi_platform.assets.names import PARTITION_TAG, RANGE_END_TAG, RANGE_START_TAG
from taxi_platform.trips.errors import UserError
from taxi_platform.trips.months import Dataset, DatasetMonth, Month


def monthly_partitions(dataset: Dataset) -> dg.MonthlyPartitionsDefinition:
    """All months of a dataset. The newest is the one before last, because the TLC publishes at least a month late."""
    return dg.MonthlyPartitionsDefinition(str(dataset.first_month), fmt="%Y-%m", end_offset=-1)


def dataset_month(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext, dataset: Dataset) -> DatasetMonth:
    """The month that a run is for. Raises `Failure` if it has none: *Execute all* on a page of checks gives it none."""
    if not context.has_partition_key:
        raise dg.Failure(
            "No month was chosen. Launch it again with a partition. Checks run with the month that is materialized: "
            "Execute all gives them none.",
            allow_retries=False,
        )
    return DatasetMonth(dataset, Month.parse(context.partition_key))


def datasets_of(run: dg.DagsterRun) -> list[Dataset]:
    """The datasets that a run ingests: that of its job, or those of the assets that were selected in the UI."""
    names = {run.job_name.removesuffix("_ingest"), *(key.path[0] for key in run.asset_selection or ())}
    return [dataset for dataset in Dataset if dataset.value in names]


def dataset_months_of(run: dg.DagsterRun) -> list[DatasetMonth]:
    """The datasets and months that a run ingests, by dataset, then month; empty for a run that ingests none.

    A run has one partition. Backfills that earlier versions started have a range instead, mostly of a single month.
    """
    first = run.tags.get(PARTITION_TAG) or run.tags.get(RANGE_START_TAG)
    last = run.tags.get(PARTITION_TAG) or run.tags.get(RANGE_END_TAG)
    if not first or not last:
        return []
    try:
        months = list(Month.parse(first).until(Month.parse(last)))
    except UserError:  # a run of another code location, with partitions of its own
        return []
    return [
        DatasetMonth(dataset, month) for dataset in datasets_of(run) for month in months if month >= dataset.first_month
    ]
