"""A year passes: the TLC publishes late, out of order, again, brokenly; nobody touches anything, and all gets in."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.test_utils import freeze_time

from taxi_platform.automation import sensors, ticks
from taxi_platform.definitions import build_definitions
from taxi_platform.ingestion.survey import Survey
from taxi_platform.lake import open_lake
from taxi_platform.lake.months import LakeMonth
from taxi_platform.notifications.delivery import note_and_deliver
from taxi_platform.settings import load_settings
from taxi_platform.sources import open_source
from taxi_platform.sources.sample.writing import write_sample
from taxi_platform.trips.files import verify
from taxi_platform.trips.months import Dataset, DatasetMonth, Month
from taxi_platform.warehouse import open_warehouse
from taxi_platform_tests.support.notification_receivers import Hook, web_hook
from taxi_platform_tests.support.web_server import S3_DENIED, Page, Web, serving

PUBLISHED = {
    "2025-10": [date(2025, 12, 20)],
    "2025-11": [date(2026, 1, 12), date(2026, 3, 25)],  # and again, with more rows
    "2025-12": [date(2026, 2, 25)],
    "2026-01": [date(2026, 3, 10), date(2026, 9, 17)],
    "2026-02": [date(2026, 6, 1)],  # after the month that follows it
    "2026-03": [date(2026, 5, 20)],
    "2026-04": [date(2026, 6, 2)],
    "2026-05": [date(2026, 7, 25)],  # while the source refuses everybody
    "2026-06": [date(2026, 8, 5)],  # as a page of HTML, for four days
    "2026-07": [date(2026, 9, 20)],
    "2026-08": [date(2026, 10, 10)],
    "2026-09": [date(2026, 11, 28)],
    "2026-10": [date(2026, 12, 20)],
}
RATE_LIMITED = (date(2026, 7, 24), date(2026, 7, 27))
BROKEN = ("2026-06", date(2026, 8, 5), date(2026, 8, 8))
ROWS = 200


@pytest.fixture
def year(monkeypatch, tmp_path):
    with serving() as web, web_hook() as hook:
        monkeypatch.setenv("TAXI_NOTIFY_URLS", f"json://{hook.address}/hook")
        monkeypatch.setenv("TAXI_SOURCE_URL", web.url + "/{dataset}_tripdata_{month}.csv.gz")
        monkeypatch.setenv("TAXI_SINCE", "2025-10")
        monkeypatch.setattr(ticks, "PAUSE_SECONDS", 0.0)
        # One look a day instead of four, always at noon: the year takes a minute.
        monkeypatch.setattr(sensors, "LOOK_EVERY", timedelta(hours=20))
        monkeypatch.setattr(sensors, "JITTER", 0.0)
        (tmp_path / "dagster").mkdir()
        with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance:
            yield Year(web, instance, build_definitions(load_settings()), Cdn(web, tmp_path), hook)


@dataclass
class Cdn:
    """Serves on every day what the plan says, with ETags; what is not published is denied as S3 denies it."""

    web: Web
    folder: Path
    bodies: dict[tuple[str, int], bytes] = field(default_factory=dict)

    def body(self, month: str, version: int) -> bytes:
        if (month, version) not in self.bodies:
            path = self.folder / f"{month}-{version}.csv.gz"
            write_sample(DatasetMonth.parse("green", month), rows_of(version), path)
            self.bodies[month, version] = path.read_bytes()
        return self.bodies[month, version]

    def show(self, day: date) -> None:
        limited = RATE_LIMITED[0] <= day <= RATE_LIMITED[1]
        for back in range(40):
            month = str(Month.of(day).plus(-back))
            self.web.pages[f"/green_tripdata_{month}.csv.gz"] = (
                Page(b"<html>Request blocked</html>", 403) if limited else self.page(month, day)
            )

    def page(self, month: str, day: date) -> Page:
        version = sum(published <= day for published in PUBLISHED.get(month, []))
        if not version:
            return Page(S3_DENIED, 403)
        if BROKEN[0] == month and BROKEN[1] <= day <= BROKEN[2]:
            return Page(b"<html>We are sorry</html>", etag='"broken"')
        return Page(self.body(month, version), etag=f'"{month}-{version}"')


def rows_of(version: int) -> int:
    return ROWS + 50 * (version - 1)


@dataclass
class Year:
    """The daemon's part: evaluates sensor and schedule as the real one does, and runs what they ask for."""

    web: Web
    instance: dg.DagsterInstance
    definitions: dg.Definitions
    cdn: Cdn
    hook: Hook
    cursor: str | None = None
    keys: set[str] = field(default_factory=set)
    runs: list[tuple[date, str, str, bool]] = field(default_factory=list)
    skips: list[tuple[date, str]] = field(default_factory=list)

    def pass_by(self, first: date, last: date) -> None:
        day = first
        while day <= last:
            self.cdn.show(day)
            self.hour(datetime(day.year, day.month, day.day, 10, 14, tzinfo=UTC), self.schedule)
            self.hour(datetime(day.year, day.month, day.day, 17, 0, tzinfo=UTC), self.sensor)
            day += timedelta(days=1)

    def hour(self, now: datetime, tick) -> None:
        with freeze_time(now):
            requests, reason, by = tick(now)
            if reason:
                self.skips.append((now.date(), reason))
            for request in requests:
                if (key := f"{by} {request.run_key}") not in self.keys:
                    self.keys.add(key)
                    self.run(request, now.date())

    def sensor(self, now: datetime):
        definitions = self.definitions
        sensor = definitions.get_repository_def().get_sensor_def("green_publication")
        with dg.build_sensor_context(
            self.instance, self.cursor, definitions=definitions, resources=definitions.resources
        ) as context:
            tick = sensor.evaluate_tick(context)
        self.cursor = tick.cursor or self.cursor
        return tick.run_requests, tick.skip_message, "sensor"

    def schedule(self, now: datetime):
        definitions = self.definitions
        repository = definitions.get_repository_def()
        schedule = repository.get_schedule_def("green_schedule")
        resources = definitions.resources
        with dg.build_schedule_context(self.instance, now, resources=resources, repository_def=repository) as context:
            context._instance = self.instance  # opened anew it would take 0.2 s, a quarter of the test
            tick = schedule.evaluate_tick(context)
        return tick.run_requests, tick.skip_message, "schedule"

    def run(self, request: dg.RunRequest, day: date) -> None:
        job = self.definitions.resolve_job_def("green_ingest")
        result = job.execute_in_process(
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            instance=self.instance,
            partition_key=request.partition_key,
            tags=dict(request.tags),
            raise_on_error=False,
        )
        self.runs.append((day, request.partition_key, request.tags["taxi/reason"], result.success))
        note_and_deliver(self.instance, load_settings(), 0.0, print)


