"""Dagster's launcher for Kubernetes, with what each dataset's pods need and patience while the cluster does not answer.

Dagster's configuration names it (deploy/kubernetes/values.yaml); nothing else imports it: it needs the extra
`taxi-platform[kubernetes]`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster import Field
from dagster_k8s import K8sRunLauncher
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import USER_DEFINED_K8S_JOB_CONFIG_SCHEMA, UserDefinedDagsterK8sConfig, get_user_defined_k8s_config

from taxi_platform.assets.partitions import datasets_of
from taxi_platform.runs.agents.shared import local_parts
from taxi_platform.runs.dagster_internals import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from taxi_platform.settings import load_settings
from taxi_platform.trips.errors import UserError
from taxi_platform.trips.months import Dataset

NOT_FOUND = "could not be found"
"""How `K8sRunLauncher` ends its message about a Job that the cluster says it does not have."""

log = logging.getLogger(__name__)


class DatasetK8sRunLauncher(K8sRunLauncher):
    """`K8sRunLauncher` with two more settings.

    `run_k8s_config_by_dataset`: dataset → what `run_k8s_config` takes. The dataset is read from the run's job and
    assets, because backfills and runs that people start on the UI's asset pages carry no tags of our jobs. It is merged
    over `run_k8s_config`; a run's own tag `dagster-k8s/config` is merged over both.

    `shared_home`: whether TAXI_HOME is a volume that all pods mount, so that lake and warehouse may be files in it.
    """

    def __init__(
        self, run_k8s_config_by_dataset: Mapping[str, Any] | None = None, shared_home: bool = False, **config: Any
    ) -> None:
        super().__init__(**config)
        self._shared_home = shared_home
        # Converted now, so that a field that Kubernetes does not know ends the daemon's start and not every run.
        self._by_dataset = {
            Dataset.parse(name): K8sContainerContext(run_k8s_config=UserDefinedDagsterK8sConfig.from_dict(value))
            for name, value in (run_k8s_config_by_dataset or {}).items()
        }

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        by_dataset = {
            dataset.value: Field(USER_DEFINED_K8S_JOB_CONFIG_SCHEMA, is_required=False) for dataset in Dataset
        }
        return {
            **super().config_type(),
            "run_k8s_config_by_dataset": Field(by_dataset, is_required=False),
            "shared_home": Field(bool, is_required=False, default_value=False),
        }

    def launch_run(self, context: LaunchRunContext) -> None:
        """Create the run's Job; raises `UserError` if the pod would write files that end with it, as a success."""
        local = [] if self._shared_home else local_parts(load_settings(), storage_is_local=False)
        if local:
            raise UserError(
                f"A pod cannot share {' and '.join(local)}: what it writes there would be gone with it.",
                "Set TAXI_LAKE_URL to a bucket (gs://…) and TAXI_WAREHOUSE_URL to PostgreSQL or BigQuery, for daemon "
                "and runs; or mount one volume at TAXI_HOME in all pods, and set shared_home: true for the launcher.",
            )
        super().launch_run(context)

    def get_container_context_for_run(self, dagster_run: dg.DagsterRun) -> K8sContainerContext:
        """What the pod of a run gets, from the least to the most specific: everything's, its dataset's, its own.

        And a command that waits for Dagster's PostgreSQL, unless the configuration has another.
        """
        context = super().get_container_context_for_run(dagster_run)
        for dataset in datasets_of(dagster_run):
            if dataset in self._by_dataset:
                context = context.merge(self._by_dataset[dataset])
        context = context.merge(K8sContainerContext(run_k8s_config=get_user_defined_k8s_config(dagster_run.tags)))
        origin = dagster_run.job_code_origin
        if origin is None or "command" in context.run_k8s_config.container_config:
            return context
        command = [origin.executable_path, "-m", "taxi_platform.runs.run_worker"]  # Dagster's follows as its arguments
        ours = UserDefinedDagsterK8sConfig(container_config={"command": command})
        return context.merge(K8sContainerContext(run_k8s_config=ours))

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether the run's Job works; a cluster that does not answer says nothing against it.

        Dagster counts an unknown health as failed. A control plane that is upgraded does not answer for minutes while
        its pods work on: every run would be reported as failed, and be run again beside itself. `max_runtime_seconds`
        still ends a run whose cluster never answers again.
        """
        health = super().check_run_worker_health(run)
        if health.status != WorkerStatus.UNKNOWN or (health.msg or "").endswith(NOT_FOUND):
            return health
        reason = (health.msg or "").strip().splitlines()[:1]
        log.warning("Kubernetes does not say how the Job of run %s is: %s", run.run_id, " ".join(reason))
        return CheckRunHealthResult(WorkerStatus.RUNNING, health.msg)
