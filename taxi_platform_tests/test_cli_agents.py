"""`taxi agent` and `taxi agents` where they cannot work: one sentence that says what is missing."""

import shutil
from pathlib import Path

import pytest

from taxi_platform_tests.test_cli import taxi

DAGSTER_YAML = Path(__file__).parents[1] / "deploy" / "agents" / "dagster.yaml"


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        (("agent",), {}, "TAXI_BROKER_URL is not set. It names the Redis in which runs wait for agents"),
        (("agents",), {}, "TAXI_BROKER_URL is not set."),
        (("agent", "--queues", ","), {"TAXI_BROKER_URL": "redis://127.0.0.1:1"}, "--queues names no queue"),
        (("agent", "--queues", "A b"), {"TAXI_BROKER_URL": "redis://127.0.0.1:1"}, "--queues names the queue 'A b'"),
        (("agent",), {"TAXI_BROKER_URL": "redis://127.0.0.1:1"}, "does not start runs by agents. Copy deploy/agents"),
        (("ingest", "green", "2020-04", "--through-dagster", "--jobs", "2"), {}, "--jobs is for months that run here"),
    ],
)
def test_a_mistake_is_named_with_what_to_do(arguments, settings, said):
    status, _, err = taxi(*arguments, **settings)
    assert status == 2
    assert said in " ".join(err.split())


def test_a_storage_that_does_not_answer_is_named(tmp_path, monkeypatch):
    (tmp_path / "dagster").mkdir()
    shutil.copy(DAGSTER_YAML, tmp_path / "dagster")
    names = {"USERNAME": "dagster", "PASSWORD": "s3cret", "HOST": "127.0.0.1", "PORT": "1", "DB": "dagster"}
    storage = {f"DAGSTER_PG_{name}": value for name, value in names.items()}
    status, _, err = taxi("agents", TAXI_HOME=str(tmp_path), TAXI_BROKER_URL="redis://127.0.0.1:1", **storage)
    assert status == 1
    assert "Dagster's database failed" in err
    assert "s3cret" not in err
