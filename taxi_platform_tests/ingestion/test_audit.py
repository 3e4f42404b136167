"""The audit: whatever is damaged in lake or tables is named, with a command that repairs it, and nothing else is."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import dagster as dg
import duckdb
import pytest
from click.testing import CliRunner

from taxi_platform.cli import cli
from taxi_platform.definitions import build_definitions
from taxi_platform.ingestion import audit as audit_module
from taxi_platform.ingestion import steps
from taxi_platform.ingestion.audit import Audited, audit
from taxi_platform.lake import open_lake
from taxi_platform.notifications.messages import compose, subject_of
from taxi_platform.settings import Settings, load_settings
from taxi_platform.sources.sample.source import SampleSource
from taxi_platform.trips.engine import Engine
from taxi_platform.trips.months import Dataset, DatasetMonth
from taxi_platform.warehouse import open_warehouse
from taxi_platform_tests.support.system import TAXI

MONTHS = ("2020-03", "2020-04")
OF_APRIL = "WHERE file_month = DATE '2020-04-01'"
APRIL = DatasetMonth.parse("green", "2020-04")


class Home:
    """An installation with two months of green in lake, warehouse and serving warehouse."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.lake = open_lake(settings.lake_url)
        self.lake_folder = settings.home / "lake"
        self.warehouses = [open_warehouse(url) for url in (settings.warehouse_url, settings.serving_url) if url]

    def bring(self, month: str, rows: int = 300, load: bool = True) -> None:
        dataset_month, home = DatasetMonth.parse("green", month), self.settings.home
        steps.fetch(SampleSource(rows), self.lake, dataset_month, home)
        steps.clean(self.lake, dataset_month, home, Engine(threads=1))
        for warehouse in self.warehouses if load else ():
            steps.load(self.lake, warehouse, dataset_month, home)
        if load:
            steps.build_marts(self.lake, self.warehouses[0], dataset_month, home)

    def audit(self) -> list[Audited]:
        return list(audit(self.lake, self.warehouses, [Dataset.GREEN], self.settings.home))

    def problems(self) -> dict[str, list[str]]:
        """Month → what is wrong with it."""
        return {audited.month or "": [str(problem) for problem in audited.problems] for audited in self.audit()}

    def path(self, pattern: str) -> Path:
        (path,) = self.lake_folder.glob(pattern)
        return path

    def alter(self, name: str, statement: str) -> None:
        with duckdb.connect(str(self.settings.home / f"{name}.duckdb")) as con:
            con.execute(statement)


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("template") / "home"
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("TAXI_")]:
            patch.delenv(name)
        patch.setenv("TAXI_HOME", str(folder))
        patch.setenv("TAXI_SERVING_URL", f"duckdb://{folder / 'serving.duckdb'}")
        home = Home(load_settings())
        for month in MONTHS:
            home.bring(month)
    return folder


@pytest.fixture
def home(template: Path, tmp_path: Path, monkeypatch) -> Home:
    monkeypatch.setenv("TAXI_DATASETS", "green")
    monkeypatch.setenv("TAXI_SOURCE_URL", "sample://?rows=300")
    monkeypatch.setenv("TAXI_SERVING_URL", f"duckdb://{tmp_path / 'home' / 'serving.duckdb'}")
    shutil.copytree(template, tmp_path / "home")
    return Home(load_settings())


