"""Months through a real `taxi dev` whose runs are Jobs of a stand-in for Kubernetes, with the launcher of
deploy/kubernetes: what happens to a run when its Job is killed, never starts, or is not wanted any more."""

import json

import pytest

from taxi_platform_tests.support.emulators.kubernetes_api import Obstacle, kubernetes_api, validate
from taxi_platform_tests.support.kubernetes_instance import instance_config
from taxi_platform_tests.support.system import wait_for
from taxi_platform_tests.support.taxi_dev import ASSETS, taxi_dev

pytestmark = pytest.mark.slow
CANARY = "c4naryWordInASecret"
START_TIMEOUT = 120
PATIENCE = 400
NO_ROOM = "0/3 nodes are available: 3 Insufficient memory."
NO_IMAGE = 'Back-off pulling image "taxi-platform:test"'


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("kubernetes") / "home"


@pytest.fixture(scope="module")
def cluster(home, tmp_path_factory):
    """The stand-in, and `taxi dev` with it. Secrets are in the daemon's environment too, as in the chart."""
    settings = {"TAXI_SOURCE_URL": "sample://?rows=60000", "TAXI_DATASETS": "green", "TAXI_HOME": str(home)}
    secrets = {
        "taxi-secrets": {"TAXI_REPORT_TOKEN": CANARY},
        "taxi-dagster-postgresql": {"postgresql-password": CANARY},
    }
    folder = tmp_path_factory.mktemp("nodes")
    with kubernetes_api(folder, {"taxi-settings": settings}, secrets) as (api, kubeconfig):
        config = instance_config(home / "dagster", kubeconfig, shared_home=True)
        config["run_monitoring"] |= {"poll_interval_seconds": 2, "start_timeout_seconds": START_TIMEOUT}
        (home / "dagster").mkdir(parents=True)
        (home / "dagster" / "dagster.yaml").write_text(json.dumps(config))
        with taxi_dev(home, **secrets["taxi-secrets"], **settings, DAGSTER_PG_PASSWORD=CANARY) as platform:
            yield api, platform


def launch(platform, month):
    """Materialize a month of green, as the UI's dialog does for a single one; returns the run's id."""
    query = """mutation($parameters: ExecutionParams!) { launchRun(executionParams: $parameters) { __typename
                 ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
                 ... on InvalidSubsetError { message } } }"""
    selector = {
        "repositoryLocationName": "taxi_platform",
        "repositoryName": "__repository__",
        "jobName": "__ASSET_JOB",
        "assetSelection": [{"path": ["green", asset]} for asset in ASSETS],
    }
    metadata = {"tags": [{"key": "dagster/partition", "value": month}]}
    launched = platform.ask(
        query, parameters={"selector": selector, "runConfigData": {}, "executionMetadata": metadata}
    )
    assert launched["launchRun"]["__typename"] == "LaunchRunSuccess", launched
    return launched["launchRun"]["run"]["runId"]


def status(platform, run):
    return platform.ask("query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }", id=run)["runOrError"][
        "status"
    ]


def messages(platform, run):
    query = """query($id: ID!) { runOrError(runId: $id) { ... on Run { eventConnection(limit: 1000) { events {
                 ... on MessageEvent { message } } } } } }"""
    events = platform.ask(query, id=run)["runOrError"]["eventConnection"]["events"]
    return "\n".join(event.get("message") or "" for event in events)


def retries(platform, run):
    """The ids of the runs that Dagster started after this one failed."""
    query = """query($tags: [ExecutionTag!]) { runsOrError(filter: {tags: $tags}) { ... on Runs {
                 results { runId } } } }"""
    found = platform.ask(query, tags=[{"key": "dagster/parent_run_id", "value": run}])["runsOrError"]["results"]
    return [each["runId"] for each in found]


def job_of(run):
    return f"dagster-run-{run}"


def wait_for_status(platform, run, wanted):
    assert wait_for(lambda: status(platform, run) in (wanted, "FAILURE", "SUCCESS", "CANCELED"), PATIENCE)
    assert status(platform, run) == wanted, messages(platform, run)


@pytest.fixture(scope="module")
def never_started(cluster):
    """Two runs whose pods wait, begun first because the start timeout must pass: they and their reasons."""
    api, platform = cluster
    obstacles = {"2020-08": Obstacle("Unschedulable", NO_ROOM), "2020-09": Obstacle("ImagePullBackOff", NO_IMAGE)}
    runs = {}
    for month, obstacle in obstacles.items():
        api.obstacle = obstacle
        runs[month] = launch(platform, month)
        wait_for(lambda run=runs[month]: job_of(run) in api.pods)
    api.obstacle = None
    return runs


