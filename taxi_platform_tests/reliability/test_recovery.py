"""Whatever is lost is rebuilt, and a bad month is undone, each by one command."""

import json
import os
import shutil
import signal
import subprocess

import dagster as dg
import duckdb
import pytest

from taxi_platform.definitions import build_definitions
from taxi_platform.lake import open_lake
from taxi_platform.lake.months import LakeMonth
from taxi_platform.runs.dagster_internals import remote_job_origin
from taxi_platform.settings import load_settings
from taxi_platform.sources.sample.writing import write_sample
from taxi_platform.trips.months import DatasetMonth
from taxi_platform_tests.support.system import TAXI, free_port, wait_for
from taxi_platform_tests.support.web_server import Page, serving
from taxi_platform_tests.test_cli import taxi

GREEN = DatasetMonth.parse("green", "2020-04")
pytestmark = pytest.mark.slow


class Month:
    """One month on a web server, a home, and the command."""

    def __init__(self, web, folder):
        self.web, self.folder, self.home = web, folder, folder / "home"
        self.url = web.url + "/{dataset}_{month}.csv.gz"

    def publish(self, rows: int) -> None:
        path = self.folder / f"{rows}.csv.gz"
        write_sample(GREEN, rows, path)
        self.web.pages["/green_2020-04.csv.gz"] = Page(path.read_bytes(), etag=f'"{rows}"')

    def taxi(self, *arguments: str) -> tuple[int, str, str]:
        return taxi(*arguments, TAXI_SOURCE_URL=self.url, TAXI_DATASETS="green", TAXI_SINCE="2020-04")

    def ingest(self) -> dict:
        status, out, err = self.taxi("ingest", "green", "2020-04", "--json")
        assert status == 0, err
        return json.loads(out)[0]

    def fetches(self) -> int:
        return self.web.methods().count("GET")

    def table(self) -> list[tuple]:
        with duckdb.connect(str(self.home / "warehouse.duckdb"), read_only=True) as con:
            return con.execute("SELECT * FROM green_trips ORDER BY ALL").fetchall()

    def raw_files(self) -> list[str]:
        return [path.name for path in (self.home / "lake/raw").rglob("*.csv.gz")]

    @property
    def in_lake(self) -> LakeMonth:
        return LakeMonth(open_lake((self.home / "lake").as_uri()), GREEN)


@pytest.fixture
def month(tmp_path):
    with serving() as web:
        month = Month(web, tmp_path)
        month.publish(300)
        assert month.ingest()["rows_read"] == 300
        yield month


def test_after_the_loss_of_dagsters_database_the_next_run_only_records_the_month_again(month):
    shutil.rmtree(month.home / "dagster")
    table, fetched = month.table(), month.fetches()
    again = month.ingest()
    assert (again["status"], again["rows_read"], again["rows_in_table"]) == ("unchanged", 300, 299)
    assert (month.table(), month.fetches()) == (table, fetched)
    with dg.DagsterInstance.from_config(str(month.home / "dagster")) as instance:
        for asset in ("raw_file", "clean_trips", "rejected_trips", "trips"):
            assert instance.get_materialized_partitions(dg.AssetKey(["green", asset])) == {"2020-04"}


@pytest.mark.fault(39)
def test_a_lost_warehouse_is_loaded_again_from_the_lake_without_fetching(month):
    table, fetched = month.table(), month.fetches()
    (month.home / "warehouse.duckdb").unlink()
    assert month.ingest()["status"] == "loaded"
    assert (month.table(), month.fetches()) == (table, fetched)


@pytest.mark.fault(37)
def test_lost_clean_files_are_cleaned_again_from_the_raw_file_to_the_same_bytes(month):
    clean = month.home / "lake" / month.in_lake.clean_key
    before, fetched = clean.read_bytes(), month.fetches()
    for folder in ("clean", "rejected", "reports"):
        shutil.rmtree(month.home / "lake" / folder)
    assert month.ingest()["status"] == "loaded"
    assert (clean.read_bytes(), month.fetches()) == (before, fetched)


