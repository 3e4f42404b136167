"""What the ticks of schedules and sensors share: a survey of the months that have no run, and a message about it."""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Sequence
from contextlib import closing
from datetime import UTC, datetime

import dagster as dg

from taxi_platform.assets.marts import mart_keys
from taxi_platform.assets.names import ASKED_TAG, PRIORITY_TAG, REASON_TAG
from taxi_platform.assets.resources import LakeResource, SourceResource, WarehouseResource
from taxi_platform.automation.busy_months import busy_months, day_of
from taxi_platform.ingestion.survey import MonthState, Question, Stage, Survey, expected_on
from taxi_platform.ingestion.survey_state import REQUESTS_A_DAY, SurveyState, source_name
from taxi_platform.marts.tables import mart_version
from taxi_platform.trips.errors import DamagedRaw
from taxi_platform.trips.months import Dataset, Month

LOOK_SECONDS = 20.0
"""For the survey of one tick: Dagster ends a tick after 60 s, and one request may take 30 s to time out."""
PAUSE_SECONDS = 0.2
"""The longest pause before a request: with four at once and responses of 100 ms, a source gets 20 requests a second."""
NEWEST = 2
"""The newest months: looked at in every tick, and their runs overtake the others in the queue."""
PRIORITY, NO_PRIORITY = "10", "0"


class Tick:
    """One evaluation of a schedule or sensor of a dataset."""

    def __init__(
        self,
        instance: dg.DagsterInstance,
        dataset: Dataset,
        now: datetime,
        reject: Sequence[str],
        source: SourceResource,
        lake: LakeResource,
        warehouse: WarehouseResource,
    ) -> None:
        self.dataset = dataset
        self.busy = busy_months(instance, dataset, now)
        self.state = SurveyState(lake.work_home, dataset, source_name(source.url), now.astimezone(UTC))
        self.survey = Survey(
            source.open().for_polling(_pause),
            lake.open(),
            warehouse.open().for_polling(),
            dataset,
            reject,
            self.state,
            LOOK_SECONDS,
        )
        self.states: list[MonthState] = []
        self.unfinished: list[Month] = []
        self.failed_today: list[Month] = []
        self.without_room: list[Month] = []

    def look(
        self, months: Sequence[Month], ask: Question, enough: int, without_room: Collection[Month] = ()
    ) -> list[MonthState]:
        """The months that need a run, in order, at most `enough`.

        Months that have a run and those that failed today are left out before anything is asked, and so are those in
        `without_room`, for which the queue is already too long.
        """
        self.unfinished = [month for month in months if month in self.busy.unfinished]
        self.failed_today = sorted(self.busy.failed_today.intersection(months) - self.busy.unfinished)
        idle = [month for month in months if month not in self.busy]
        self.without_room = [month for month in idle if month in without_room]
        due: list[MonthState] = []
        with closing(self.survey.look([month for month in idle if month not in without_room], ask)) as states:
            for state in states:
                self.states.append(state)
                if state.reason:
                    due.append(state)
                if len(due) >= enough:
                    break
        return due

    def save_stop(self, in_order: Sequence[Month]) -> None:
        """Save the last of these months that was looked at, unless all were; if the source failed, keep the old one."""
        survey = self.survey
        was_cut_short = bool(survey.not_reached or survey.over_limit)
        seen = {state.dataset_month.month for state in self.states}.difference(survey.over_limit)
        looked_at = [month for month in in_order if month in seen]
        if self.without_room or survey.source_problem or (was_cut_short and not looked_at):
            self.state.save_answers()
        else:
            self.state.save(looked_at[-1] if was_cut_short else None)

    def message(self) -> str:
        """What the UI shows for the tick: which months get a run, and which were not looked at, and why."""
        sentences = [*self._problems(), *self._months_left_out()]
        missing = [state.dataset_month for state in self.states if state.stage == Stage.NOT_PUBLISHED]
        if missing:
            last = max(missing)
            sentences.append(f"{last} is not published yet; expected about {expected_on(last.month):%Y-%m-%d}.")
        requested = sum(state.reason is not None for state in self.states)
        if requested:
            sentences.insert(0, f"Runs are requested for {_count(requested)}.")
        return " ".join(sentences) or "Every month that was looked at is loaded in its latest version."

    def _problems(self) -> list[str]:
        sentences = []
        if self.survey.source_problem:
            sentences.append(f"The source does not answer: {self.survey.source_problem.problem}")
        if self.survey.warehouse_problem:
            sentences.append(
                f"{self.survey.warehouse_problem.problem} Months that are clean in the lake count as loaded this time."
            )
        damaged = [state for state in self.states if state.problem]
        if damaged:
            more = f" (and {len(damaged) - 1} more)" if len(damaged) > 1 else ""
            outcome = "is left as it is" if isinstance(damaged[0].problem, DamagedRaw) else "cannot be judged"
            sentences.append(f"{damaged[0].dataset_month} {outcome}{more}. {damaged[0].problem}")
        return sentences

    def _months_left_out(self) -> list[str]:
        sentences = []
        if self.unfinished:
            sentences.append(f"{_count(len(self.unfinished))}: a run is in progress or queued.")
        if self.failed_today:
            sentences.append(f"{_span(self.failed_today)} failed today and will be tried again tomorrow.")
        if set_aside := [state.dataset_month.month for state in self.states if state.stage == Stage.SET_ASIDE]:
            sentences.append(f"{_span(set_aside)}: a version looks wrong and is set aside; see taxi status.")
        if self.without_room:
            sentences.append(f"{_span(self.without_room)} will be looked at when fewer runs are queued.")
        if self.survey.over_limit:
            sentences.append(
                f"{_span(self.survey.over_limit)} will be asked about tomorrow: "
                f"the source's {REQUESTS_A_DAY} requests for today are used up."
            )
        not_reached = self.survey.not_reached
        if not_reached and not self.survey.source_problem:
            sentences.append(f"{_span(not_reached)} not reached in this tick; the next tick continues there.")
        return sentences


def run_request(state: MonthState, now: datetime, priority: str) -> dg.RunRequest:
    """The run that a month needs, of its marts alone if nothing else is due. `now` is the tick's time."""
    dataset, today = state.dataset_month.dataset, day_of(now)
    version = state.published.version if state.published else "kept"
    marts = f" marts {mart_version(dataset)}" if state.needs_only_marts else ""
    return dg.RunRequest(
        # Dagster starts one run per key: with the day in it, a month that failed is tried again the next day.
        run_key=f"{state.dataset_month} {version} {state.file_version or 'new'}{marts} {today}",
        partition_key=str(state.dataset_month.month),
        asset_selection=mart_keys(dataset) if state.needs_only_marts else None,
        tags={PRIORITY_TAG: priority, REASON_TAG: str(state.reason), ASKED_TAG: today},
    )


def _pause() -> None:
    time.sleep(random.uniform(0, PAUSE_SECONDS))


def _count(months: int) -> str:
    return "1 month" if months == 1 else f"{months} months"


def _span(months: Collection[Month]) -> str:
    """`2020-04`, or `36 months (2019-01 to 2021-12)`."""
    if len(months) == 1:
        return str(min(months))
    return f"{len(months)} months ({min(months)} to {max(months)})"
