"""`deploy/kubernetes`: whether the chart, Kubernetes and Dagster accept it, as far as is known without a cluster."""

import re
from pathlib import Path

import pytest
import yaml
from dagster._config import process_config
from dagster._core.instance.config import dagster_instance_config_schema

from taxi_platform.settings import unknown_names
from taxi_platform_tests.support.emulators.kubernetes_api import validate

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
VALUES = yaml.safe_load((FOLDER / "values.yaml").read_text())
OBJECTS = list(yaml.safe_load_all((FOLDER / "objects.yaml").read_text()))
CONFIG = VALUES["runLauncher"]["config"]["customRunLauncher"]["config"]

CHART = {
    "": """additionalInstanceConfig busybox computeLogManager concurrency dagster-user-deployments dagsterDaemon
        dagsterWebserver flower fullnameOverride generateCeleryConfigSecret generatePostgresqlPasswordSecret global
        imagePullSecrets ingress migrate nameOverride pipelineRun postgresql pythonLogs rabbitmq rbacEnabled redis
        retention runLauncher scheduler serviceAccount telemetry""",
    "global": "celeryConfigSecretName dagsterHome postgresqlSecretName serviceAccountName",
    "postgresql": """enabled image postgresqlDatabase postgresqlHost postgresqlParams postgresqlPassword
        postgresqlScheme postgresqlUsername service""",
    "runLauncher": "config type",
    "runLauncher.config": "celeryK8sRunLauncher customRunLauncher k8sRunLauncher",
    "runLauncher.config.customRunLauncher": "class config module",
    "dagsterDaemon": """affinity annotations deploymentLabels enabled env envConfigMaps envSecrets heartbeatTolerance
        image labels livenessProbe nodeSelector podSecurityContext readinessProbe resources runCoordinator runMonitoring
        runRetries schedulerName schedules securityContext sensors startupProbe tolerations volumeMounts volumes""",
    "dagsterWebserver": """affinity annotations dbPoolRecycle dbStatementTimeout deploymentLabels enableReadOnly env
        envConfigMaps envSecrets image labels livenessProbe logLevel nameOverride nodeSelector pathPrefix
        podSecurityContext readinessProbe replicaCount resources schedulerName securityContext service startupProbe
        tolerations volumeMounts volumes workspace""",
    "dagsterWebserver.workspace": "enabled externalConfigmap servers",
    "dagster-user-deployments": "deployments enableSubchart enabled imagePullSecrets",
    "dagster-user-deployments.deployments": """
        affinity annotations codeServerArgs dagsterApiGrpcArgs deploymentStrategy env envConfigMaps
        envSecrets image includeConfigInLaunchedRuns initContainers labels livenessProbe name nodeSelector
        podSecurityContext port readinessProbe resources schedulerName securityContext sidecarContainers
        startupProbe tolerations volumeMounts volumes""",
    "computeLogManager": "config type",
    "computeLogManager.config.gcsComputeLogManager": """bucket jsonCredentialsEnvvar localDir prefix showUrlOnly
        uploadInterval""",
    "retention": "autoMaterialize enabled schedule sensor",
}
"""The names that the chart knows, by where they stand: read in the models from which its `values.schema.json` is
generated (helm/dagster/schema of Dagster's repository). The chart ignores or refuses others."""


def at(path):
    """What the values have at a path; of a list, all names that its entries have."""
    value = VALUES
    for name in filter(None, path.split(".")):
        value = value[name]
    return {name for entry in value for name in entry} if isinstance(value, list) else set(value)


@pytest.mark.parametrize("path", CHART)
def test_the_chart_knows_every_name(path):
    assert at(path) - set(CHART[path].split()) == set()


@pytest.mark.parametrize("document", OBJECTS, ids=lambda document: f"{document['kind']}/{document['metadata']['name']}")
def test_kubernetes_accepts_every_object(document):
    validate(document)


