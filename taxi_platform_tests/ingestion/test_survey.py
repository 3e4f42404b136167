"""The survey: what it decides of a month, how it asks the source, and what it leaves for the next tick."""

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from filelock import FileLock

from taxi_platform.ingestion import steps, survey_state
from taxi_platform.ingestion import survey as survey_module
from taxi_platform.ingestion.comparing import COMPARE_EVERY
from taxi_platform.ingestion.survey import REQUESTS_AT_ONCE, Stage, Survey, ask_missing, ask_never
from taxi_platform.ingestion.survey_state import SurveyState
from taxi_platform.lake import open_lake
from taxi_platform.lake.months import LakeMonth
from taxi_platform.sources import open_source
from taxi_platform.sources.base import Source
from taxi_platform.sources.sample.source import SampleSource
from taxi_platform.trips.engine import Engine
from taxi_platform.trips.errors import LakeError
from taxi_platform.trips.months import Dataset, DatasetMonth, Month
from taxi_platform.trips.publication import Publication
from taxi_platform.warehouse import open_warehouse
from taxi_platform_tests.support.web_server import Page, serving

GREEN = DatasetMonth.parse("green", "2020-04")
MONTHS = sorted(Month(2019, 1).until(Month(2020, 12)), reverse=True)
NOW = datetime(2021, 3, 1, 12, 0, tzinfo=UTC)


@dataclass
class Place:
    """A lake, a warehouse and their home."""

    home: Path

    @property
    def lake(self):
        return open_lake((self.home / "lake").as_uri())

    @property
    def warehouse(self):
        return open_warehouse(f"duckdb://{self.home}/warehouse.duckdb")

    def survey(self, source, **options):
        return Survey(source, self.lake, self.warehouse.for_polling(), Dataset.GREEN, **options)

    def state(self, now=NOW, source="here"):
        return SurveyState(self.home, Dataset.GREEN, source, now)

    def ingest(self, source, dataset_month=GREEN):
        fetched = steps.fetch(source, self.lake, dataset_month, self.home)
        steps.clean(self.lake, dataset_month, self.home, Engine(threads=1))
        steps.load(self.lake, self.warehouse, dataset_month, self.home)
        steps.build_marts(self.lake, self.warehouse, dataset_month, self.home)
        return fetched


@pytest.fixture
def house(tmp_path):
    return Place(tmp_path / "home")


@dataclass
class Answers(Source):
    """A source that publishes `published`; `hold` may keep a question waiting."""

    published: tuple[Month, ...] = ()
    hold: object = None
    asked: list[Month] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def address(self, dataset_month):
        return "answers"

    def stat(self, dataset_month):
        with self.lock:
            self.asked.append(dataset_month.month)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.hold:
                self.hold.wait(30)
        finally:
            with self.lock:
                self.at_once -= 1
        month = dataset_month.month
        return Publication(f"https://somewhere/{month}", "1", etag="1") if month in self.published else None

    def fetch(self, *arguments):
        raise AssertionError("a survey asks about months and fetches none")


def test_months_come_in_the_order_asked_for_and_several_questions_are_under_way_but_never_more_than_four(house):
    # The barrier lets questions pass only four together: asked one by one, none would ever be answered.
    source = Answers((Month(2019, 5),), hold=threading.Barrier(REQUESTS_AT_ONCE))
    states = list(house.survey(source).look(MONTHS))
    assert [state.dataset_month.month for state in states] == MONTHS
    assert source.most_at_once == REQUESTS_AT_ONCE
    assert [str(state.dataset_month.month) for state in states if state.reason == "missing"] == ["2019-05"]
    assert {state.stage for state in states} == {Stage.PUBLISHED, Stage.NOT_PUBLISHED}


def test_a_caller_that_has_enough_stops_and_the_rest_is_not_asked_about(house):
    source = Answers(tuple(MONTHS))
    survey = house.survey(source)
    look = survey.look(MONTHS)
    states = [next(look) for _ in range(3)]
    look.close()
    assert [state.dataset_month.month for state in states] == MONTHS[:3]
    assert survey.not_reached == MONTHS[3:]
    assert len(source.asked) < len(MONTHS)


@pytest.mark.fault(50)
def test_a_source_that_hangs_ends_the_look_at_its_time_and_what_was_not_reached_is_named(house):
    release = threading.Event()
    survey = house.survey(Answers(hold=release), seconds=0.2)
    try:
        assert list(survey.look(MONTHS)) == []  # returns, though no question was answered
        assert survey.not_reached == MONTHS
    finally:
        release.set()


