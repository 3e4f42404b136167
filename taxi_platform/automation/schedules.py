"""A schedule per dataset that catches up on months that are not loaded, and one that checks freshness.

They are off until somebody turns them on. Dagster ends a tick after 60 s, so a survey that takes longer stops early and
the next tick continues where it stopped.

Dagster reads the annotations of these functions when it decorates them, so they are not postponed here.
"""

from collections.abc import Sequence

import dagster as dg

from taxi_platform.assets.names import job_name
from taxi_platform.assets.resources import LakeResource, SourceResource, WarehouseResource
from taxi_platform.automation.ticks import NEWEST, NO_PRIORITY, PRIORITY, Tick, run_request
from taxi_platform.ingestion.survey import ask_missing, first_month
from taxi_platform.runs.dagster_internals import is_valid_cron_string
from taxi_platform.trips.errors import SettingError
from taxi_platform.trips.months import Dataset, Month, newest_month

CATCH_UP = 36
"""Most runs of a dataset in the queue at a time; a few of them run at once, newest first."""


def check_schedule(cron: str | None) -> None:
    """Raise `SettingError` if TAXI_SCHEDULE is not a cron expression."""
    if cron and not is_valid_cron_string(cron):
        raise SettingError(
            f"TAXI_SCHEDULE is {cron!r}.", "It takes a cron expression in New York time, such as 30 6 * * *."
        )


def catch_up_schedule(
    dataset: Dataset, reject: Sequence[str], since: Month | None, cron: str | None = None
) -> dg.ScheduleDefinition:
    """`{dataset}_schedule`: every morning, or by `cron`, a run for each month since `since` that is not loaded."""
    when = f"By {cron} (New York time)" if cron else "Every morning"
    minute = 7 * (list(Dataset).index(dataset) + 1)

    @dg.schedule(
        name=f"{dataset}_schedule",
        job_name=job_name(dataset),
        cron_schedule=cron or f"{minute} 6 * * *",
        execution_timezone="America/New_York",
        description=(
            f"{when}: a run for each month of {dataset} since {since or 'twelve months ago'} (TAXI_SINCE) that "
            "is published and not loaded, or cleaned under another contract or other reject rules; newest first, "
            f"{CATCH_UP} at a time. It asks the source only about months that are not in the lake; the sensor finds "
            "republished ones."
        ),
    )
    def schedule(
        context: dg.ScheduleEvaluationContext, source: SourceResource, lake: LakeResource, warehouse: WarehouseResource
    ) -> list[dg.RunRequest] | dg.SkipReason:
        now = context.scheduled_execution_time
        newest = newest_month(now.date())
        tick = Tick(context.instance, dataset, now, reject, source, lake, warehouse)
        months = sorted(first_month(dataset, since, newest).until(newest), reverse=True)
        # The newest months pass a queue however long it is; the others wait until it has room.
        others = tick.state.newest_first_from_last_stop(months[NEWEST:])
        room = CATCH_UP - len(tick.busy.unfinished)
        due = tick.look([*months[:NEWEST], *others], ask_missing, max(room, NEWEST), others if room <= 0 else ())
        tick.save_stop(others)
        requests = [
            run_request(state, now, PRIORITY if state.dataset_month.month in months[:NEWEST] else NO_PRIORITY)
            for state in due
        ]
        if not requests:
            return dg.SkipReason(tick.message())
        context.log.info(tick.message())
        return requests

    return schedule


def marts_schedule(job: "dg.UnresolvedAssetJobDefinition") -> dg.ScheduleDefinition:
    """The views every day: they always show every month, so a run for each month of a backfill would add nothing."""
    return dg.ScheduleDefinition(
        name="marts_schedule",
        job=job,
        cron_schedule="30 12 * * *",
        execution_timezone="America/New_York",
        description="Every day at half past noon: the views over all marts, with the rows that they have by now.",
    )


def freshness_schedule(job: "dg.UnresolvedAssetJobDefinition") -> dg.ScheduleDefinition:
    """The freshness checks every day at noon, after the catch-up schedules of the morning."""
    return dg.ScheduleDefinition(
        name="freshness_schedule",
        job=job,
        cron_schedule="0 12 * * *",
        execution_timezone="America/New_York",
        description="Every day at noon: checks that the newest months are loaded, and warns in the UI if they are not.",
    )