def test_a_bad_month_is_undone_by_one_command_until_the_source_corrects_it(month):
    good = month.table()
    month.publish(200)
    assert month.ingest()["rows_in_table"] == 199
    status, out, err = month.taxi("restore", "green", "2020-04")
    assert status == 0, err
    lines = out.splitlines()
    assert [line.split()[3] for line in lines[1:3]] == ["300", "200"]  # all versions, the current one last
    assert "with 300 rows is now the current one" in lines[3]
    assert [row[:-1] for row in month.table()] == [row[:-1] for row in good]
    fetched = month.fetches()
    assert month.ingest()["status"] == "unchanged"  # the bad file is still published, and set aside
    assert "Nothing to do" in month.taxi("ingest")[1]
    assert month.fetches() == fetched
    listed = month.taxi("versions", "green", "2020-04")[1].splitlines()[1:]
    assert [line.split()[3] for line in listed] == ["300", "200", "300"]
    assert "restored, current" in listed[-1]
    month.web.pages["/green_2020-04.csv.gz"].etag = '"touched"'
    assert month.ingest()["rows_in_table"] == 299  # fetched once, and set aside again
    assert month.taxi("ingest", "green", "2020-04", "--force")[0] == 0
    assert len(month.table()) == 299
    assert month.taxi("restore", "green", "2020-04")[0] == 2  # repeated, it does not undo itself
    month.publish(310)
    assert month.ingest()["rows_in_table"] == 309


def test_any_version_can_be_restored_and_an_unknown_one_is_a_mistake(month):
    for rows in (200, 100):
        month.publish(rows)
        month.ingest()
    first = month.in_lake.versions()[0][0]
    assert month.taxi("restore", "green", "2020-04", first.short_sha256)[0] == 0
    assert len(month.table()) == 299
    for wrong, message in (
        ("000000000000", "taxi versions green 2020-04"),
        (first.short_sha256, "is already the current one"),
    ):
        status, _, err = month.taxi("restore", "green", "2020-04", wrong)
        assert (status, message in err) == (2, True)
    (month.home / "lake" / first.key).unlink()  # no other file may replace the one that was restored
    status, _, err = month.taxi("ingest", "green", "2020-04", "--force")
    assert (status, "is missing" in err) == (1, True)
    assert len(month.table()) == 299


@pytest.mark.fault(48)
def test_a_queued_run_of_a_dataset_that_was_removed_fails_clearly_and_changes_nothing(month):
    table = month.table()
    environment = {**os.environ, "TAXI_HOME": str(month.home), "TAXI_SOURCE_URL": month.url}
    with dg.DagsterInstance.from_config(str(month.home / "dagster")) as instance:
        job = build_definitions(load_settings(environment)).resolve_job_def("green_ingest")
        tags = {**job.tags, "dagster/partition": "2020-04"}
        waiting = instance.create_run_for_job(
            job, tags=tags, status=dg.DagsterRunStatus.QUEUED, remote_job_origin=remote_job_origin(job.name)
        )
        command = [TAXI, "dev", "--port", str(free_port())]
        with subprocess.Popen(command, env={**environment, "TAXI_DATASETS": "fhv"}) as dev:
            try:
                wait_for(lambda: instance.get_run_by_id(waiting.run_id).is_finished)
            finally:
                dev.send_signal(signal.SIGINT)
        assert instance.get_run_by_id(waiting.run_id).status == dg.DagsterRunStatus.FAILURE
        log = " ".join(
            log.dagster_event.message or "" for log in instance.all_logs(waiting.run_id) if log.dagster_event
        )
        assert "green_ingest" in log
    assert month.table() == table


def test_old_raw_files_are_listed_first_and_removed_only_with_apply(month):
    for rows in (200, 100):
        month.publish(rows)
        month.ingest()
    stray = month.home / "lake/raw/green/2020-04/0123456789ab/killed.csv.gz"  # uploaded, then killed
    stray.parent.mkdir()
    stray.write_bytes(b"whole")
    status, out, _ = month.taxi("prune", "green", "--keep", "1")
    assert (status, out.count("would remove"), len(month.raw_files())) == (0, 3, 4)
    assert month.taxi("prune", "green")[1].count("would remove") == 2  # two stay by default
    status, out, _ = month.taxi("prune", "green", "--keep", "1", "--apply")
    assert (status, out.count("removed "), len(month.raw_files())) == (0, 3, 1)
    versions, _ = month.in_lake.versions()
    assert [raw.rows for raw in versions] == [100]
    assert month.ingest()["status"] == "unchanged"
    assert month.taxi("prune", "green", "--keep", "1")[1] == "Nothing to remove.\n"


def test_a_single_month_can_be_pruned(month):
    month.publish(200)
    month.ingest()
    assert month.taxi("prune", "green", "2020-05", "--keep", "1")[1] == "Nothing to remove.\n"
    lines = month.taxi("prune", "Green", "2020-04", "--keep", "1", "--apply")[1].splitlines()
    assert lines[0].startswith("removed raw/green/2020-04/")
    assert (lines[1], len(month.raw_files())) == ("1 file, 0.0 MB.", 1)
