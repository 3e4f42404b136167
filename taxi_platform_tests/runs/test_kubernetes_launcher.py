"""`DatasetK8sRunLauncher`: what a run's pod gets, and how it takes a cluster that does not answer."""

import json
import sys

import dagster as dg
import pytest
from dagster._core.launcher.base import LaunchRunContext, WorkerStatus

from taxi_platform.runs.dagster_internals import job_code_origin
from taxi_platform.trips.errors import UserError
from taxi_platform_tests.deploy.test_kubernetes_files import CONFIG
from taxi_platform_tests.support.emulators.kubernetes_api import kubernetes_api
from taxi_platform_tests.support.kubernetes_instance import open_launcher


@pytest.fixture
def cluster(tmp_path):
    with kubernetes_api(tmp_path, {}, {}) as (api, kubeconfig):
        yield api, kubeconfig


@pytest.fixture
def launcher(cluster, tmp_path):
    launcher = open_launcher(cluster[1], tmp_path)
    with dg.DagsterInstance.ephemeral() as instance:
        launcher.register_instance(instance)
        yield launcher


def run_of(asset, job="__ASSET_JOB", **tags):
    """A run as the UI's asset pages and backfills start it: of Dagster's own job, without our tags."""
    selection = {dg.AssetKey(asset.split("/"))} if asset else None
    return dg.DagsterRun(job_name=job, asset_selection=selection, tags=tags)


def container(launcher, run):
    return launcher.get_container_context_for_run(run).run_k8s_config.container_config


def test_a_runs_resources_are_those_of_the_dataset_whose_assets_it_has(launcher):
    everything = CONFIG["run_k8s_config"]["container_config"]["resources"]
    assert container(launcher, run_of("yellow/trips"))["resources"] == everything
    assert container(launcher, run_of("marts/overview"))["resources"] == everything
    assert container(launcher, run_of(None, "marts"))["resources"] == everything
    assert container(launcher, run_of("fhvhv/trips"))["resources"] == {
        "requests": {"cpu": "2", "memory": "3Gi", "ephemeral-storage": "8Gi"},
        "limits": {"memory": "4Gi", "ephemeral-storage": "8Gi"},
    }
    assert container(launcher, run_of(None, "fhvhv_ingest")) == container(launcher, run_of("fhvhv/trips"))
    assert {each["name"]: each["value"] for each in container(launcher, run_of("fhvhv/clean_trips"))["env"]} == {
        "TAXI_MEMORY_LIMIT": "2GB",
        "TAXI_THREADS": "2",
    }


def test_a_runs_own_tag_wins_over_its_dataset(launcher):
    tag = {"dagster-k8s/config": json.dumps({"container_config": {"resources": {"limits": {"memory": "9Gi"}}}})}
    assert container(launcher, run_of("fhvhv/trips", **tag))["resources"]["limits"]["memory"] == "9Gi"
    assert container(launcher, run_of("fhvhv/trips", **tag))["resources"]["requests"]["memory"] == "3Gi"


def test_a_run_starts_by_our_command_unless_somebody_has_another(launcher):
    tag = {"dagster-k8s/config": json.dumps({"container_config": {"command": ["nice", "-n5"]}})}
    run = dg.DagsterRun("green_ingest", job_code_origin=job_code_origin("green_ingest"))
    assert container(launcher, run)["command"] == [sys.executable, "-m", "taxi_platform.runs.run_worker"]
    assert container(launcher, run.with_tags(tag))["command"] == ["nice", "-n5"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"yelow": {"container_config": {}}}, "yelow"),
        ({"yellow": {"container": {}}}, "container"),
        ({"yellow": {"container_config": {"resorces": {}}}}, "resorces"),
    ],
)
def test_a_mistyped_name_ends_the_start_and_is_named(cluster, tmp_path, changes, named):
    with pytest.raises(Exception, match=named):
        open_launcher(cluster[1], tmp_path, run_k8s_config_by_dataset=changes)


def test_a_month_that_would_be_gone_with_its_pod_is_refused(cluster, launcher, tmp_path, monkeypatch):
    run = run_of("green/trips")
    with pytest.raises(UserError) as refused:
        launcher.launch_run(LaunchRunContext(run, workspace=None))
    assert str(refused.value).startswith(f"A pod cannot share the TAXI_LAKE_URL file://{tmp_path}/home/lake and the")
    monkeypatch.setenv("TAXI_LAKE_URL", "gs://bucket/taxi")
    with pytest.raises(UserError, match="A pod cannot share the TAXI_WAREHOUSE_URL duckdb:"):
        launcher.launch_run(LaunchRunContext(run, workspace=None))
    assert cluster[0].pods == {}


def test_a_cluster_that_does_not_answer_fails_no_run_but_a_job_that_is_gone_does(cluster, launcher):
    api, _ = cluster
    run = run_of("green/trips").with_status(dg.DagsterRunStatus.STARTED)
    assert launcher.check_run_worker_health(run).status == WorkerStatus.UNKNOWN  # it has no such Job
    api.answers = False
    assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
    api.answers = True
    assert launcher.check_run_worker_health(run).status == WorkerStatus.UNKNOWN