@pytest.mark.slow
def test_a_year_passes_and_every_month_is_loaded_once_in_its_last_version(year):
    year.pass_by(date(2026, 1, 1), date(2026, 12, 31))

    settings, lake = load_settings(), open_lake(load_settings().lake_url)
    warehouse = open_warehouse(settings.warehouse_url)
    loaded = warehouse.loaded_months("green_trips")
    assert sorted(loaded) == sorted(PUBLISHED)
    for month, days in PUBLISHED.items():
        versions, _ = LakeMonth(lake, DatasetMonth.parse("green", month)).versions()
        assert [version.rows for version in versions] == [rows_of(i + 1) for i in range(len(days))]
        assert len(loaded[month].file_versions) == 1
    survey = Survey(open_source(settings.source_url), lake, warehouse, Dataset.GREEN)
    states = list(survey.look([Month.parse(month) for month in PUBLISHED]))
    assert [state.reason for state in states] == [None] * len(PUBLISHED)

    succeeded = [run for run in year.runs if run[3]]
    failed = [run for run in year.runs if not run[3]]
    assert Counter(reason for _, _, reason, _ in succeeded) == {"missing": len(PUBLISHED), "republished": 2}
    assert [(day, month) for day, month, _, _ in failed] == [(date(2026, 8, 5 + i), "2026-06") for i in range(4)]
    # Each within a day of its publication, but for what the source refused, and republished months in their turn.
    late = {month: (day - PUBLISHED[month][0]).days for day, month, reason, _ in succeeded if reason == "missing"}
    assert late == dict.fromkeys(PUBLISHED, 0) | {"2025-10": 12, "2026-05": 3, "2026-06": 4}
    again = {month: (day - PUBLISHED[month][1]).days for day, month, reason, _ in succeeded if reason == "republished"}
    assert all(days <= len(PUBLISHED) for days in again.values()) and len(again) == 2

    messages = [message.splitlines()[0] for message in year.hook.messages()]
    ends = {True: "was loaded.", False: "failed."}
    assert messages == [f"green {month} {ends[success]}" for _, month, _, success in year.runs]
    assert sum("+50 compared with the previous file" in message for message in year.hook.messages()) == 2

    reasons = [reason for _, reason in year.skips]
    limited = [reason for day, reason in year.skips if RATE_LIMITED[0] <= day <= RATE_LIMITED[1]]
    assert len(limited) == 8 and all("does not answer" in reason for reason in limited)
    assert any("2026-09 is not published yet; expected about 2026-11-30." in reason for reason in reasons)
    # 365 days: a look at two new and two older months each, a question about each missing one; then the fetches.
    fetches = sum(method == "GET" and "Range" not in headers for method, _, headers in year.web.requests)
    assert fetches == len(year.runs)
    print(
        f"{len(year.runs)} runs, {len(year.web.requests)} requests, {fetches} fetches in {len(year.cdn.bodies)} files"
    )
    assert len(year.web.requests) < 365 * 10


def test_a_sample_of_the_year_is_what_it_says(tmp_path):
    write_sample(DatasetMonth.parse("green", "2026-01"), rows_of(2), tmp_path / "a.csv.gz")
    assert verify(tmp_path / "a.csv.gz").rows == 250
