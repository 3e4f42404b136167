"""Homes with odd names, consoles in ASCII, and working folders that hold modules of the same names as ours."""

import os
import subprocess
from pathlib import Path

import duckdb
import pytest

from taxi_platform.runs.home import without_url_characters
from taxi_platform.settings import load_settings
from taxi_platform.trips.errors import SettingError, UserError
from taxi_platform.warehouse import open_warehouse
from taxi_platform_tests.support.system import TAXI, wait_for
from taxi_platform_tests.support.taxi_dev import taxi_dev

ODD_HOME = "a home/é%41#100%'[x]"
MODULES = (
    "dagster", "dagster_webserver", "duckdb", "gql", "graphql", "multiprocessing", "pickle", "psutil", "socket",
    "taxi_platform", "typing_extensions", "yaml",
)  # fmt: skip


@pytest.fixture
def odd_home(monkeypatch, tmp_path):
    """A home with an odd name, and a working folder full of modules that must not be imported."""
    work = tmp_path / "work"
    work.mkdir()
    for name in MODULES:
        (work / f"{name}.py").write_text(f"raise SystemExit('{name} was imported from the working folder')\n")
    monkeypatch.chdir(work)
    monkeypatch.setenv("TAXI_HOME", str(tmp_path / ODD_HOME))
    monkeypatch.setenv("TAXI_SOURCE_URL", "sample://?rows=2000")
    return tmp_path / ODD_HOME


@pytest.mark.fault(84)
@pytest.mark.slow
def test_every_command_works_in_an_odd_home_an_ascii_console_and_a_hostile_folder(odd_home):
    ascii_console = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    commands = [
        "ingest green 2020-04 2020-05 --jobs 2",
        "status",
        "doctor",
        "versions green 2020-04",
        "prune",
        "demo -h",
    ]
    for command in commands:
        done = subprocess.run([TAXI, *command.split()], env=ascii_console, capture_output=True, check=False)
        assert done.returncode == 0, (command, done.stderr)
        assert (done.stdout + done.stderr).isascii()
        assert b"Traceback" not in done.stderr
    for name in ("trips.duckdb", "warehouse.duckdb"):
        with duckdb.connect(str(odd_home / name), read_only=True) as con:
            assert con.execute("SELECT count(*) FROM green_trips").fetchone() == (3998,)


@pytest.mark.fault(84)
@pytest.mark.slow
@pytest.mark.soak
def test_the_ui_its_daemon_and_its_runs_work_there_too(odd_home):
    with taxi_dev(odd_home, TAXI_SOURCE_URL="sample://?rows=2000", TAXI_DATASETS="green") as platform:
        backfill = platform.launch_backfill("green", ["2020-04"])
        wait_for(lambda: platform.backfill_status(backfill) != "REQUESTED", 300)
        assert platform.backfill_status(backfill) == "COMPLETED_SUCCESS"
        assert platform.materialized("green/trips") == {"2020-04"}


@pytest.mark.fault(84)
def test_a_question_mark_is_refused_by_name(monkeypatch):
    monkeypatch.setenv("TAXI_HOME", "/srv/what?/home")
    with pytest.raises(SettingError, match=r"TAXI_HOME is /srv/what\?/home"):
        load_settings()
    with pytest.raises(SettingError, match="TAXI_WAREHOUSE_URL"):
        open_warehouse("duckdb:///srv/what?/trips.duckdb")


@pytest.mark.fault(84)
def test_the_link_to_a_home_with_a_percent_sign_is_ours_or_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    home = tmp_path / "100%"
    link = without_url_characters(home)
    assert link.readlink() == home
    assert without_url_characters(home) == link
    assert "%" not in str(link)
    link.unlink()
    link.symlink_to(Path("/somewhere/else"))
    with pytest.raises(UserError, match="is not our link"):
        without_url_characters(home)
