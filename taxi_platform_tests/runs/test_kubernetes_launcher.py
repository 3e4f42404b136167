"""`DatasetK8sRunLauncher`: what a run's pod gets, and how it takes a cluster that does not answer."""

import json

import dagster as dg
import pytest
from dagster._core.launcher.base import WorkerStatus

from taxi_platform_tests.deploy.test_kubernetes_files import CONFIG
from taxi_platform_tests.support.emulators.kubernetes_api import kubernetes_api
from taxi_platform_tests.support.kubernetes_instance import instance_config


@pytest.fixture
def cluster(tmp_path):
    with kubernetes_api(tmp_path, {}, {}) as (api, kubeconfig):
        yield api, kubeconfig


def open_launcher(kubeconfig, tmp_path, **changes):
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text(json.dumps(instance_config(home, kubeconfig, **changes)))
    return dg.DagsterInstance.from_config(str(home))


@pytest.fixture
def launcher(cluster, tmp_path):
    with open_launcher(cluster[1], tmp_path) as instance:
        yield instance.run_launcher


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


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"yelow": {"container_config": {}}}, "yelow"),
        ({"yellow": {"container": {}}}, "container"),
        ({"yellow": {"container_config": {"resorces": {}}}}, "resorces"),
    ],
)
def test_a_mistyped_name_ends_the_start_and_is_named(cluster, tmp_path, changes, named):
    with (
        open_launcher(cluster[1], tmp_path, run_k8s_config_by_dataset=changes) as instance,
        pytest.raises(Exception, match=named),
    ):
        _ = instance.run_launcher


def test_a_cluster_that_does_not_answer_fails_no_run_but_a_job_that_is_gone_does(cluster, launcher):
    api, _ = cluster
    run = run_of("green/trips").with_status(dg.DagsterRunStatus.STARTED)
    assert launcher.check_run_worker_health(run).status == WorkerStatus.UNKNOWN  # it has no such Job
    api.answers = False
    assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
    api.answers = True
    assert launcher.check_run_worker_health(run).status == WorkerStatus.UNKNOWN