def test_dagster_accepts_the_configuration_that_the_chart_makes_of_the_values():
    """The chart adds storage, compute logs and retention, each in a block of its own."""
    launcher = VALUES["runLauncher"]["config"]["customRunLauncher"]
    config = {"run_launcher": launcher, "telemetry": VALUES["telemetry"], **VALUES["additionalInstanceConfig"]}
    result = process_config(dagster_instance_config_schema(), config)
    assert result.success, result.errors
    # A block that the chart writes too would stand there twice, and the second would win without a word.
    blocks_of_chart = {"scheduler", "run_launcher", "schedule_storage", "compute_logs", "telemetry", "retention"}
    assert not blocks_of_chart & set(VALUES["additionalInstanceConfig"])
    for block, name in {"runMonitoring": "run_monitoring", "runRetries": "run_retries"}.items():
        assert VALUES["dagsterDaemon"][block] == {"enabled": False}
        assert VALUES["additionalInstanceConfig"][name]["enabled"] is True


def test_a_pod_outlives_neither_its_run_nor_its_deadline():
    monitoring = VALUES["additionalInstanceConfig"]["run_monitoring"]
    longest = monitoring["start_timeout_seconds"] + monitoring["max_runtime_seconds"]
    assert CONFIG["run_k8s_config"]["job_spec_config"]["active_deadline_seconds"] > longest


def pods():
    """(name, pod's security context, container's security context, volume mounts) of every pod that is described."""
    run = CONFIG["run_k8s_config"]
    camel = {
        "runAsNonRoot": run["pod_spec_config"]["security_context"]["run_as_non_root"],
        "runAsUser": run["pod_spec_config"]["security_context"]["run_as_user"],
        "seccompProfile": run["pod_spec_config"]["security_context"]["seccomp_profile"],
    }
    security = run["container_config"]["security_context"]
    container = {
        "readOnlyRootFilesystem": security["read_only_root_filesystem"],
        "allowPrivilegeEscalation": security["allow_privilege_escalation"],
        "capabilities": security["capabilities"],
    }
    yield "runs", camel, container, [mount["mount_path"] for mount in run["container_config"]["volume_mounts"]]
    for name, pod in (
        ("code server", VALUES["dagster-user-deployments"]["deployments"][0]),
        ("daemon", VALUES["dagsterDaemon"]),
    ):
        mounts = [mount["mountPath"] for mount in pod["volumeMounts"]]
        yield name, pod["podSecurityContext"], pod["securityContext"], mounts
    (ui,) = [document["spec"]["template"]["spec"] for document in OBJECTS if document["kind"] == "Deployment"]
    (container,) = ui["containers"]
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    yield "UI", ui["securityContext"], container["securityContext"], mounts


@pytest.mark.parametrize(("name", "pod", "container", "mounts"), [pytest.param(*each, id=each[0]) for each in pods()])
def test_every_pod_is_the_images_user_with_no_rights_on_a_read_only_root(name, pod, container, mounts):
    assert (pod["runAsNonRoot"], pod["runAsUser"], pod["seccompProfile"]) == (True, 10001, {"type": "RuntimeDefault"})
    assert container == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"/var/lib/taxi", "/opt/dagster/dagster_home", "/tmp"} <= set(mounts)


def test_settings_are_known_and_secrets_are_only_named():
    (settings,) = [document["data"] for document in OBJECTS if document["metadata"]["name"] == "taxi-settings"]
    assert unknown_names(settings) == []
    text = (FOLDER / "values.yaml").read_text() + (FOLDER / "objects.yaml").read_text()
    assert not re.search(r"://[^/\s]*:[^/\s]*@", text)  # a URL with a password
    assert "kind: Secret" not in text
    assert "env_vars:" not in text  # it copies values into the Job


def test_what_one_file_names_the_other_has():
    names = {document["metadata"]["name"] for document in OBJECTS}
    assert {CONFIG["service_account_name"], VALUES["global"]["serviceAccountName"]} <= names
    assert {*CONFIG["env_config_maps"], VALUES["dagsterWebserver"]["workspace"]["externalConfigmap"]} <= names
    (code,) = VALUES["dagster-user-deployments"]["deployments"]
    assert code["volumes"][0] == {"name": "home", "persistentVolumeClaim": {"claimName": "taxi-home"}}
    assert "taxi-home" in names
    assert CONFIG["instance_config_map"] == f"{VALUES['fullnameOverride']}-instance"
    assert CONFIG["postgres_password_secret"] == VALUES["global"]["postgresqlSecretName"]
    assert CONFIG["dagster_home"] == VALUES["global"]["dagsterHome"]
