"""`taxi status` tells how far every month has come, and makes nothing."""

import gzip
import json
import os
import re
import subprocess

import pytest

from taxi_platform.ingestion import steps
from taxi_platform.ingestion.survey import months_in_lake
from taxi_platform.lake import open_lake
from taxi_platform.lake.months import LakeMonth
from taxi_platform.runs.status import MonthStatus, Stage, by_year, status
from taxi_platform.settings import load_settings
from taxi_platform.sources import open_source
from taxi_platform.sources.sample.writing import write_sample
from taxi_platform.trips.engine import Engine
from taxi_platform.trips.months import Dataset, DatasetMonth, Month
from taxi_platform.warehouse import open_warehouse
from taxi_platform_tests.ingestion.test_survey import held
from taxi_platform_tests.support.system import TAXI
from taxi_platform_tests.support.web_server import S3_DENIED, Page, serving

NEWEST = Month(2020, 8)


@pytest.fixture
def web(monkeypatch, tmp_path):
    """A source of green 2020-01 to 2020-07; nothing later is published."""
    with serving() as web:
        monkeypatch.setenv("TAXI_SOURCE_URL", web.url + "/{dataset}_{month}.csv.gz")
        monkeypatch.setenv("TAXI_DATASETS", "green")
        for month in Month(2013, 8).until(NEWEST):
            web.pages[f"/green_{month}.csv.gz"] = Page(S3_DENIED, 403)
        for month in Month(2020, 1).until(Month(2020, 7)):
            path = tmp_path / f"{month}.csv.gz"
            write_sample(DatasetMonth.parse("green", str(month)), 300, path)
            web.pages[f"/green_{month}.csv.gz"] = Page(path.read_bytes(), etag=f'"{month}"')
        yield web


def bring(month, *what):
    settings = load_settings()
    dataset_month, lake, home = DatasetMonth.parse("green", month), open_lake(settings.lake_url), settings.home
    warehouse = open_warehouse(settings.warehouse_url)
    if "fetch" in what:
        steps.fetch(open_source(settings.source_url), lake, dataset_month, home)
    if "clean" in what:
        steps.clean(lake, dataset_month, home, Engine())
    if "load" in what:
        steps.load(lake, warehouse, dataset_month, home)
    if "marts" in what:
        steps.build_marts(lake, warehouse, dataset_month, home)


def stages(found):
    return {month.month: month.stage for month in found.months if month.stage != Stage.UNKNOWN}


def test_every_stage_is_distinguished(web, monkeypatch):
    bring("2020-01", "fetch", "clean", "load", "marts")
    bring("2020-02", "fetch", "clean")
    bring("2020-03", "fetch")
    bring("2020-04", "fetch", "clean", "load")
    bring("2020-06", "fetch", "clean", "load", "marts")
    web.pages["/green_2020-06.csv.gz"].etag = '"again"'
    failures = {
        DatasetMonth.parse("green", "2020-03"): "The disk is full.",
        DatasetMonth.parse("green", "2020-01"): "Old.",
    }
    found = status(load_settings(), NEWEST, failures)
    assert stages(found) == {
        "2020-01": Stage.LOADED,
        "2020-02": Stage.NOT_LOADED,
        "2020-03": Stage.FAILED,
        "2020-04": Stage.MARTS_DUE,
        "2020-06": Stage.REPUBLISHED,
        "2020-07": Stage.PUBLISHED,
        "2020-08": Stage.NOT_PUBLISHED,
    }
    by_month = {month.month: month for month in found.months}
    assert len(found.months) == 85  # 2013-08 to 2020-08
    assert by_month["2020-03"].problem == "The disk is full." and by_month["2020-01"].problem is None
    loaded = by_month["2020-01"]
    assert (loaded.rows + loaded.rows_rejected, loaded.raw_versions) == (300, 1)
    kept = LakeMonth(open_lake(load_settings().lake_url), DatasetMonth.parse("green", "2020-01"))
    files = [path for path in (load_settings().home / "lake").rglob("*2020-01*/**/*") if path.is_file()]
    manifest = kept.lake.stat(kept.manifest_key).size
    counted = [path for path in set(files) if ".lock" not in path.name and "marts" not in path.parts]
    assert loaded.bytes == sum(path.stat().st_size for path in counted) - manifest
    monkeypatch.setenv("TAXI_REJECT", "zero_passengers")
    assert stages(status(load_settings(), NEWEST, {}))["2020-01"] == Stage.OUTDATED
    assert [(years, len(of_year)) for years, of_year in by_year(found.months)] == [("2013–2019", 0), ("2020", 8)]


