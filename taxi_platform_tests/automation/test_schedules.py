"""What schedules ask for: the limit, the months that are left out, the day's requests, locked tables; TAXI_SCHEDULE."""

import re
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test, freeze_time

from taxi_platform.assets.names import RANGE_END_TAG, RANGE_START_TAG
from taxi_platform.automation import ticks
from taxi_platform.automation.schedules import CATCH_UP, check_schedule
from taxi_platform.automation.sensors import Cursor
from taxi_platform.definitions import build_definitions
from taxi_platform.ingestion import steps, survey_state
from taxi_platform.lake import open_lake
from taxi_platform.runs.history import dataset_months_of
from taxi_platform.settings import load_settings
from taxi_platform.sources import open_source
from taxi_platform.sources.sample.source import SampleSource
from taxi_platform.sources.sample.writing import write_sample
from taxi_platform.trips.engine import Engine
from taxi_platform.trips.errors import LooksWrong, SettingError
from taxi_platform.trips.months import DatasetMonth, Month
from taxi_platform.warehouse import open_warehouse
from taxi_platform_tests.ingestion.test_survey import held
from taxi_platform_tests.support.web_server import S3_DENIED, Page, serving

NOW = datetime(2026, 11, 25, 6, 14, tzinfo=ZoneInfo("America/New_York"))
TODAY = {"taxi/asked_on": "2026-11-25"}
NEWEST = Month(2026, 9)
FAILED, WAITING, STARTED = (dg.DagsterRunStatus[name] for name in ("FAILURE", "NOT_STARTED", "STARTED"))


@pytest.mark.parametrize("cron", ["every morning", "61 6 * * *"])
def test_a_wrong_cron_line_is_named_with_an_example(cron):
    with pytest.raises(SettingError, match=r"TAXI_SCHEDULE is .*such as 30 6 \* \* \*"):
        check_schedule(cron)


@pytest.mark.parametrize("cron", [None, "30 22 * * 1-5"])
def test_a_cron_line_and_none_pass(cron):
    check_schedule(cron)


@dataclass
class Daemon:
    """The daemon's part: evaluates ticks over an instance whose runs the test makes."""

    web: object
    instance: dg.DagsterInstance
    definitions: dg.Definitions

    def tick(self, now=NOW, name="green_schedule"):
        """The months that a tick of the schedule requests, and its message where it requests none."""
        requests, message = self.schedule_tick(now, name)
        return [Month.parse(request.partition_key) for request in requests], message

    def schedule_tick(self, now=NOW, name="green_schedule"):
        """The run requests of a tick of the schedule, and its message."""
        repository, resources = self.definitions.get_repository_def(), self.definitions.resources
        built = dg.build_schedule_context(self.instance, now, resources=resources, repository_def=repository)
        with freeze_time(now), built as context:
            result = repository.get_schedule_def(name).evaluate_tick(context)
        return result.run_requests, result.skip_message

    def sensor(self, cursor=None):
        requests, message = self.sensor_tick(cursor)
        return [Month.parse(request.partition_key) for request in requests], message

    def sensor_tick(self, cursor=None):
        repository, resources = self.definitions.get_repository_def(), self.definitions.resources
        built = dg.build_sensor_context(self.instance, cursor=cursor, definitions=self.definitions, resources=resources)
        with freeze_time(NOW), built as context:
            result = repository.get_sensor_def("green_publication").evaluate_tick(context)
        return result.run_requests, result.skip_message

    def runs(self, status, months, **tags):
        for month in months:
            run_tags = {"dagster/partition": str(month), **TODAY, **tags}
            create_run_for_test(self.instance, job_name="green_ingest", status=status, tags=run_tags)

    def publish(self, *months):
        for month in months:
            self.web.pages[f"/green_{month}.csv.gz"] = Page(b"a file", etag=f'"{month}"')

    def asked(self):
        return Counter(path.removeprefix("/green_")[:7] for _, path, _ in self.web.requests)


@pytest.fixture
def daemon(monkeypatch, tmp_path):
    """Green since 2013-08, 158 months, of which none is published yet."""
    with serving() as web:
        monkeypatch.setenv("TAXI_SOURCE_URL", web.url + "/{dataset}_{month}.csv.gz")
        monkeypatch.setenv("TAXI_DATASETS", "green")
        monkeypatch.setenv("TAXI_SINCE", "2009-01")
        monkeypatch.setattr(ticks, "PAUSE_SECONDS", 0.0)
        for month in Month(2013, 8).until(NEWEST):
            web.pages[f"/green_{month}.csv.gz"] = Page(S3_DENIED, 403)
        (tmp_path / "dagster").mkdir()
        with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance:
            yield Daemon(web, instance, build_definitions(load_settings()))


