"""The compose files of deploy/server: the files, commands and variables that they name. No container is started."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from taxi_platform.cli import cli
from taxi_platform.settings import unknown_names

SERVER = Path(__file__).parents[2] / "deploy" / "server"
SECRET = re.compile("PASSWORD|TOKEN|SECRET")


FILES = [SERVER / "compose.yaml", SERVER / "compose.agents.yaml"]


@pytest.fixture(scope="module")
def services():
    """Every service; of one that both files have, the first file's, with the lists and variables of both."""
    first, second = (yaml.safe_load(path.read_text())["services"] for path in FILES)
    serve = first["serve"]
    serve["environment"] |= second["serve"]["environment"]
    serve["volumes"] += second["serve"]["volumes"]
    return {**second, **first}


def seconds(duration):
    minutes, rest = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", duration).groups(default="0")
    return int(minutes) * 60 + int(rest)


@pytest.mark.parametrize("name", ["serve", "agent"])
def test_the_commands_parse_and_have_time_to_end(services, name):
    program, command, *arguments = services[name]["command"]
    assert program == "taxi"
    options = cli.commands[command].make_context(command, list(arguments)).params
    longest_run = 600
    assert seconds(services[name]["stop_grace_period"]) >= options.get("drain_seconds", longest_run) + 60


def test_every_file_that_is_named_is_there(services):
    names = {
        *(volume.split(":")[0] for each in services.values() for volume in each.get("volumes", ())),
        *(
            each["build"]["context"] + "/" + each["build"]["dockerfile"]
            for each in services.values()
            if "build" in each
        ),
    }
    files = {name for name in names if name.startswith(".")}
    assert len(files) == 5
    assert [name for name in files if not (SERVER / name).is_file()] == []


def test_no_secret_has_a_value_and_every_one_is_asked_for(services):
    for service in services.values():
        for variable, value in service.get("environment", {}).items():
            if SECRET.search(variable):
                assert re.fullmatch(r"\$\{[A-Z_]+(:\?set it in \.env)?\}", value), variable
    asked = {name for path in FILES for name in re.findall(r"\$\{([A-Z_]+)", path.read_text())}
    lines = (SERVER / "passwords.env.example").read_text().splitlines()
    offered = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    assert asked == set(offered)
    assert [name for name, value in offered.items() if value] == ["SITE"]


def test_the_settings_exist_and_containers_may_do_little(services):
    for name in ("serve", "agent"):
        assert unknown_names(services[name]["environment"]) == []
        assert services[name]["read_only"]
        assert services[name]["cap_drop"] == ["ALL"]
        assert services[name]["security_opt"] == ["no-new-privileges:true"]
    assert [name for name in services if "ports" in services[name]] == ["serve"]
    assert services["serve"]["ports"] == ["443:443", "80:80"]  # the proxy's, in the namespace that it shares
    assert services["proxy"]["network_mode"] == "service:serve"


def test_the_databases_are_made_by_a_script_that_a_shell_accepts():
    script = SERVER / "databases.sh"
    assert script.stat().st_mode & 0o111
    subprocess.run(["sh", "-n", str(script)], check=True)


def test_compose_accepts_the_file():
    if not shutil.which("docker") or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        pytest.skip("the compose plugin of docker is not installed")
    names = ("SITE", "UI_TOKEN", "POSTGRES_PASSWORD", "DAGSTER_PASSWORD", "TAXI_PASSWORD", "TAXI_LAKE_URL")
    variables = dict.fromkeys(names, "x") | {"PATH": "/usr/bin:/bin:/usr/local/bin"}
    files = [word for path in FILES for word in ("--file", str(path))]
    command = ["docker", "compose", *files, "config", "--quiet", "--no-env-resolution"]
    subprocess.run(command, check=True, env=variables)