def test_a_month_that_is_clean_but_not_loaded_tells_its_rejected_rows_from_the_report(web):
    bring("2020-02", "fetch", "clean")
    bring("2020-03", "fetch")
    found = {month.month: month for month in status(load_settings(), NEWEST, {}).months}
    kept = LakeMonth(open_lake(load_settings().lake_url), DatasetMonth.parse("green", "2020-02"))
    report = kept.report(kept.footer().file_version)
    counts = (found["2020-02"].rows, found["2020-02"].rows_rejected)
    assert counts == (report.rows_clean, report.rows_rejected)
    assert report.rows_rejected > 0
    assert (found["2020-03"].rows, found["2020-03"].rows_rejected) == (None, None)


def test_a_raw_file_that_was_published_twice_is_counted_once(web):
    page, first = web.pages["/green_2020-05.csv.gz"], web.pages["/green_2020-05.csv.gz"].body
    for etag, body in (("1", first), ("2", web.pages["/green_2020-04.csv.gz"].body), ("3", first)):
        page.etag, page.body = f'"{etag}"', body
        bring("2020-05", "fetch")
    (month,) = [month for month in status(load_settings(), NEWEST, {}).months if month.month == "2020-05"]
    files = list((load_settings().home / "lake/raw").rglob("*.csv.gz"))
    assert (len(files), month.raw_versions) == (2, 3)
    assert month.bytes == sum(path.stat().st_size for path in files)


def test_a_month_newer_than_any_publication_is_shown_once_the_lake_has_it(web):
    bring("2020-07", "fetch", "clean", "load", "marts")
    assert stages(status(load_settings(), Month(2020, 4), {}))["2020-07"] == Stage.LOADED


def test_an_old_failure_is_not_shown_where_nothing_can_be_done(web):
    failures = {DatasetMonth.parse("green", month): "Busy." for month in ("2020-01", "2020-07", "2020-08")}
    found = status(load_settings(), NEWEST, failures)
    assert stages(found) == {
        "2020-01": Stage.FAILED,
        "2020-06": Stage.PUBLISHED,
        "2020-07": Stage.FAILED,
        "2020-08": Stage.NOT_PUBLISHED,
    }


def test_years_of_which_nothing_is_known_are_one_line_wherever_they_stand():
    stages = {2013: Stage.UNKNOWN, 2014: Stage.UNKNOWN, 2015: Stage.RAW, 2016: Stage.UNKNOWN, 2017: Stage.NOT_PUBLISHED}
    months = [MonthStatus("green", f"{year}-{n:02}", stage) for year, stage in stages.items() for n in (11, 12)]
    lines = [(years, len(of_year)) for years, of_year in by_year(months)]
    assert lines == [("2013–2014", 0), ("2015", 2), ("2016", 0), ("2017", 2)]


def test_the_source_is_asked_about_three_months_unless_all_are_wanted(web):
    status(load_settings(), NEWEST, {})
    assert {path for _, path, _ in web.requests} == {f"/green_2020-0{n}.csv.gz" for n in (6, 7, 8)}
    found = status(load_settings(), NEWEST, {}, ask_all=True)
    assert sum(month.stage == Stage.PUBLISHED for month in found.months) == 7


def test_a_source_that_is_down_is_reported_once_and_hides_nothing_that_is_known(web, monkeypatch):
    bring("2020-07", "fetch", "clean", "load", "marts")
    monkeypatch.setenv("TAXI_SOURCE_URL", "http://127.0.0.1:9/{dataset}_{month}.csv.gz")
    found = status(load_settings(), NEWEST, {})
    assert stages(found) == {"2020-07": Stage.LOADED}
    assert "127.0.0.1:9" in str(found.source_problem)


@pytest.mark.parametrize("answer", [503, 410])
def test_a_source_that_fails_is_asked_once_for_all_datasets_and_keeps_what_it_said_before(web, monkeypatch, answer):
    monkeypatch.setenv("TAXI_DATASETS", "green,fhv")
    web.pages["/green_2020-07.csv.gz"] = Page(status=answer)
    found = status(load_settings(), NEWEST, {})
    assert stages(found) == {"2020-08": Stage.NOT_PUBLISHED}
    assert str(answer) in str(found.source_problem)
    assert [path for _, path, _ in web.requests if "2020-08" not in path] == ["/green_2020-07.csv.gz"]


def run(*arguments, **environment):
    environment = {**os.environ, **environment}
    return subprocess.run([TAXI, *arguments], env=environment, capture_output=True, text=True, timeout=120)


