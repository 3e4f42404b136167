"""The names that the UI shows and that runs, schedules and messages refer to: jobs, ops, assets and tags.

They are public: renaming one breaks saved run configs, run history and filters by tag.
"""

from __future__ import annotations

from taxi_platform.trips.months import Dataset

LOCATION = "taxi_platform"
"""The code location's name, as in workspace.yaml and pyproject.toml."""

PARTITION_TAG = "dagster/partition"
RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"
"""The first and last month of a run that a backfill of an earlier version started; it has no `PARTITION_TAG`."""
PRIORITY_TAG = "dagster/priority"
DATASET_TAG = "dataset"
REASON_TAG = "taxi/reason"
ASKED_TAG = "taxi/asked_on"
"""The day on which a schedule or sensor asked for the run."""
PROCESS_TAG = ".dagster/taxi_process"
"""The machine, process id and start time of a run's process. The leading dot hides the tag in the UI."""
PROCESS_RUN_TAG = ".dagster/taxi_process_run"
"""The run that `PROCESS_TAG` is about: a run that is executed again inherits the tags of the first."""
CODE_SERVER_TAG = ".dagster/grpc_info"
"""Dagster's: the code server that was asked to start the run."""
RETRY_TAG = "dagster/auto_retry_run_id"
"""On failed runs that Dagster has run again: the id of the other run."""
BACKFILL_TAG = "dagster/backfill"
WILL_RETRY_TAG = "dagster/will_retry"
"""On failed runs that Dagster is about to run again: `true`."""
MAX_RETRIES_TAG = "dagster/max_retries"
RETRY_STEP_FAILURES_TAG = "dagster/retry_on_asset_or_op_failure"
"""Whether a run of which a step failed is run again, as if its process had died."""
RETRY_STRATEGY_TAG = "dagster/retry_strategy"
"""How a failed run is run again: from the step that failed, or `ALL_STEPS`."""
QUEUE_TAG = ".dagster/taxi_queue"
"""With agents: the queue that the run was sent to, as the broker names it."""
AGENT_TAG = ".dagster/taxi_agent"
"""With agents: the agent that took the run, a space, and the id of the task by which it did."""
HURRIED_TAG = ".dagster/taxi_no_retries"
"""On runs that a person waits for at a terminal: after a temporary failure, a step is not tried again minutes later."""

FRESHNESS_CHECK = "newest_month_is_loaded"
"""It judges the table as a whole, not the month that a run loads."""
SET_ASIDE_CHECK = "no_version_set_aside"


AUDIT_JOB = "audit"
MARTS_JOB = "marts"
MARTS_GROUP = "marts"
MARTS_CHECK = "marts_match_trips"


def job_name(dataset: Dataset) -> str:
    """The job that brings one month of a dataset from the source to the tables."""
    return f"{dataset}_ingest"


def raw_file_op(dataset: Dataset) -> str:
    return f"{dataset}__raw_file"


def cleaning_op(dataset: Dataset) -> str:
    return f"{dataset}_cleaning"


def trips_op(dataset: Dataset) -> str:
    return f"{dataset}__trips"


def marts_op(dataset: Dataset) -> str:
    return f"{dataset}_marts"
