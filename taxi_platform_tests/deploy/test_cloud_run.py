"""`deploy/cloud-run/dagster.yaml`: Dagster accepts it, and its launcher asks Cloud Run for what it says."""

import json
import re
from datetime import timedelta
from pathlib import Path

import dagster as dg
import grpc
import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from dagster._config import validate_config
from dagster._core.instance.config import dagster_instance_config_schema
from dagster._core.launcher.base import WorkerStatus
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._serdes import ConfigurableClassData
from google.api_core.exceptions import ResourceExhausted
from google.cloud import run_v2
from google.cloud.run_v2.services.executions.transports import ExecutionsGrpcTransport
from google.cloud.run_v2.services.jobs.transports import JobsGrpcTransport
from tenacity import RetryError

from taxi_platform.assets.names import LOCATION
from taxi_platform.settings import unknown_names
from taxi_platform_tests.support.emulators.cloud_run import cloud_run_api

FOLDER = Path(__file__).parents[2] / "deploy" / "cloud-run"
CONFIG = yaml.safe_load((FOLDER / "dagster.yaml").read_text())
JOB = "projects/a-project/locations/us-east1/jobs/taxi-run"


@pytest.fixture
def api():
    with cloud_run_api() as api:
        yield api


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    """A service account that no server knows: the launcher looks for credentials before it asks for anything."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account",
        "client_email": "taxi@example.invalid",
        "private_key": private.decode(),
        "token_uri": "http://127.0.0.1:9/token",
    }
    path = tmp_path_factory.mktemp("key") / "key.json"
    path.write_text(json.dumps(account))
    return path


def open_launcher(api, key, monkeypatch, **changes):
    """The launcher of dagster.yaml, whose clients speak to the stand-in instead of Google."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
    monkeypatch.setenv("CLOUD_RUN_PROJECT", "a-project")
    monkeypatch.setenv("CLOUD_RUN_REGION", "us-east1")
    block = CONFIG["run_launcher"]
    text = yaml.safe_dump({**block["config"], **changes})
    launcher = ConfigurableClassData(block["module"], block["class"], text).rehydrate(as_type=object)
    channel = grpc.insecure_channel(f"127.0.0.1:{api.port}")
    launcher.jobs_client = run_v2.JobsClient(transport=JobsGrpcTransport(channel=channel))
    launcher.executions_client = run_v2.ExecutionsClient(transport=ExecutionsGrpcTransport(channel=channel))
    return launcher


@pytest.fixture
def launcher(api, key, monkeypatch):
    return open_launcher(api, key, monkeypatch, run_job_retry={"wait": 0, "timeout": 5})


def test_dagster_accepts_the_configuration():
    result = validate_config(dagster_instance_config_schema(), CONFIG)
    assert result.success, result.errors
    assert CONFIG["run_launcher"]["config"]["job_name_by_code_location"].keys() == {LOCATION}


def test_the_jobs_environment_has_every_variable_that_dagster_asks_for_and_no_password():
    variables = yaml.safe_load((FOLDER / "env.yaml").read_text())
    assert unknown_names(variables) == []
    assert all(isinstance(value, str) for value in variables.values())
    asked = set(re.findall(r"\{env: (\w+)\}", (FOLDER / "dagster.yaml").read_text()))
    assert asked - set(variables) == {"DAGSTER_PG_PASSWORD"}


def test_no_more_runs_start_in_a_minute_than_are_allowed():
    """With one thread a dequeued run is one request, and requests that are refused wait for longer than the minute."""
    assert 60 / CONFIG["run_queue"]["dequeue_interval_seconds"] <= 10
    assert CONFIG["run_queue"]["dequeue_use_threads"] is False
    assert CONFIG["run_launcher"]["config"]["run_job_retry"]["timeout"] > 60
    monitoring = CONFIG["run_monitoring"]
    assert CONFIG["run_launcher"]["config"]["run_timeout"] == monitoring["max_runtime_seconds"]
    assert CONFIG["concurrency"]["runs"]["max_concurrent_runs"] * 60 / monitoring["poll_interval_seconds"] <= 10


def test_a_run_asks_for_the_job_with_its_command_and_timeout(api, launcher):
    command = ["python", "-m", "dagster", "api", "execute_run", "{}"]
    operation = launcher.create_execution(LOCATION, command)
    assert operation.metadata.name == f"{JOB}/executions/taxi-run-1"
    (asked,) = api.runs
    assert asked.name == JOB
    (container,) = asked.overrides.container_overrides
    assert (list(container.args), list(container.env)) == (command, [])
    assert asked.overrides.timeout == timedelta(hours=2)


def test_a_start_beyond_the_quota_waits_and_is_tried_again(api, launcher):
    api.refusals = 2
    assert launcher.create_execution(LOCATION, ["python"]).metadata.name.endswith("taxi-run-3")


def test_a_start_that_is_always_refused_fails(api, key, monkeypatch):
    launcher = open_launcher(api, key, monkeypatch, run_job_retry={"wait": 0, "timeout": 0})
    api.refusals = 99
    with pytest.raises(RetryError) as failure:
        launcher.create_execution(LOCATION, ["python"])
    assert isinstance(failure.value.last_attempt.exception(), ResourceExhausted)


@pytest.mark.parametrize(
    ("execution", "status"),
    [
        ({"reconciling": True}, WorkerStatus.RUNNING),
        ({"succeeded_count": 1}, WorkerStatus.SUCCESS),
        ({"failed_count": 1}, WorkerStatus.FAILED),
        ({"cancelled_count": 1}, WorkerStatus.FAILED),
    ],
)
def test_what_became_of_an_execution_is_noticed(api, launcher, execution, status):
    api.execution = run_v2.Execution(execution)
    assert launcher.check_run_worker_health(started_run()).status == status


def started_run():
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(LOCATION), "__repository__")
    return dg.DagsterRun(
        job_name="__ASSET_JOB",
        status=dg.DagsterRunStatus.STARTED,
        tags={"cloud_run_job_execution_id": "taxi-run-1"},
        remote_job_origin=RemoteJobOrigin(repository, "__ASSET_JOB"),
    )


def test_a_run_that_is_canceled_ends_its_execution(api, launcher):
    with dg.DagsterInstance.ephemeral() as instance:
        launcher.register_instance(instance)
        run = started_run()
        instance.add_run(run)
        assert launcher.terminate(run.run_id)
        assert api.canceled == [f"{JOB}/executions/taxi-run-1"]
        assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.CANCELED
