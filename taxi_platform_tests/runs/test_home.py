"""`dagster.yaml` in Dagster's home: complete at every start, whatever happened to it before."""

import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path

import pytest

from taxi_platform.runs.home import EARLIER, text_for, write_dagster_yaml
from taxi_platform.runs.instance import open_instance
from taxi_platform.settings import load_settings
from taxi_platform.trips.errors import UserError
from taxi_platform.trips.machine import Machine, this_machine
from taxi_platform_tests.support.system import TAXI, small_file_system

PRODUCTION = Path(__file__).parents[2] / "deploy" / "dagster.yaml"
OURS = text_for(this_machine())
EARLIER_TEXTS = [resources.files("taxi_platform.runs").joinpath(name).read_bytes() for name in EARLIER]
DAMAGED = [b"", b"\n", b"\0" * len(OURS), OURS[:60], OURS[:-1][:-100], EARLIER_TEXTS[0][:400], OURS[:500] + b"\0" * 300]


def folder_content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.fault(80)
@pytest.mark.parametrize("damaged", DAMAGED)
def test_a_damaged_file_of_ours_is_written_again_and_the_old_one_kept(damaged, tmp_path, caplog):
    (tmp_path / "dagster.yaml").write_bytes(damaged)
    write_dagster_yaml(tmp_path)
    assert folder_content(tmp_path) == {"dagster.yaml": OURS, "dagster.yaml.damaged": damaged}
    assert "was damaged and has been written again" in caplog.text


@pytest.mark.fault(80)
def test_an_instance_whose_file_was_cut_sends_nothing_and_keeps_its_limits():
    settings = load_settings()
    settings.dagster_home.mkdir(parents=True)
    (settings.dagster_home / "dagster.yaml").write_bytes(b"")
    with open_instance(settings) as instance:
        assert not instance.telemetry_enabled
        assert instance.get_concurrency_config().run_queue_config.max_concurrent_runs == this_machine().runs
        assert instance.get_concurrency_config().pool_config.default_pool_limit == 2
        assert instance.run_retries_max_retries == 3


@pytest.mark.parametrize("earlier", EARLIER_TEXTS)
def test_a_file_of_an_earlier_version_becomes_todays(earlier, tmp_path, caplog):
    (tmp_path / "dagster.yaml").write_bytes(earlier)
    write_dagster_yaml(tmp_path)
    assert folder_content(tmp_path) == {"dagster.yaml": OURS}
    assert caplog.text == ""


def test_a_file_of_another_machine_gets_the_limit_of_this_one(tmp_path, caplog):
    (tmp_path / "dagster.yaml").write_bytes(text_for(Machine(1, 1024**3)))
    write_dagster_yaml(tmp_path)
    assert folder_content(tmp_path) == {"dagster.yaml": OURS}
    assert f"max_concurrent_runs: {this_machine().runs} #".encode() in OURS
    assert caplog.text == ""


def test_a_limit_that_somebody_set_stays(tmp_path, caplog):
    edited = text_for(Machine(1, 1024**3)).replace(b"max_concurrent_runs: 1 ", b"max_concurrent_runs: 9 ")
    (tmp_path / "dagster.yaml").write_bytes(edited)
    write_dagster_yaml(tmp_path)
    assert folder_content(tmp_path) == {"dagster.yaml": edited}
    assert caplog.text == ""


def test_a_file_that_somebody_edited_stays_and_what_it_lacks_is_said(tmp_path, caplog):
    edited = OURS.replace(b"telemetry: {enabled: false}", b"telemetry: {enabled: true}").replace(b"pools", b"pool")
    (tmp_path / "dagster.yaml").write_bytes(edited)
    write_dagster_yaml(tmp_path)
    assert folder_content(tmp_path) == {"dagster.yaml": edited}
    assert [record.getMessage().split(" lacks ")[1].split(":")[0] for record in caplog.records] == [
        "telemetry.enabled",
        "concurrency.pools.default_limit",
    ]


