"""What starts runs by itself: a sensor per dataset that watches the source, a schedule that catches up on months.

Both are off until somebody switches them on, and may both be on: a month that is running or waiting is left alone.

Dagster reads the annotations of these functions when it decorates them, so they are not postponed here.
"""

import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg

from taxi_platform.assets.names import ASKED_TAG, PARTITION_TAG, PRIORITY_TAG, REASON_TAG, job_name
from taxi_platform.assets.resources import LakeResource, SourceResource, WarehouseResource
from taxi_platform.ingestion.survey import (
    MonthState,
    Survey,
    expected_on,
    first_month,
    months_in_lake,
    months_to_ingest,
)
from taxi_platform.runs.dagster_internals import NOT_FINISHED_STATUSES, get_current_datetime, is_valid_cron_string
from taxi_platform.runs.history import datasets_of
from taxi_platform.trips.errors import SettingError
from taxi_platform.trips.months import Dataset, DatasetMonth, Month, newest_month

LOOK_EVERY = timedelta(hours=6)
LOOK_AGAIN = timedelta(hours=1)
"""After the source did not answer."""
JITTER = 0.2
NEWEST = 2
"""Months that are asked about at every look; beside them come `OLDER` ones in turn, so 16 requests a day in all."""
OLDER = 2
TICK_SECONDS = 60
PAUSE_SECONDS = 1.0
"""Between two requests at most."""
CATCH_UP = 36
"""Months that one tick of the schedule asks for at most: they run a few at a time, newest first."""
PRIORITY, NO_PRIORITY = "10", "0"


@dataclass(frozen=True)
class Memory:
    """A sensor's cursor: when to look next (UTC), and the older month that comes after which one."""

    look_at: datetime = datetime(2009, 1, 1, tzinfo=UTC)
    last_older: str = ""

    @classmethod
    def parse(cls, text: str | None) -> "Memory":
        try:
            data = json.loads(text or "{}")
            return cls(datetime.fromisoformat(data["look_at"]), str(data["last_older"]))
        except (ValueError, KeyError, TypeError):
            return cls()

    def __str__(self) -> str:
        return json.dumps({"look_at": self.look_at.isoformat(timespec="seconds"), "last_older": self.last_older})


def publication_sensor(dataset: Dataset, reject: Sequence[str]) -> dg.SensorDefinition:
    """`yellow_publication` and its likes: a run for every month that is new, republished or outdated."""

    @dg.sensor(
        name=f"{dataset}_publication",
        job_name=job_name(dataset),
        minimum_interval_seconds=TICK_SECONDS,
        description=(
            f"Asks the source about the {NEWEST} newest months of {dataset} every {LOOK_EVERY.seconds // 3600} hours "
            "(the tick of each minute only sees whether it is time) and about "
            f"{OLDER} older ones in the lake, in turn, and starts a run for each that is new, republished or cleaned "
            "under another contract or other reject rules. Months that were never fetched are the schedule's."
        ),
    )
    def publication(
        context: dg.SensorEvaluationContext, source: SourceResource, lake: LakeResource, warehouse: WarehouseResource
    ) -> dg.SensorResult | dg.SkipReason:
        now, memory = get_current_datetime(), Memory.parse(context.cursor)
        if now < memory.look_at:
            return dg.SkipReason(f"The next look at the source is at {memory.look_at:%Y-%m-%d %H:%M} UTC.")
        files = lake.open()
        newest = [newest_month(now.date()).plus(-back) for back in range(NEWEST)]
        older = _in_turn([month for month in months_in_lake(files, dataset) if month < newest[-1]], memory.last_older)
        survey = Survey(source.open().for_polling(_pause), files, warehouse.open(), dataset, reject)
        states = list(survey.look([*newest, *older]))
        due = months_to_ingest(states, NEWEST + OLDER)
        requests = [_request(state, now, PRIORITY) for state in _idle(context.instance, due, now)]
        wait = LOOK_AGAIN if survey.problem else LOOK_EVERY
        look_at = now + wait * random.uniform(1 - JITTER, 1 + JITTER)
        # Only a look that was answered passes the turn on.
        last_older = str(older[-1]) if older and not survey.problem else memory.last_older
        cursor = str(Memory(look_at, last_older))
        if requests:
            return dg.SensorResult(run_requests=requests, cursor=cursor)
        return dg.SensorResult(skip_reason=_why_nothing(states, survey, look_at), cursor=cursor)

    return publication