@pytest.mark.fault(51)
def test_a_table_that_a_load_holds_is_not_waited_for_and_its_months_are_not_loaded_again(house):
    source = SampleSource(50)
    house.ingest(source)
    steps.fetch(source, house.lake, DatasetMonth.parse("green", "2020-03"), house.home)
    with held(house.home / "warehouse.duckdb.lock"):
        survey = house.survey(source)
        clean, raw = survey.look([GREEN.month, Month(2020, 3)])
    assert (clean.stage, clean.reason, clean.table_was_read) == (Stage.UNKNOWN, None, False)
    assert (raw.stage, raw.reason) == (Stage.RAW, "outdated")
    assert "warehouse.duckdb" in survey.warehouse_problem.problem
    (again,) = house.survey(source).look([GREEN.month])
    assert again.stage == Stage.LOADED


@contextmanager
def held(path):
    """The lock file as another run holds it: by another thread, because a thread may not deadlock with itself."""
    locked, release = threading.Event(), threading.Event()

    def hold():
        with FileLock(path):
            locked.set()
            release.wait(300)

    thread = threading.Thread(target=hold)
    thread.start()
    locked.wait(300)
    try:
        yield
    finally:
        release.set()
        thread.join()


# What one tick leaves for the next


def test_the_next_tick_begins_where_the_last_one_stopped_and_then_comes_to_the_newest(house):
    assert house.state().newest_first_from_last_stop(MONTHS) == MONTHS
    house.state().save(MONTHS[9])
    assert house.state().newest_first_from_last_stop(MONTHS) == [*MONTHS[10:], *MONTHS[:10]]
    house.state().save(None)
    assert house.state().newest_first_from_last_stop(MONTHS) == MONTHS


def test_a_month_that_was_not_published_is_asked_about_again_after_an_hour_or_a_day(house):
    source, newest, older = Answers(), Month(2021, 1), Month(2019, 1)

    def tick(now):
        source.asked.clear()
        state = house.state(now)
        states = list(house.survey(source, state=state).look([newest, older], ask_missing))
        state.save_answers()
        assert [each.stage for each in states] == [Stage.NOT_PUBLISHED] * 2
        return sorted(source.asked, reverse=True)

    assert tick(NOW) == [newest, older]
    assert tick(NOW + timedelta(minutes=59)) == []
    assert tick(NOW + timedelta(minutes=61)) == [newest]
    assert tick(NOW + timedelta(hours=23)) == [newest, older]


@pytest.mark.fault(53)
def test_no_number_of_looks_asks_more_than_a_days_requests(house, monkeypatch):
    monkeypatch.setattr(survey_state, "REQUESTS_A_DAY", 20)
    source = Answers(tuple(MONTHS))
    surveys = [house.survey(source, state=house.state()) for _ in range(3)]
    for survey in surveys:
        assert len(list(survey.look(MONTHS))) == len(MONTHS)
    assert len(source.asked) == 10  # a question is up to two requests
    assert len(surveys[0].over_limit) == len(MONTHS) - 10
    assert len(surveys[2].over_limit) == len(MONTHS)
    list(house.survey(source, state=house.state(NOW + timedelta(days=1))).look(MONTHS))
    assert len(source.asked) == 20


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"day": 5}', '{"source": "here", "day": "2021-03-01", "not_published": {"2019-01": "x"}}']
)
def test_a_state_that_is_damaged_or_of_another_source_is_ignored(house, text):
    house.state().save(MONTHS[9])
    assert house.state(source="elsewhere").newest_first_from_last_stop(MONTHS) == MONTHS
    house.state().path.write_text(text)
    assert house.state().newest_first_from_last_stop(MONTHS) == MONTHS
    house.state().save(MONTHS[4])
    assert json.loads(house.state().path.read_text())["stopped_at"] == str(MONTHS[4])


def test_a_home_that_cannot_be_written_is_reported_with_the_remedy(house):
    house.home.mkdir()
    (house.home / "survey").write_text("a file")
    with pytest.raises(LakeError, match="Set TAXI_HOME"):
        house.state().save(None)


# Files that come without ETag and Last-Modified


CSV = (
    "VendorID,lpep_pickup_datetime,lpep_dropoff_datetime,passenger_count,trip_distance,fare_amount\n"
    "2,2020-04-01 00:10:00,2020-04-01 00:20:00,1,1.5,{fare}\n"
)


@pytest.fixture
def weak():
    """A source of green 2020-04 that sends nothing but the length, and two files of the same length."""
    bodies = [CSV.format(fare=fare).encode() for fare in ("10.00", "12.50")]
    with serving() as web:
        page = web.pages["/green_2020-04.csv"] = Page(bodies[0])
        yield open_source(web.url + "/{dataset}_{month}.csv", [Dataset.GREEN]), page, bodies, web


def fetched_long_ago(house, age=COMPARE_EVERY + timedelta(hours=1)):
    month = LakeMonth(house.lake, GREEN)
    manifest = json.loads(house.lake.read(month.manifest_key)[0])
    long_ago = datetime.now(UTC) - age
    del manifest["digest"]  # edited on purpose
    manifest["versions"][-1]["time"] = long_ago.isoformat(timespec="seconds")
    house.lake.write(month.manifest_key, json.dumps(manifest).encode())