def test_the_file_for_a_shared_installation_lacks_nothing(tmp_path, caplog):
    deployed = (resources.files("taxi_platform").joinpath("..", "deploy", "dagster.yaml")).read_bytes()
    (tmp_path / "dagster.yaml").write_bytes(deployed)
    write_dagster_yaml(tmp_path)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("edited", "problem"),
    [
        (b"# mine\ntelemetry: {enabled: [}\n", "cannot be read: while parsing"),
        (b"only words\n", "is not a mapping"),
    ],
)
def test_a_file_that_is_not_yaml_is_a_mistake_and_stays(edited, problem, tmp_path):
    (tmp_path / "dagster.yaml").write_bytes(edited)
    with pytest.raises(UserError, match=problem):
        write_dagster_yaml(tmp_path)
    assert folder_content(tmp_path) == {"dagster.yaml": edited}


def test_a_setting_that_dagster_does_not_have_is_a_mistake():
    settings = load_settings()
    settings.dagster_home.mkdir(parents=True)
    (settings.dagster_home / "dagster.yaml").write_bytes(OURS + b"run_limits: 4\n")
    said = r"Dagster does not accept .*dagster.yaml.*run_limits\" at the root\. Correct it"
    with pytest.raises(UserError, match=said), open_instance(settings):
        pass


@pytest.mark.parametrize("password", ["4815162342", "@4815162342", "*4815162342", "!4815162342 x", "4815162342: x"])
def test_a_password_that_lacks_its_quotes_is_not_shown(password):
    settings = load_settings()
    settings.dagster_home.mkdir(parents=True)
    text = PRODUCTION.read_text("utf-8").replace("{env: DAGSTER_PG_PASSWORD}", password)
    (settings.dagster_home / "dagster.yaml").write_text(text, "utf-8")
    with pytest.raises(UserError) as caught, open_instance(settings):
        pass
    assert "4815162342" not in str(caught.value)
    assert re.search(r"storage:postgres:postgres_db|line \d+, column \d+", str(caught.value))


def test_a_url_in_the_file_that_cannot_be_parsed_is_a_mistake():
    settings = load_settings()
    settings.dagster_home.mkdir(parents=True)
    url = "storage: {postgres: {postgres_url: 'postgresql+psycopg2://taxi:s3c@ret@host:5x/dagster'}}\n"
    (settings.dagster_home / "dagster.yaml").write_text(url)
    with (
        pytest.raises(UserError, match=r"A value in .*dagster\.yaml cannot be parsed") as caught,
        open_instance(settings),
    ):
        pass
    assert "s3c" not in str(caught.value)


def test_variables_that_the_file_names_and_that_are_not_set_are_named_alone(monkeypatch):
    settings = load_settings()
    settings.dagster_home.mkdir(parents=True)
    shutil.copy(PRODUCTION, settings.dagster_home / "dagster.yaml")
    for name in ("USERNAME", "PASSWORD", "HOST"):
        monkeypatch.setenv(f"DAGSTER_PG_{name}", "any")
    said = r"dagster\.yaml needs variables that are not set: DAGSTER_PG_DB, DAGSTER_PG_PORT\. Set them"
    with pytest.raises(UserError, match=said), open_instance(settings):
        pass


@pytest.mark.fault(80)
def test_processes_that_start_at_once_agree_on_one_complete_file(tmp_path):
    (tmp_path / "dagster.yaml").write_bytes(OURS[:100])
    code = (
        "import pathlib, sys; from taxi_platform.runs.home import write_dagster_yaml\n"
        "sys.stdin.readline()\n"
        f"home = pathlib.Path({str(tmp_path)!r}); write_dagster_yaml(home)\n"
        "print((home / 'dagster.yaml').read_text())"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(4)
    ]
    with ThreadPoolExecutor(4) as pool:
        outputs = list(pool.map(lambda process: process.communicate(b"\n")[0], processes))
    assert [output.decode().rstrip("\n") for output in outputs] == [OURS.decode().rstrip("\n")] * 4
    assert folder_content(tmp_path) == {"dagster.yaml": OURS, "dagster.yaml.damaged": OURS[:100]}


@pytest.mark.fault(80)
def test_a_disk_that_is_full_at_the_first_start_leaves_no_file_and_says_so(tmp_path, monkeypatch):
    with small_file_system(tmp_path / "disk", 1) as disk:
        monkeypatch.setenv("TAXI_HOME", str(disk))
        (disk / "dagster").mkdir()
        filler = disk / "filler"
        with pytest.raises(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        done = subprocess.run([TAXI, "ingest", "green", "2020-04"], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "No space left on device. Free some space and run again." in " ".join(done.stderr.split())
        assert list((disk / "dagster").iterdir()) == []