def test_a_month_of_a_backfill_is_loaded_by_a_job(cluster, never_started):
    api, platform = cluster
    backfill = platform.launch_backfill("green", ["2020-01"])
    wait_for(lambda: platform.backfill_status(backfill) == "COMPLETED_SUCCESS", PATIENCE)
    (run,) = platform.backfill_runs(backfill)
    assert "2020-01" in platform.materialized("green/trips")
    pod = api.pods[job_of(run["runId"])]
    wait_for(lambda: pod.exit_code is not None)  # the backfill ends with the run, whose process may still be ending
    assert pod.exit_code == 0
    assert pod.container["resources"]["requests"] == {"cpu": "500m", "memory": "1Gi", "ephemeral-storage": "1Gi"}


@pytest.mark.fault(116)
def test_a_killed_job_is_noticed_and_its_month_is_run_again(cluster, never_started):
    api, platform = cluster
    run = launch(platform, "2020-02")
    wait_for_status(platform, run, "STARTED")
    api.kill(job_of(run))
    wait_for_status(platform, run, "FAILURE")
    assert "Run has not completed but K8s job has no active pods" in messages(platform, run)
    (second,) = wait_for(lambda: retries(platform, run))
    wait_for_status(platform, second, "SUCCESS")
    assert "2020-02" in platform.materialized("green/trips")


@pytest.mark.fault(117)
@pytest.mark.soak
def test_a_run_goes_on_while_the_cluster_does_not_answer(cluster, never_started):
    api, platform = cluster
    run = launch(platform, "2020-03")
    wait_for_status(platform, run, "STARTED")
    api.answers = False
    asked = len(api.requests)
    wait_for(lambda: len(api.requests) > asked + 3)  # the daemon looks after its runs
    api.answers = True
    wait_for_status(platform, run, "SUCCESS")


@pytest.mark.fault(118)
@pytest.mark.soak
def test_a_run_that_is_canceled_in_the_ui_has_no_job_left(cluster, never_started):
    api, platform = cluster
    run = launch(platform, "2020-05")
    wait_for_status(platform, run, "STARTED")
    query = """mutation($id: String!) { terminateRun(runId: $id) { __typename } }"""
    assert platform.ask(query, id=run)["terminateRun"]["__typename"] == "TerminateRunSuccess"
    wait_for_status(platform, run, "CANCELED")
    assert api.pods[job_of(run)].is_deleted
    wait_for(lambda: api.pods[job_of(run)].exit_code is not None)
    assert "2020-05" not in platform.materialized("green/trips")


@pytest.mark.fault(119)
@pytest.mark.soak
def test_a_job_that_never_starts_is_reported_with_the_reason(cluster, never_started):
    _, platform = cluster
    for month, reason in {
        "2020-08": f"FailedScheduling: {NO_ROOM}",
        "2020-09": f"ImagePullBackOff: {NO_IMAGE}",
    }.items():
        run = never_started[month]
        wait_for_status(platform, run, "FAILURE")
        assert f"longer than {START_TIMEOUT} seconds to start" in messages(platform, run)
        assert reason in messages(platform, run)


@pytest.mark.fault(120)
@pytest.mark.soak
def test_a_job_that_starts_after_its_run_was_given_up_does_nothing(cluster, never_started):
    api, platform = cluster
    run = never_started["2020-08"]
    wait_for_status(platform, run, "FAILURE")
    (second,) = wait_for(lambda: retries(platform, run))
    wait_for_status(platform, second, "SUCCESS")
    loaded = platform.run_checks(second)
    api.start(job_of(run))
    wait_for(lambda: api.pods[job_of(run)].exit_code is not None)
    assert "Ignoring a run worker that started after the run had already finished" in messages(platform, run)
    assert status(platform, run) == "FAILURE"
    assert platform.run_checks(second) == loaded


def test_kubernetes_accepts_every_job_and_none_says_a_secret(cluster, never_started):
    api, _ = cluster
    assert len(api.pods) >= 2
    for name, pod in api.pods.items():
        validate(pod.job)
        assert CANARY not in json.dumps(pod.job), name
        assert {"secretRef": {"name": "taxi-secrets"}} in pod.container["envFrom"]
        spec = pod.job["spec"]["template"]["spec"]
        assert (spec["serviceAccountName"], spec["automountServiceAccountToken"]) == ("taxi-runs", False)
        assert pod.container["securityContext"]["readOnlyRootFilesystem"] is True
