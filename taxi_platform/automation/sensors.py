"""A sensor per dataset that watches the source for months that are new, republished or outdated.

It is off until somebody turns it on. It may be on together with the schedule: both leave months with a run alone.

Dagster reads the annotations of these functions when it decorates them, so they are not postponed here.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg

from taxi_platform.assets.names import job_name
from taxi_platform.assets.resources import LakeResource, SourceResource, WarehouseResource
from taxi_platform.automation.ticks import NEWEST, PRIORITY, Tick, run_request
from taxi_platform.ingestion.survey import ask_always
from taxi_platform.runs.dagster_internals import get_current_datetime
from taxi_platform.trips.errors import DamagedFile
from taxi_platform.trips.months import Dataset, Month, newest_month
from taxi_platform.trips.stored_json import FORMAT_VERSION, NUMBER, check_format

LOOK_EVERY = timedelta(hours=6)
LOOK_AGAIN = timedelta(hours=1)
"""If the source did not answer."""
JITTER = 0.2
OLDER_MONTHS = 2
"""Months in the lake that are asked about each time, in turn, besides the `NEWEST`: 16 questions a day in all."""
TICK_SECONDS = 60


@dataclass(frozen=True)
class Cursor:
    """The sensor's cursor: when to look next (UTC), and the older month that was asked about last."""

    look_at: datetime = datetime(2009, 1, 1, tzinfo=UTC)
    last_older: str = ""

    @classmethod
    def parse(cls, text: str | None) -> "Cursor":
        """The stored cursor, or a new one if it is damaged; raises `NewerFormat`."""
        try:
            fields = json.loads(text or "{}")
            check_format(fields.get(NUMBER, 1), "The sensor's cursor", "cursor", "It is made anew.")
            look_at = datetime.fromisoformat(fields["look_at"])
            return cls(look_at if look_at.tzinfo else look_at.replace(tzinfo=UTC), str(fields["last_older"]))
        except (ValueError, KeyError, TypeError, AttributeError, DamagedFile):
            return cls()

    def __str__(self) -> str:
        fields = {"look_at": self.look_at.isoformat(timespec="seconds"), "last_older": self.last_older}
        return json.dumps({NUMBER: FORMAT_VERSION, **fields})


def publication_sensor(dataset: Dataset, reject: Sequence[str]) -> dg.SensorDefinition:
    """`{dataset}_publication`: a run for every month that is new, republished or outdated."""

    @dg.sensor(
        name=f"{dataset}_publication",
        job_name=job_name(dataset),
        minimum_interval_seconds=TICK_SECONDS,
        description=(
            f"Asks the source about the {NEWEST} newest months of {dataset} every {LOOK_EVERY.seconds // 3600} hours "
            "(the ticks in between only check whether it is time) and about "
            f"{OLDER_MONTHS} older ones in the lake, in turn, and starts a run for each that is new, republished or "
            "cleaned under another contract or other reject rules. Older months that were never fetched are left to "
            "the schedule."
        ),
    )
    def publication(
        context: dg.SensorEvaluationContext, source: SourceResource, lake: LakeResource, warehouse: WarehouseResource
    ) -> dg.SensorResult | dg.SkipReason:
        now, cursor = get_current_datetime(), Cursor.parse(context.cursor)
        # A time further ahead was written while the clock was wrong; waiting for it could take years.
        if now < cursor.look_at <= now + LOOK_EVERY * (1 + JITTER):
            return dg.SkipReason(f"The next look at the source is at {cursor.look_at:%Y-%m-%d %H:%M} UTC.")
        tick = Tick(context.instance, dataset, now, reject, source, lake, warehouse)
        newest = [newest_month(now.date()).plus(-back) for back in range(NEWEST)]
        older = _next_in_turn(
            [month for month in sorted(tick.survey.months_in_lake) if month < newest[-1]], cursor.last_older
        )
        due = tick.look([*newest, *older], ask_always, NEWEST + OLDER_MONTHS)
        tick.state.save_answers()
        was_answered = not (tick.survey.source_problem or tick.survey.not_reached or tick.survey.over_limit)
        wait = LOOK_EVERY if was_answered else LOOK_AGAIN
        look_at = now + wait * random.uniform(1 - JITTER, 1 + JITTER)
        last_older = str(older[-1]) if older and was_answered else cursor.last_older
        message = f"{tick.message()} The next look is at {look_at:%Y-%m-%d %H:%M} UTC."
        if not due:
            return dg.SensorResult(skip_reason=message, cursor=str(Cursor(look_at, last_older)))
        context.log.info(message)
        requests = [run_request(state, now, PRIORITY) for state in due]
        return dg.SensorResult(run_requests=requests, cursor=str(Cursor(look_at, last_older)))

    return publication


def _next_in_turn(months: Sequence[Month], last: str) -> list[Month]:
    """The next `OLDER_MONTHS` months after the last one that was asked about; after the newest comes the oldest."""
    later = [month for month in months if str(month) > last]
    return [*later, *months][: min(OLDER_MONTHS, len(months))]
