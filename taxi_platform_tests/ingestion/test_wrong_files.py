"""Versions that look wrong are set aside: with a web source, a lake in a folder, and DuckDB."""

import gzip
from datetime import UTC, date, datetime, timedelta

import duckdb
import pytest

from taxi_platform.ingestion import steps
from taxi_platform.ingestion.survey import Stage, Survey, ask_missing
from taxi_platform.ingestion.survey_state import SurveyState
from taxi_platform.lake import open_lake
from taxi_platform.lake.manifest import Manifest
from taxi_platform.lake.months import LakeMonth
from taxi_platform.sources import open_source
from taxi_platform.sources.sample.writing import write_sample
from taxi_platform.trips.cleaning import Engine
from taxi_platform.trips.errors import LooksWrong, UserError
from taxi_platform.trips.months import DatasetMonth, newest_month
from taxi_platform.warehouse import open_warehouse
from taxi_platform_tests.support.web_server import Page, serving

NEWEST = DatasetMonth.parse("yellow", str(newest_month(date(2030, 1, 1))))
"""Of it no published count is known."""


class Place:
    """A web server that publishes files, a lake, a warehouse, and the steps between them."""

    def __init__(self, web, folder):
        self.web, self.folder, self.home = web, folder, folder / "home"
        self.source = open_source(f"{web.url}/{{dataset}}_{{month}}.csv.gz")
        self.lake = open_lake((self.home / "lake").as_uri())
        self.database = self.home / "warehouse.duckdb"
        self.warehouse = open_warehouse(f"duckdb://{self.database}")
        self.published = 0

    def publish(self, rows, of=NEWEST, at=NEWEST):
        """Publish a month of so many rows under the address of another."""
        path = self.folder / f"{of.stem}-{rows}.csv.gz"
        write_sample(of, rows, path)
        self.published += 1
        self.page(at).__init__(path.read_bytes(), etag=f'"{self.published}"')

    def page(self, month=NEWEST):
        return self.web.pages.setdefault(f"/{month.dataset}_{month.month}.csv.gz", Page())

    def ingest(self, month=NEWEST, force=False):
        fetched = steps.fetch(self.source, self.lake, month, self.home, force, judge=True)
        cleaned = steps.clean(self.lake, month, self.home, Engine(threads=1), force=force, judge=True)
        steps.load(self.lake, self.warehouse, month, self.home, force)
        steps.build_marts(self.lake, self.warehouse, month, self.home, force)
        steps.check_accounted_for(self.lake, month)
        return fetched, cleaned

    def manifest(self, month=NEWEST) -> Manifest:
        return LakeMonth(self.lake, month).manifest()

    def stage(self, month=NEWEST):
        (state,) = Survey(self.source, self.lake, self.warehouse, month.dataset).look([month.month])
        return state.stage, state.reason

    def rows(self):
        with duckdb.connect(str(self.database), read_only=True) as con:
            return con.execute("SELECT count(*) FROM yellow_trips").fetchone()[0]


@pytest.fixture
def place(tmp_path):
    with serving() as web:
        yield Place(web, tmp_path)


@pytest.mark.fault(58)
def test_a_republication_that_lost_its_rows_leaves_the_month_until_it_is_accepted_or_another_one_comes(place):
    place.publish(600)
    place.ingest()
    loaded = place.rows()
    place.publish(3)
    fetched, cleaned = place.ingest()
    assert fetched.set_aside.reasons == ("It has 3 rows; the version that it would replace has 600.",)
    assert (fetched.raw.rows, fetched.unchanged, cleaned.unchanged, place.rows()) == (600, True, True, loaded)
    assert place.lake.stat(fetched.set_aside.raw.key)
    assert place.stage() == (Stage.SET_ASIDE, None)

    manifest, sent = place.manifest(), place.page().sent
    again, _ = place.ingest()
    assert (again.set_aside, place.manifest(), place.page().sent) == (fetched.set_aside, manifest, sent)
    forced, _ = place.ingest(force=True)
    assert forced.set_aside.reasons == fetched.set_aside.reasons
    assert (place.rows(), len(place.manifest().set_aside)) == (loaded, 1)

    place.publish(590)
    assert place.stage() == (Stage.REPUBLISHED, "republished")
    fetched, _ = place.ingest()
    assert (fetched.set_aside, fetched.raw.rows, place.manifest().pending) == (None, 590, None)
    assert place.stage() == (Stage.LOADED, None)
    assert steps.version_set_aside(place.lake, NEWEST) is None


