"""The names that the UI shows and that runs, schedules and messages refer to: jobs, ops, assets and tags.

They are public: renaming one breaks saved run configs, run history and whoever filters by a tag.
"""

from __future__ import annotations

from taxi_platform.trips.months import Dataset

PARTITION_TAG = "dagster/partition"
PRIORITY_TAG = "dagster/priority"
DATASET_TAG = "dataset"
REASON_TAG = "taxi/reason"
ASKED_TAG = "taxi/asked_on"
"""The day on which a schedule or sensor asked for the run."""
PROCESS_TAG = ".dagster/taxi_process"
"""On runs that a command started and waits for: the machine, id and start time of its process. The leading dot hides
the tag in the UI."""

FRESHNESS_CHECK = "newest_month_is_loaded"
"""Of the table as a whole, not of the month that a run brings."""


def job_name(dataset: Dataset) -> str:
    """The job that brings one month of a dataset from the source to the tables."""
    return f"{dataset}_ingest"


def raw_file_op(dataset: Dataset) -> str:
    return f"{dataset}__raw_file"


def cleaning_op(dataset: Dataset) -> str:
    return f"{dataset}_cleaning"


def trips_op(dataset: Dataset) -> str:
    return f"{dataset}__trips"
