"""Months as Dagster's partitions. There is no backfill policy, so every month of a range becomes its own run."""

from __future__ import annotations

import dagster as dg

from taxi_platform.trips.months import Dataset, DatasetMonth, Month


def monthly_partitions(dataset: Dataset) -> dg.MonthlyPartitionsDefinition:
    """All months of a dataset. The newest is the one before last, because the TLC publishes at least a month late."""
    return dg.MonthlyPartitionsDefinition(str(dataset.first_month), fmt="%Y-%m", end_offset=-1)


def dataset_month(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext, dataset: Dataset) -> DatasetMonth:
    """The month that a run is for."""
    return DatasetMonth(dataset, Month.parse(context.partition_key))
