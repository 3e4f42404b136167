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
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster_k8s import K8sRunLauncher
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import USER_DEFINED_K8S_JOB_CONFIG_SCHEMA, UserDefinedDagsterK8sConfig, get_user_defined_k8s_config

from taxi_platform.assets.partitions import datasets_of
from taxi_platform.trips.months import Dataset

NOT_FOUND = "could not be found"
"""How `K8sRunLauncher` ends its message about a Job that the cluster says it does not have."""

log = logging.getLogger(__name__)


class DatasetK8sRunLauncher(K8sRunLauncher):
    """`K8sRunLauncher` with one more setting, `run_k8s_config_by_dataset`: dataset → what `run_k8s_config` takes.

    The dataset is read from the run's job and assets, because backfills and runs that people start on the UI's asset
    pages carry no tags of our jobs. It is merged over `run_k8s_config`; a run's own tag `dagster-k8s/config` is merged
    over both.
    """

    def __init__(self, run_k8s_config_by_dataset: Mapping[str, Any] | None = None, **config: Any) -> None:
        super().__init__(**config)
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
        return {**super().config_type(), "run_k8s_config_by_dataset": Field(by_dataset, is_required=False)}

    def get_container_context_for_run(self, dagster_run: dg.DagsterRun) -> K8sContainerContext:
        """What the pod of a run gets, from the least to the most specific: everything's, its dataset's, its own."""
        context = super().get_container_context_for_run(dagster_run)
        for dataset in datasets_of(dagster_run):
            if dataset in self._by_dataset:
                context = context.merge(self._by_dataset[dataset])
        return context.merge(K8sContainerContext(run_k8s_config=get_user_defined_k8s_config(dagster_run.tags)))

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