def back(first, count):
    return [NEWEST.plus(-n) for n in range(first, first + count)]


@pytest.mark.fault(50)
def test_a_tick_asks_for_the_newest_months_up_to_the_limit_and_about_few_others(daemon):
    daemon.publish(*back(0, 158))
    months, _ = daemon.tick()
    assert months == back(0, CATCH_UP)
    assert len(daemon.asked()) < CATCH_UP + 10


def test_the_next_tick_leaves_out_what_waits_and_asks_for_so_many_that_the_limit_is_kept(daemon):
    daemon.publish(*back(0, 158))
    daemon.tick()
    daemon.runs(WAITING, back(0, 6))
    daemon.web.requests.clear()
    months, _ = daemon.tick()
    assert months == back(CATCH_UP, CATCH_UP - 6)  # the others ended meanwhile, and come again in their turn
    assert not set(map(str, back(0, 6))) & set(daemon.asked())


def test_a_full_queue_is_left_alone_but_for_the_newest_months(daemon):
    daemon.publish(*back(0, 158))
    daemon.runs(STARTED, back(1, CATCH_UP))
    months, _ = daemon.tick()
    assert months == [NEWEST]
    daemon.runs(STARTED, [NEWEST])
    months, message = daemon.tick()
    assert months == []
    assert "37 months: a run is in progress or queued." in message
    assert "121 months (2013-08 to 2023-08) will be looked at when fewer runs are queued." in message


@pytest.mark.fault(52)
def test_months_that_failed_today_do_not_starve_the_others_and_are_called_failed(daemon):
    daemon.publish(*back(0, 60))
    daemon.runs(FAILED, back(0, CATCH_UP))
    months, _ = daemon.tick()
    assert months == back(CATCH_UP, 60 - CATCH_UP)
    daemon.runs(FAILED, back(CATCH_UP, 60 - CATCH_UP))
    months, message = daemon.tick()
    assert months == []
    assert "60 months (2021-10 to 2026-09) failed today and will be tried again tomorrow." in message
    assert "in progress" not in message
    months, _ = daemon.tick(NOW.replace(day=26))
    assert months == back(0, CATCH_UP)


@pytest.mark.fault(61)
def test_schedule_and_sensor_start_no_run_of_a_month_set_aside_until_its_source_has_another_version(daemon, tmp_path):
    write_sample(DatasetMonth.parse("fhv", "2020-04"), 50, tmp_path / "fhv.csv.gz")
    daemon.web.pages[f"/green_{NEWEST}.csv.gz"] = Page((tmp_path / "fhv.csv.gz").read_bytes(), etag='"wrong"')
    settings = load_settings()
    source, lake = open_source(settings.source_url), open_lake(settings.lake_url)
    with pytest.raises(LooksWrong):
        steps.fetch(source, lake, DatasetMonth.parse("green", str(NEWEST)), settings.home, judge=True)
    for months, message in (daemon.tick(), daemon.sensor()):
        assert months == []
        assert "2026-09: a version looks wrong and is set aside; see taxi status." in message
    daemon.web.pages[f"/green_{NEWEST}.csv.gz"].etag = '"another"'
    assert daemon.tick(NOW + timedelta(days=1))[0] == [NEWEST]


@pytest.mark.fault(49)
def test_a_range_of_an_older_version_counts_for_each_of_its_months(daemon):
    daemon.publish(*back(0, 8))
    first, last = RANGE_START_TAG, RANGE_END_TAG
    tags = {first: "2026-03", last: "2026-07", **TODAY}
    run = create_run_for_test(daemon.instance, job_name="green_ingest", status=STARTED, tags=tags)
    assert dataset_months_of(run) == [DatasetMonth.parse("green", f"2026-0{n}") for n in range(3, 8)]
    months, _ = daemon.tick()
    assert [str(month) for month in months] == ["2026-09", "2026-08", "2026-02"]


def test_a_run_of_another_dataset_or_asset_is_none_of_its_months(daemon):
    daemon.publish(NEWEST)
    for tags in ({"dagster/partition": "2026-09"}, {"dagster/partition": "customers"}, {}):
        create_run_for_test(daemon.instance, job_name="yellow_ingest", status=STARTED, tags=tags)
    months, _ = daemon.tick()
    assert months == [NEWEST]