def test_the_command_draws_a_picture_and_makes_nothing(web, tmp_path):
    done = run("status")
    assert done.returncode == 0, done.stderr
    assert "unknown: not asked about; taxi status --ask asks" in done.stdout
    assert done.stderr == ""  # nothing turns where no terminal is
    assert "green: 0 of" in done.stdout and "  2013–" in done.stdout
    assert not (tmp_path / "home").exists()


def test_a_warehouse_that_cannot_be_reached_is_one_sentence_and_status_one(web):
    bring("2020-01", "fetch")
    done = run("status", "--json", TAXI_WAREHOUSE_URL="postgresql://taxi:hidden@127.0.0.1:9/trips")
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot be reached" in done.stderr
    assert "hidden" not in done.stderr and "Traceback" not in done.stderr


def test_a_month_that_failed_is_shown_with_the_reason_and_the_command(web, tmp_path):
    web.pages["/green_2020-05.csv.gz"] = Page(b"<html>We are sorry</html>")
    run("ingest", "green", "2020-04", "2020-05")
    done = run("status")
    assert done.returncode == 0, done.stderr
    assert "  2020  · · · ● ✗ · · · · · · ·\n" in done.stdout
    assert "  2013–2019  nothing in the lake\n" in done.stdout
    assert "\x1b" not in done.stdout
    assert "green 2020-05:" in done.stdout and "ingest green 2020-05" in done.stdout
    months = {month["month"]: month for month in json.loads(run("status", "--json").stdout)}
    assert (months["2020-04"]["stage"], months["2020-05"]["stage"]) == ("loaded", "failed")
    assert months["2020-04"]["rows"] + months["2020-04"]["rows_rejected"] == 300


@pytest.mark.fault(51)
def test_a_table_that_a_load_holds_is_not_waited_for(web):
    bring("2020-01", "fetch", "clean", "load", "marts")
    bring("2020-02", "fetch", "clean")
    bring("2020-03", "fetch")
    with held(load_settings().home / "warehouse.duckdb.lock"):
        found = status(load_settings(), NEWEST, {})
        done = run("status")  # ends, where it once waited for half an hour
    assert stages(found) == {
        "2020-03": Stage.RAW,
        "2020-06": Stage.PUBLISHED,
        "2020-07": Stage.PUBLISHED,
        "2020-08": Stage.NOT_PUBLISHED,
    }
    by_month = {month.month: month for month in found.months}
    assert by_month["2020-01"].rows + by_month["2020-01"].rows_rejected == 300
    assert done.returncode == 0
    assert "Months that are clean in the lake are shown as unknown." in done.stderr
    assert "  2020  · · ○ ·" in done.stdout


@pytest.mark.fault(54)
def test_files_that_can_only_be_compared_by_their_bytes_are_counted(web):
    web.pages["/green_2020-02.csv.gz"].etag = None
    bring("2020-01", "fetch")
    bring("2020-02", "fetch")
    assert [str(each) for each in status(load_settings(), NEWEST, {}).weak] == ["green 2020-02"]
    text = run("status").stdout
    assert "1 of the files came without ETag and Last-Modified" in text
    assert "30 days after the last comparison" in text


def test_what_people_put_beside_the_months_of_a_lake_is_left_alone(tmp_path):
    lake = open_lake(tmp_path.as_uri())
    lake.write("raw/green/2020-04/manifest.json", b"{}")
    lake.write("raw/green/README/notes.txt", b"hands off")
    assert months_in_lake(lake, Dataset.GREEN) == [Month(2020, 4)]


@pytest.mark.fault(73)
def test_a_damaged_month_is_shown_as_damaged_and_a_failed_check_is_shown(web, tmp_path):
    """The file of 2020-04 gets a column that the contract does not know, of which a check warns."""
    text = gzip.decompress(web.pages["/green_2020-04.csv.gz"].body).decode()
    header, *lines = text.splitlines()
    wider = "\n".join([f"{header},weather", *(f"{line},fine" for line in lines), ""])
    web.pages["/green_2020-04.csv.gz"] = Page(gzip.compress(wider.encode()), etag='"wider"')
    assert run("ingest", "green", "2020-04", "2020-05").returncode == 0
    report = next((tmp_path / "home/lake/reports/green/month=2020-05").iterdir())
    report.write_bytes(report.read_bytes()[:-50])
    done = run("status")
    assert done.returncode == 0, done.stderr
    assert "  2020  · · · ● # · · · · · · ·\n" in done.stdout
    assert re.search(r"green 2020-05: .*is not a report: .* Run taxi ingest green 2020-05", done.stdout)
    assert "green 2020-04: no_unknown_columns did not pass. Stored in extra_columns: weather." in done.stdout
