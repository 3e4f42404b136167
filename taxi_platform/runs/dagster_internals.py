"""Everything that the package imports from Dagster's private modules, each with the reason."""

from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from dagster._time import get_current_datetime
from dagster._utils.schedules import is_valid_cron_string

__all__ = ["NOT_FINISHED_STATUSES", "get_current_datetime", "is_valid_cron_string"]

# NOT_FINISHED_STATUSES: the public enum does not say which statuses are still to end.
# get_current_datetime: the clock that Dagster's own `freeze_time` sets in tests.
# is_valid_cron_string: so that TAXI_SCHEDULE is judged as the daemon will read it.