@pytest.mark.fault(50)
def test_what_a_tick_does_not_reach_is_named_and_the_next_one_continues_there(daemon, monkeypatch):
    oldest = Month(2013, 8)
    daemon.publish(oldest)
    monkeypatch.setattr(survey_state, "ASK_AGAIN", survey_state.ASK_NEWEST_AGAIN)
    monkeypatch.setattr(ticks, "LOOK_SECONDS", 0.0)
    months, message = daemon.tick()
    assert (months, daemon.asked()) == ([], Counter())
    assert message == "158 months (2013-08 to 2026-09) not reached in this tick; the next tick continues there."
    monkeypatch.setattr(ticks, "LOOK_SECONDS", 60.0)
    months, _ = daemon.tick()
    assert months == [oldest]


@pytest.mark.fault(53)
def test_no_number_of_ticks_exceeds_the_days_requests(daemon, monkeypatch):
    monkeypatch.setattr(survey_state, "REQUESTS_A_DAY", 100)
    monkeypatch.setattr(ticks, "REQUESTS_A_DAY", 100)
    for _ in range(4):
        _, message = daemon.tick()
        daemon.sensor()
    assert "the source's 100 requests for today are used up" in message
    assert sum(daemon.asked().values()) == 100
    # What was not asked about today comes first tomorrow.
    daemon.web.requests.clear()
    daemon.tick(NOW.replace(day=26))
    assert len(daemon.asked()) == 50
    assert str(NEWEST.plus(-60)) in daemon.asked()


@pytest.mark.fault(51)
def test_a_table_that_a_load_holds_lets_ticks_judge_by_the_lake(daemon):
    settings = load_settings()
    lake, warehouse = open_lake(settings.lake_url), open_warehouse(settings.warehouse_url)
    for month in back(1, 2):
        dataset_month = DatasetMonth.parse("green", str(month))
        steps.fetch(SampleSource(50), lake, dataset_month, settings.home)
        steps.clean(lake, dataset_month, settings.home, Engine(threads=1))
    loaded = DatasetMonth.parse("green", str(NEWEST.plus(-1)))
    steps.load(lake, warehouse, loaded, settings.home)
    steps.build_marts(lake, warehouse, loaded, settings.home)
    with held(settings.home / "warehouse.duckdb.lock"):
        months, message = daemon.tick()
    assert months == []
    assert "warehouse.duckdb" in message
    assert "Months that are clean in the lake count as loaded this time." in message
    months, _ = daemon.tick()
    assert months == [NEWEST.plus(-2)]


@pytest.mark.fault(98)
def test_schedule_and_sensor_ask_for_the_marts_alone_where_nothing_else_is_due(daemon):
    settings, month = load_settings(), DatasetMonth.parse("green", str(NEWEST))
    lake, warehouse = open_lake(settings.lake_url), open_warehouse(settings.warehouse_url)
    steps.fetch(SampleSource(50), lake, month, settings.home)
    steps.clean(lake, month, settings.home, Engine(threads=1))
    steps.load(lake, warehouse, month, settings.home)
    daemon.publish(NEWEST.plus(-1))
    names = ("daily_zones", "hours", "zone_pairs", "payments", "quality")
    for requests, _ in (daemon.schedule_tick(), daemon.sensor_tick()):
        of_marts, of_month = requests
        assert {key.to_user_string() for key in of_marts.asset_selection} == {f"green/{name}" for name in names}
        assert (of_marts.partition_key, of_marts.tags["taxi/reason"]) == ("2026-09", "marts due")
        assert (of_month.partition_key, of_month.asset_selection) == ("2026-08", None)
    steps.build_marts(lake, warehouse, month, settings.home)
    assert daemon.tick()[0] == [NEWEST.plus(-1)]


def test_a_source_that_is_down_is_said_and_the_lake_is_judged_without_it(daemon):
    for page in daemon.web.pages.values():
        page.status, page.body = 503, b"busy"
    months, message = daemon.tick()
    assert months == []
    assert re.search(r"The source does not answer: http\S+ answered 503 Service Unavailable\.", message)
    assert len(daemon.web.requests) <= 4


def test_a_sensor_leaves_out_a_month_that_is_under_way(daemon):
    daemon.publish(*back(0, 3))
    daemon.runs(WAITING, [NEWEST])
    months, _ = daemon.sensor()
    assert months == [NEWEST.plus(-1)]


@pytest.mark.parametrize(("ahead", "asks"), [(timedelta(hours=6), False), (timedelta(days=3650), True)])
def test_a_sensor_waits_for_its_next_look_but_not_for_years_after_a_wrong_clock(daemon, ahead, asks):
    daemon.publish(NEWEST)
    months, _ = daemon.sensor(cursor=str(Cursor(NOW + ahead)))
    assert months == ([NEWEST] if asks else [])
