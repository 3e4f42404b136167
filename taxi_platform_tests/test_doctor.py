"""`taxi doctor` and `taxi bootstrap`: one plan, printed, checked and applied."""

import shutil

import duckdb
import pytest

from taxi_platform.doctor import examine, plan
from taxi_platform.settings import load_settings
from taxi_platform.trips.months import Month
from taxi_platform_tests.support.system import small_file_system
from taxi_platform_tests.test_cli import taxi

NEWEST = Month(2020, 4)


def wrong(**environment):
    findings = examine(load_settings(environment), NEWEST)
    return {finding.name: finding.message for finding in findings if not finding.ok}


def test_a_fresh_home_passes_and_says_what_will_be_created(tmp_path):
    settings = load_settings({"TAXI_HOME": str(tmp_path / "home")})
    findings = {finding.name: finding for finding in examine(settings, NEWEST)}
    assert all(finding.ok for finding in findings.values())
    assert "will be created by taxi bootstrap or the first run" in findings["lake"].message
    assert "0 of 28" in findings["warehouse"].message


def test_the_plan_is_empty_once_it_was_applied(tmp_path):
    settings = load_settings({"TAXI_HOME": str(tmp_path / "home"), "TAXI_DATASETS": "green"})
    changes = list(plan(settings))
    assert [change.what.split(" in ")[0] for change in changes] == [
        f"folder {tmp_path}/home/lake",
        "table taxi_zones",
        "table green_trips",
        "table green_rejected_trips",
        *(f"table green_{name}" for name in ("daily_zones", "hours", "zone_pairs", "payments", "quality")),
        "taxi zones",
    ]
    assert all(change.needed for change in changes)
    for change in changes:
        change.apply()
    assert not any(change.needed for change in plan(settings))


def test_a_gained_column_is_planned_and_a_clash_is_wrong(tmp_path):
    environment = {"TAXI_HOME": str(tmp_path), "TAXI_DATASETS": "green"}
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as con:
        con.execute("CREATE TABLE green_trips (vendor_id BIGINT)")
    needed = {change.what.split(" in ")[0] for change in plan(load_settings(environment)) if change.needed}
    assert "table green_trips" in needed
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as con:
        con.execute("CREATE OR REPLACE TABLE green_trips (vendor_id DATE)")
    assert "green_trips.vendor_id" in wrong(**environment)["warehouse"]


@pytest.mark.parametrize(
    ("environment", "name", "message"),
    [
        ({"TAXI_SOURCE_URL": "http://127.0.0.1:9/{dataset}_{month}.csv"}, "source", "127.0.0.1"),
        ({"TAXI_SOURCE_URL": "nowhere"}, "source", "TAXI_SOURCE_URL"),
        ({"TAXI_LAKE_URL": "s3://bucket"}, "lake", "TAXI_LAKE_URL"),
        ({"TAXI_WAREHOUSE_URL": "postgresql://u:hunter2@127.0.0.1:9/db"}, "warehouse", "127.0.0.1"),
        ({"TAXI_SERVING_URL": "mysql://x"}, "serving", "TAXI_SERVING_URL"),
    ],
)
def test_each_problem_names_its_setting_and_shows_no_secret(tmp_path, environment, name, message):
    findings = wrong(TAXI_HOME=str(tmp_path), **environment)
    assert list(findings) == [name]
    assert message in findings[name]
    assert "hunter2" not in findings[name]


def test_the_variables_that_are_set_are_listed_and_unknown_ones_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TAXI_SOURCE_URL", "sample://")
    monkeypatch.setenv("TAXI_COLOR", "yellow")
    monkeypatch.delenv("TAXI_SET_ASIDE")
    first = next(examine(load_settings(), NEWEST))
    assert (first.name, first.message) == ("settings", "TAXI_HOME, TAXI_SOURCE_URL set; unknown, ignored: TAXI_COLOR")