@pytest.mark.fault(58, 61)
def test_an_accepted_version_is_loaded_and_never_judged_again(place):
    place.publish(600)
    place.ingest()
    good = place.page().__dict__.copy()
    place.publish(3)
    place.ingest()
    accepted = LakeMonth(place.lake, NEWEST).accept()
    assert (accepted.rows, place.manifest().set_aside) == (3, ())
    assert place.manifest().accepted == (accepted.sha256,)
    assert LakeMonth(place.lake, NEWEST).accept(accepted.short_sha256) == accepted  # cleaning may have refused it
    fetched, _ = place.ingest()
    assert (fetched.unchanged, fetched.raw.rows) == (True, 3)
    assert place.rows() <= 3
    wrong = place.page().__dict__.copy()
    place.page().__dict__.update(good)
    assert place.ingest()[0].raw.rows == 600
    place.page().__dict__.update(wrong)
    assert place.ingest()[0].raw.rows == 3
    with pytest.raises(UserError, match=r"No version of yellow .* is set aside"):
        LakeMonth(place.lake, NEWEST).accept()
    with pytest.raises(UserError, match=r"Version 00 of yellow .* is not set aside.*taxi versions"):
        LakeMonth(place.lake, NEWEST).accept("00")


@pytest.mark.fault(59)
@pytest.mark.parametrize(
    ("of", "at", "reason"),
    [
        ("fhv 2020-04", "fhvhv 2020-04", "It lacks columns that every file of fhvhv 2020-04 has: hvfhs_license_num."),
        ("yellow 2010-01", "fhv 2020-04", "It has columns that only files of green and yellow have: trip_distance"),
        ("yellow 2020-04", "yellow 2021-01", "It has 50 rows; 1,369,765 were published."),
    ],
)
def test_a_first_version_that_looks_wrong_publishes_nothing_and_is_fetched_once(place, of, at, reason):
    of, at = (DatasetMonth.parse(*month.split()) for month in (of, at))
    place.publish(50, of, at)
    for _ in range(2):
        with pytest.raises(LooksWrong) as caught:
            place.ingest(at)
        assert reason in caught.value.problem
        entry = place.manifest(at).pending
        assert f"taxi accept {at} {entry.raw.short_sha256}" in caught.value.remedy
    assert place.web.methods().count("GET") == 1
    assert (place.manifest(at).versions, place.stage(at)) == ((), (Stage.SET_ASIDE, None))
    assert place.lake.list(f"clean/{at.dataset}/") == []


@pytest.mark.fault(61)
def test_an_accepted_first_version_is_loaded_whatever_it_holds(place):
    of, at = DatasetMonth.parse("yellow", "2020-04"), DatasetMonth.parse("yellow", "2021-01")
    place.publish(50, of, at)
    with pytest.raises(LooksWrong):
        place.ingest(at)
    LakeMonth(place.lake, at).accept()
    place.publish(50, of, at)  # the same content under another ETag
    _, cleaned = place.ingest(at)
    assert cleaned.report.suspicious["outside_month"] > 25
    assert place.stage(at) == (Stage.LOADED, None)


@pytest.mark.fault(60)
def test_a_file_of_another_month_is_set_aside_when_it_is_cleaned(place):
    place.publish(600)
    place.ingest()
    loaded, good = place.rows(), place.manifest().current
    other = DatasetMonth(NEWEST.dataset, NEWEST.month.plus(-3))
    place.publish(600, of=other)
    fetched, cleaned = place.ingest()
    assert fetched.raw != good  # its columns and rows are right
    assert (cleaned.raw, cleaned.unchanged, place.rows()) == (good, True, loaded)
    (reason,) = place.manifest().pending.reasons
    assert reason.endswith(f"(100%) are more than a day outside of {NEWEST.month}.")
    assert place.stage() == (Stage.SET_ASIDE, None)
    sent = place.page().sent
    assert place.ingest()[0].set_aside and place.page().sent == sent
    LakeMonth(place.lake, NEWEST).accept()
    assert place.ingest()[1].report.suspicious["outside_month"] > 500