@pytest.mark.fault(54)
def test_a_file_republished_under_the_same_length_is_noticed_by_its_bytes_after_a_month_and_not_before(house, weak):
    source, page, bodies, web = weak
    house.ingest(source)
    page.body = bodies[1]
    (state,) = house.survey(source).look([GREEN.month])
    assert (state.stage, state.reason) == (Stage.LOADED, None)
    assert house.ingest(source).unchanged
    assert web.methods().count("GET") == 1
    fetched_long_ago(house)
    (state,) = house.survey(source).look([GREEN.month])
    assert (state.stage, state.reason) == (Stage.LOADED, "to compare")
    again = house.ingest(source)
    assert (again.unchanged, len(LakeMonth(house.lake, GREEN).versions()[0])) == (False, 2)
    (state,) = house.survey(source).look([GREEN.month])
    assert (state.stage, state.reason) == (Stage.LOADED, None)


def test_a_comparison_that_finds_the_same_bytes_holds_for_the_next_month(house, weak):
    source, _, _, web = weak
    house.ingest(source)
    fetched_long_ago(house)
    assert house.ingest(source).unchanged
    assert web.methods().count("GET") == 2
    (state,) = house.survey(source).look([GREEN.month])
    assert (state.reason, len(state.versions)) == (None, 1)


def test_a_month_fetched_while_the_clock_was_years_ahead_is_compared(house, weak):
    source, _, _, _ = weak
    house.ingest(source)
    fetched_long_ago(house, age=timedelta(days=-3650))
    (state,) = house.survey(source).look([GREEN.month])
    assert state.reason == "to compare"


@pytest.mark.parametrize("header", [{"etag": '"1"'}, {"modified": "Mon, 01 Mar 2021 12:00:00 GMT"}])
def test_a_file_with_etag_or_date_is_never_fetched_to_compare(house, weak, header):
    source, page, _, _ = weak
    vars(page).update(header)
    house.ingest(source)
    fetched_long_ago(house)
    (state,) = house.survey(source).look([GREEN.month])
    assert (state.stage, state.reason) == (Stage.LOADED, None)
    (state,) = house.survey(source).look([GREEN.month], ask_never)
    assert state.stage == Stage.LOADED


# Marts


class Counting:
    """A lake or a warehouse that counts the calls of some of its methods."""

    def __init__(self, real, *methods):
        self.real, self.methods, self.calls = real, methods, []

    def __getattr__(self, name):
        if name in self.methods:
            self.calls.append(name)
        return getattr(self.real, name)


@pytest.mark.fault(98)
@pytest.mark.parametrize("lost", ["in the lake", "in the warehouse", "of another version"])
def test_a_loaded_month_without_current_marts_needs_only_them(house, monkeypatch, lost):
    house.ingest(SampleSource(50))
    (state,) = house.survey(None).look([GREEN.month])
    assert (state.stage, state.reason, state.needs_only_marts) == (Stage.LOADED, None, False)
    if lost == "in the lake":
        (quality,) = house.home.glob("lake/marts/green/quality/*/*.parquet")
        quality.unlink()
    elif lost == "in the warehouse":
        with duckdb.connect(str(house.home / "warehouse.duckdb")) as con:
            con.execute("DROP TABLE green_quality")
    else:
        monkeypatch.setattr(survey_module, "mart_version", lambda dataset: "12345678")
    (state,) = house.survey(None).look([GREEN.month])
    assert (state.stage, state.reason, state.needs_only_marts) == (Stage.MARTS_DUE, "marts due", True)


def test_what_comes_before_the_marts_is_due_first(house, weak):
    source, page, bodies, _ = weak
    house.ingest(source)
    for mart in house.home.glob("lake/marts/green/*/*/*.parquet"):
        mart.unlink()
    fetched_long_ago(house)
    (state,) = house.survey(source).look([GREEN.month])
    assert (state.stage, state.needs_only_marts) == (Stage.MARTS_DUE, False)  # the bytes are to be compared too
    page.body, page.etag = bodies[1], '"2"'
    (state,) = house.survey(source).look([GREEN.month])
    assert (state.stage, state.needs_only_marts) == (Stage.REPUBLISHED, False)


def test_the_marts_of_all_months_cost_one_listing_and_one_query(house):
    months = [GREEN.month, GREEN.month.plus(1), GREEN.month.plus(2)]
    for month in months:
        house.ingest(SampleSource(50), DatasetMonth(Dataset.GREEN, month))
    lake, warehouse = Counting(house.lake, "list"), Counting(house.warehouse, "loaded_months")
    states = list(Survey(None, lake, warehouse, Dataset.GREEN).look(months))
    assert [state.stage for state in states] == [Stage.LOADED] * 3
    assert (lake.calls, warehouse.calls) == (["list"], ["loaded_months"])
