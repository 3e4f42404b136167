"""Dagster's configuration of deploy/kubernetes, with the stand-in for Kubernetes in place of the cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from dagster._core.launcher.base import RunLauncher
from dagster._serdes import ConfigurableClassData

VALUES = Path(__file__).parents[2] / "deploy" / "kubernetes" / "values.yaml"


def instance_config(home: Path, kubeconfig: Path, **changes: Any) -> dict[str, Any]:
    """What the chart makes of values.yaml, but with Dagster's own storage in `home`; `changes` are the launcher's."""
    values = yaml.safe_load(VALUES.read_text())
    launcher = values["runLauncher"]["config"]["customRunLauncher"]
    here = {
        "load_incluster_config": False,
        "kubeconfig_file": str(kubeconfig),
        "dagster_home": str(home),
        "job_image": "taxi-platform:test",  # in the cluster the code server names it
    }
    launcher["config"] |= here | changes
    return {"telemetry": values["telemetry"], "run_launcher": launcher, **values["additionalInstanceConfig"]}


def open_launcher(kubeconfig: Path, home: Path, **changes: Any) -> RunLauncher:
    """Its launcher."""
    block = instance_config(home, kubeconfig, **changes)["run_launcher"]
    data = ConfigurableClassData(block["module"], block["class"], yaml.safe_dump(block["config"]))
    return data.rehydrate(as_type=RunLauncher)