@pytest.mark.fault(32)
def test_a_lake_on_another_disk_that_is_nearly_full_is_wrong(tmp_path):
    with small_file_system(tmp_path / "small", 16) as small:
        environment = {"TAXI_HOME": str(tmp_path / "home"), "TAXI_LAKE_URL": (small / "a lake").as_uri()}
        assert load_settings(environment).disks() == {"home": tmp_path, "lake": small}
        assert "The disk is nearly full: free are 0.0 GB at the lake." in wrong(**environment)["home"]


def test_a_home_that_is_a_file_is_wrong(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for home in (tmp_path / "file", tmp_path / "file" / "home"):
        assert f"{tmp_path}/file is not a folder. Set TAXI_HOME" in wrong(TAXI_HOME=str(home))["home"]


def test_a_serving_warehouse_that_is_the_warehouse_itself_is_wrong(tmp_path):
    url = f"duckdb://{tmp_path}/warehouse.duckdb"
    assert "same warehouse" in wrong(TAXI_HOME=str(tmp_path), TAXI_SERVING_URL=url)["serving"]


def test_bootstrap_says_what_it_would_create_creates_it_and_then_finds_it(tmp_path):
    status, out, _ = taxi("bootstrap", "--dry-run", TAXI_DATASETS="green")
    assert status == 0
    assert out.count("would create") == 10
    assert not (tmp_path / "home" / "lake").exists()
    assert taxi("bootstrap", TAXI_DATASETS="green")[1].count("created ") == 10
    assert taxi("bootstrap", TAXI_DATASETS="green")[1].count("exists ") == 10
    assert taxi("doctor", TAXI_DATASETS="green")[0] == 0


@pytest.mark.fault(170)
def test_views_that_read_the_files_of_another_home_are_wrong_until_the_next_ingest(tmp_path):
    home, other, link = (tmp_path / name for name in ("a [home]'s", "copy", "link"))
    settings = {"TAXI_HOME": str(home), "TAXI_DATASETS": "green"}
    assert taxi("ingest", "green", "2020-04", **settings)[0] == 0
    link.symlink_to(home)
    assert wrong(**settings) == wrong(**settings | {"TAXI_HOME": str(link)}) == {}
    other_lake = {"TAXI_LAKE_URL": (tmp_path / "lake").as_uri()}
    assert f"elsewhere: {home}/lake/clean/green/*/trips.parquet. Run" in wrong(**settings, **other_lake)["views"]
    shutil.copytree(home, other)
    settings["TAXI_HOME"] = str(other)
    assert f"views of files elsewhere: {home}/views/yellow-" in wrong(**settings)["views"]
    (other / "trips.duckdb").write_bytes(b"damaged")
    assert "cannot be opened" in wrong(**settings)["views"]
    assert taxi("ingest", "green", "2020-04", **settings)[0] == 0
    assert wrong(**settings) == {}


@pytest.mark.fault(57)
def test_zones_come_with_bootstrap_and_the_first_ingest_and_are_missed_by_doctor(tmp_path):
    file = str(tmp_path / "home/warehouse.duckdb")

    def zones():
        with duckdb.connect(file, read_only=True) as con:
            return con.execute("SELECT count(*) FROM taxi_zones").fetchone()[0]

    def damage(statement):
        with duckdb.connect(file) as con:
            con.execute(statement)

    assert taxi("ingest", "green", "2020-04", TAXI_DATASETS="green")[0] == 0
    assert zones() == 265
    assert taxi("bootstrap", TAXI_DATASETS="green")[0] == 0
    damage("DELETE FROM taxi_zones WHERE location_id > 100")
    status, out, _ = taxi("doctor", TAXI_DATASETS="green")
    assert status == 1
    assert "does not hold all zones. Run taxi bootstrap." in " ".join(out.split())
    assert "created taxi zones in" in " ".join(taxi("bootstrap", TAXI_DATASETS="green")[1].split())
    assert zones() == 265
    damage("DROP TABLE taxi_zones")
    status, out, _ = taxi("doctor", TAXI_DATASETS="green")
    assert "7 of 8 tables" in out
    assert taxi("ingest", "green", "2020-04", TAXI_DATASETS="green")[0] == 0
    assert zones() == 265