@pytest.mark.fault(58)
def test_a_republication_of_which_many_rows_cannot_be_read_is_set_aside_and_one_rejected_on_request_is_not(place):
    place.publish(600)
    place.ingest()
    loaded, good = place.rows(), place.page().body
    header, *lines = gzip.decompress(good).splitlines(keepends=True)
    place.page().__init__(gzip.compress(b"".join([header, *([b"broken\n"] * 200), *lines[200:]])), etag='"broken"')
    _, cleaned = place.ingest()
    assert (cleaned.unchanged, place.rows()) == (True, loaded)
    (reason,) = place.manifest().pending.reasons
    assert (
        reason.startswith("Only ") and f"rows can be stored; the version that it would replace has {loaded}." in reason
    )
    place.publish(599)
    assert steps.fetch(place.source, place.lake, NEWEST, place.home, judge=True).raw.rows == 599
    rules = ["zero_passengers", "zero_distance", "unknown_zone"]
    cleaned = steps.clean(place.lake, NEWEST, place.home, Engine(threads=1), rules, judge=True)
    assert cleaned.report.rows_rejected > 1 and place.manifest().pending is None


@pytest.mark.fault(60)
def test_a_first_file_of_another_month_publishes_nothing(place):
    place.publish(600, of=DatasetMonth(NEWEST.dataset, NEWEST.month.plus(-3)))
    for _ in range(2):
        with pytest.raises(LooksWrong, match=r"are more than a day outside of .* taxi accept yellow"):
            place.ingest()
    assert place.web.methods().count("GET") == 1
    assert place.lake.list("clean/") == []


@pytest.mark.fault(61)
def test_what_the_source_goes_back_to_ends_what_was_set_aside_and_begins_it_again(place):
    place.publish(600)
    good = place.page().__dict__.copy()
    place.ingest()
    place.publish(3)
    wrong = place.page().__dict__.copy()
    place.ingest()
    place.page().__dict__.update(good)
    assert place.ingest()[0].set_aside is None
    assert (place.manifest().pending, len(place.manifest().set_aside)) == (None, 1)
    place.page().__dict__.update(wrong)
    assert place.stage() == (Stage.REPUBLISHED, "republished")
    gets = place.web.methods().count("GET")
    assert place.ingest()[0].set_aside is not None
    assert place.web.methods().count("GET") == gets


@pytest.mark.fault(61)
def test_the_source_is_asked_about_a_first_version_set_aside_as_rarely_as_about_a_month_not_published(place):
    month = DatasetMonth.parse("yellow", "2021-01")
    place.publish(50, at=month)
    with pytest.raises(LooksWrong):
        place.ingest(month)

    def asked(at):
        """Whether a tick at that time asks the source, and the stage that it finds."""
        before = len(place.web.requests)
        state = SurveyState(place.home, month.dataset, "here", at)
        survey = Survey(place.source, place.lake, place.warehouse, month.dataset, state=state)
        (found,) = survey.look([month.month], ask_missing)
        state.save_answers()
        assert (found.stage, found.reason) == (Stage.SET_ASIDE, None)
        return len(place.web.requests) > before

    now = datetime(2021, 6, 1, 12, 0, tzinfo=UTC)
    assert [asked(now), asked(now + timedelta(hours=1)), asked(now + timedelta(days=1))] == [True, False, True]


@pytest.mark.fault(61)
def test_prune_keeps_what_is_set_aside_now_and_removes_what_was(place):
    for rows in (600, 3):
        place.publish(rows)
        place.ingest()
    month = LakeMonth(place.lake, NEWEST)
    wrong = place.manifest().pending.raw
    assert month.prune(keep=1, apply=True) == []
    place.publish(590)
    place.ingest()
    assert wrong.key in {file.key for file in month.prune(keep=1, apply=True)}
    assert (place.manifest().set_aside, place.lake.stat(wrong.key)) == ((), None)


def test_without_the_judgement_every_version_is_taken(place):
    place.publish(600)
    place.ingest()
    place.publish(3)
    fetched = steps.fetch(place.source, place.lake, NEWEST, place.home)
    assert (fetched.raw.rows, fetched.set_aside) == (3, None)


def test_a_manifest_without_either_list_is_read_and_written_as_before():
    manifest = Manifest.of({"versions": []}, "1")
    assert (manifest.set_aside, manifest.accepted) == ((), ())
    assert "set_aside" not in manifest.to_json()