def garble(path: Path) -> None:
    """Change one byte in the middle, not the size."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_sound_installation_has_no_problems(home: Home):
    assert [(audited.month, audited.rows, audited.problems) for audited in home.audit()] == [
        (month, 299, ()) for month in MONTHS
    ]


DAMAGE = {
    "a raw file": (
        lambda home: garble(home.path("raw/green/2020-04/*/*.gz")),
        r"raw/green/2020-04/.* is not the file that was fetched on .* Run taxi ingest green 2020-04 --force",
    ),
    "a lost raw file": (
        lambda home: home.path("raw/green/2020-04/*/*.gz").unlink(),
        r"raw/green/2020-04/.* is missing\. Run taxi ingest green 2020-04 --force",
    ),
    "a manifest": (
        lambda home: home.path("raw/green/2020-04/manifest.json").write_text("{"),
        r"raw/green/2020-04/manifest\.json is",
    ),
    "a clean file": (
        lambda home: garble(home.path("clean/green/month=2020-04/*.parquet")),
        r"clean/green/month=2020-04/trips\.parquet was altered .* Run taxi ingest green 2020-04",
    ),
    "a clean file cut short": (
        lambda home: os.truncate(home.path("clean/green/month=2020-04/*.parquet"), 5000),
        r"clean/green/month=2020-04/trips\.parquet cannot be read\. Run taxi ingest green 2020-04",
    ),
    "a rejected file": (
        lambda home: garble(home.path("rejected/green/month=2020-04/*.parquet")),
        r"rejected/green/month=2020-04/.* was altered .* Run taxi ingest green 2020-04",
    ),
    "a report": (
        lambda home: home.path("reports/green/month=2020-04/*.json").write_text("{}"),
        r"reports/green/month=2020-04/.* Run taxi ingest green 2020-04",
    ),
    "a value in the table": (
        lambda home: home.alter(
            "warehouse", "UPDATE green_trips SET fare_amount = fare_amount + 0.01 WHERE rowid = 450"
        ),
        r"green_trips differs .*\(in fare_amount\)\. \(duckdb://.*warehouse\.duckdb\) Run taxi ingest green 2020-04",
    ),
    "a rejected row in the serving table": (
        lambda home: home.alter("serving", f"DELETE FROM green_rejected_trips {OF_APRIL}"),
        r"green_rejected_trips differs .*\(0 rows, not 1\)\. \(duckdb://.*serving\.duckdb\) Run taxi ingest green",
    ),
    "a value in a mart": (
        lambda home: home.alter("warehouse", f"UPDATE green_hours SET trips = trips + 1 {OF_APRIL}"),
        r"green_hours differs .*\(in trips\)\. Run taxi ingest green 2020-04",
    ),
    "a mart that was dropped": (
        lambda home: home.alter("warehouse", "DROP TABLE green_zone_pairs"),
        r"green_zone_pairs .* Run taxi ingest green 2020-04",
    ),
    "a mart's file": (
        lambda home: home.path("marts/green/payments/month=2020-04/*.parquet").unlink(),
        r"does not have all marts of green 2020-04 in this version\. Run taxi ingest green 2020-04",
    ),
    "a month that the lake has lost": (
        lambda home: [
            shutil.rmtree(home.path(folder)) for folder in ("raw/green/2020-04", "clean/green/month=2020-04")
        ],
        r"green_trips has 299 rows of green 2020-04, but the lake has no clean file\. .* Run taxi ingest green 2020-04",
    ),
}


@pytest.mark.fault(71)
@pytest.mark.parametrize("what", DAMAGE)
def test_damage_to_one_month_is_named_and_the_other_months_are_audited(home: Home, what: str):
    damage, problem = DAMAGE[what]
    damage(home)
    problems = home.problems()
    assert problems["2020-03"] == []
    assert [each for each in problems["2020-04"] if re.search(problem, each)], problems["2020-04"]


@pytest.mark.fault(71)
def test_a_table_that_cannot_be_read_is_named_and_the_lake_is_audited(home: Home):
    (home.settings.home / "serving.duckdb").write_bytes(b"no database" * 1000)
    garble(home.path("raw/green/2020-03/*/*.gz"))
    audited = home.audit()
    assert [each.month for each in audited] == [None, *MONTHS]
    assert "serving.duckdb failed" in audited[0].problems[0].problem
    assert [len(each.problems) for each in audited] == [1, 1, 0]


@pytest.mark.fault(72)
def test_a_month_that_a_load_replaces_meanwhile_is_looked_at_again(home: Home, monkeypatch):
    look, looks = audit_module._Look.at_everything, []

    def load_after_the_first_look(self, warehouses, with_marts):
        looks.append(look(self, warehouses, with_marts))
        for warehouse in warehouses:
            steps.load(self.lake, warehouse, self.dataset_month, self.home)
        return looks[-1]

    home.bring("2020-04", rows=400, load=False)
    monkeypatch.setattr(audit_module._Look, "at_everything", load_after_the_first_look)
    (audited,) = audit(home.lake, home.warehouses, [], home.settings.home, [APRIL])
    assert "green_trips holds version" in looks[0].problems[0].problem or "rejected" in looks[0].problems[0].problem
    assert (len(looks), audited.rows, audited.problems) == (2, 399, ())


def taxi(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, arguments)
    return done.exit_code, done.stdout


def test_the_command_prints_a_line_for_each_problem_and_says_so_by_its_exit_status(home: Home):
    status, output = taxi("audit")
    assert (status, output) == (0, "ok    green 2020-03: 299 rows\nok    green 2020-04: 299 rows\n")
    home.alter("warehouse", f"UPDATE green_trips SET fare_amount = 0 {OF_APRIL}")
    status, output = taxi("audit", "green")
    assert status == 1
    assert re.search(r"wrong green 2020-04: green_trips differs .* Run taxi ingest green 2020-04 to load", output)
    status, output = taxi("audit", "green", "2020-04", "--json")
    (month,) = json.loads(output)
    assert (status, month["month"], month["rows"], len(month["problems"])) == (1, "2020-04", 299, 1)
    assert taxi("audit", "green", "2020-03") == (0, "ok    green 2020-03: 299 rows\n")
    assert taxi("audit", "green", "2035-01") == (0, "ok    green 2035-01: no clean file\n")


@pytest.mark.fault(71)
def test_the_job_fails_with_the_list_and_its_message_says_what_to_do(home: Home):
    garble(home.path("rejected/green/month=2020-04/*.parquet"))
    home.alter("serving", "DELETE FROM green_trips WHERE file_month = DATE '2020-03-01'")
    with dg.DagsterInstance.ephemeral() as instance:
        job = build_definitions(home.settings).resolve_job_def("audit")
        result = job.execute_in_process(instance=instance, raise_on_error=False)
        run = instance.get_run_by_id(result.run_id)
        message, should_send = compose(instance, run, "1", subject_of(run), "http://taxi")
    (failure,) = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    lines = failure.user_failure_data.description.splitlines()
    assert lines[0] == "The audit found 2 problems:"
    assert "green_trips differs" in lines[1] and "was altered since it was written" in lines[2]
    assert should_send and "The audit failed." in message.body
    assert "What to do: Run taxi ingest green 2020-03 to load it again." in message.body


def test_the_job_passes_over_a_sound_installation(home: Home):
    with dg.DagsterInstance.ephemeral() as instance:
        assert build_definitions(home.settings).resolve_job_def("audit").execute_in_process(instance=instance).success


@pytest.mark.slow
@pytest.mark.fault(71)
def test_what_the_audit_names_is_repaired_by_the_command_it_gives(home: Home):
    garble(home.path("clean/green/month=2020-04/*.parquet"))
    home.alter("serving", "UPDATE green_trips SET tip_amount = 1 WHERE file_month = DATE '2020-03-01'")
    assert [len(audited.problems) for audited in home.audit()] == [1, 1]
    for month in MONTHS:
        subprocess.run([TAXI, "ingest", "green", month], check=True, capture_output=True)
    assert home.problems() == {month: [] for month in MONTHS}