def check_schedule(cron: str | None) -> None:
    """Raise `SettingError` where TAXI_SCHEDULE is no cron line."""
    if cron and not is_valid_cron_string(cron):
        raise SettingError(
            f"TAXI_SCHEDULE is {cron!r}.", "It takes a cron line in New York's time, such as 30 6 * * *."
        )


def catch_up_schedule(
    dataset: Dataset, reject: Sequence[str], since: Month | None, cron: str | None = None
) -> dg.ScheduleDefinition:
    """`yellow_schedule` and its likes: every morning, or by `cron`, a run for each month since `since` not loaded."""
    when = f"By {cron} (New York's time)" if cron else "Every morning"
    minute = 7 * (list(Dataset).index(dataset) + 1)

    @dg.schedule(
        name=f"{dataset}_schedule",
        job_name=job_name(dataset),
        cron_schedule=cron or f"{minute} 6 * * *",
        execution_timezone="America/New_York",
        description=(
            f"{when}: a run for each month of {dataset} since {since or 'twelve months ago'} (TAXI_SINCE) that "
            "is published and not loaded, or cleaned under another contract or other reject rules; newest first, "
            f"{CATCH_UP} at a time. What is in the lake is not asked about: republished months are the sensor's."
        ),
    )
    def schedule(
        context: dg.ScheduleEvaluationContext, source: SourceResource, lake: LakeResource, warehouse: WarehouseResource
    ) -> list[dg.RunRequest] | dg.SkipReason:
        now = context.scheduled_execution_time
        newest = newest_month(now.date())
        months = list(first_month(dataset, since, newest).until(newest))
        survey = Survey(source.open().for_polling(_pause), lake.open(), warehouse.open(), dataset, reject)
        states = list(survey.look(months, ask_kept=False))
        due = months_to_ingest(states, CATCH_UP)
        requests = [
            _request(state, now, PRIORITY if state.dataset_month.month > newest.plus(-NEWEST) else NO_PRIORITY)
            for state in _idle(context.instance, due, now)
        ]
        told = [state for state in states if state.problem] + states[-1:]
        return requests or dg.SkipReason(_why_nothing(told, survey))

    return schedule


def _pause() -> None:
    time.sleep(random.uniform(0, PAUSE_SECONDS))


def _in_turn(months: Sequence[Month], last: str) -> list[Month]:
    """The next `OLDER` months after the last one that was asked about, from the beginning again at the end."""
    later = [month for month in months if str(month) > last]
    return [*later, *months][: min(OLDER, len(months))]


def _request(state: MonthState, now: datetime, priority: str) -> dg.RunRequest:
    version = state.published.version if state.published else "kept"
    month = state.dataset_month.month
    return dg.RunRequest(
        # A key is honoured once for ever: with the day in it, a month that failed gets another chance the next day.
        run_key=f"{state.dataset_month} {version} {state.file_version or 'new'} {now:%Y-%m-%d}",
        partition_key=str(month),
        tags={PRIORITY_TAG: priority, REASON_TAG: str(state.reason), ASKED_TAG: f"{now:%Y-%m-%d}"},
    )


def _idle(instance: dg.DagsterInstance, states: Sequence[MonthState], now: datetime) -> list[MonthState]:
    """The states whose month no run is working on or waiting for, nor failed on today, whoever asked for it."""

    def busy(dataset_month: DatasetMonth) -> bool:
        month = {PARTITION_TAG: str(dataset_month.month)}
        unfinished = dg.RunsFilter(statuses=NOT_FINISHED_STATUSES, tags=month)
        failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], tags={**month, ASKED_TAG: f"{now:%Y-%m-%d}"})
        runs = [*instance.get_runs(unfinished), *instance.get_runs(failed)]
        return any(dataset_month.dataset in datasets_of(run) for run in runs)

    return [state for state in states if not busy(state.dataset_month)]


def _why_nothing(states: Sequence[MonthState], survey: Survey, look_at: datetime | None = None) -> str:
    again = f" The next look is at {look_at:%Y-%m-%d %H:%M} UTC." if look_at else ""
    if survey.problem:
        return f"The source does not answer: {survey.problem.problem}{again}"
    missing = [state.dataset_month for state in states if not (state.raw or state.published or state.problem)]
    if missing:
        first = min(missing)
        return f"{first} is not published yet; expected about {expected_on(first.month):%Y-%m-%d}.{again}"
    if damaged := [state for state in states if state.problem]:
        return f"{damaged[0].dataset_month} cannot be judged. {damaged[0].problem}{again}"
    if any(state.reason for state in states):
        return f"Every month that needs work is being worked on.{again}"
    return f"Every month that was looked at is loaded in its last version.{again}"
