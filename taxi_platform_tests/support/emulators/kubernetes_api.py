"""A stand-in for Kubernetes' API server and its nodes: it keeps Jobs, and runs the command of each as a process here.

It speaks what dagster-k8s asks for: Jobs (create, read, list, delete), their pods (list, delete, log) and events. It
has no scheduler, no images, no volumes, no service accounts and no permissions: a pod's environment is what its spec,
and the ConfigMaps and Secrets that the spec names, say. It takes any Job; `validate` says whether Kubernetes would.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate
import yaml

VERSION = "1.37"
"""Of Kubernetes, whose schema the Jobs must satisfy."""

GRACE_SECONDS = 30
"""How long a deleted pod may take before it is killed: Kubernetes' default."""

JOBS = re.compile(r"/apis/batch/v1/namespaces/(?P<namespace>[^/]+)/jobs(/(?P<name>[^/]+))?(/status)?")
PODS = re.compile(r"/api/v1/namespaces/(?P<namespace>[^/]+)/pods(/(?P<name>[^/]+))?(?P<log>/log)?")
EVENTS = re.compile(r"/api/v1/namespaces/(?P<namespace>[^/]+)/events")
VARIABLES_OF_A_NODE = ("PATH", "HOME", "LANG")
"""What a pod has besides its spec; without HOME and PATH no program starts."""

HOST_NAME = """import os, socket
socket.gethostname = lambda: os.environ["HOSTNAME"]
"""
"""`sitecustomize.py` of the pods: a pod's host name is its own, so its process ids say nothing on another machine."""


@dataclass(frozen=True)
class Obstacle:
    """Why pods do not start: `reason` and `message` as Kubernetes words them."""

    reason: str
    message: str

    @property
    def is_of_the_scheduler(self) -> bool:
        return self.reason == "Unschedulable"


@dataclass
class Pod:
    """A Job with its one pod. `process` is None while the pod waits."""

    job: dict[str, Any]
    output: Path
    obstacle: Obstacle | None
    process: subprocess.Popen[bytes] | None = None
    uid: str = field(default_factory=lambda: str(uuid.uuid4()))
    is_terminating: bool = False
    is_deleted: bool = False

    @property
    def exit_code(self) -> int | None:
        return self.process.poll() if self.process else None

    @property
    def container(self) -> dict[str, Any]:
        return self.job["spec"]["template"]["spec"]["containers"][0]


class KubernetesApi:
    """One namespace's Jobs. `pods` has them by name, those that were deleted too."""

    def __init__(self, folder: Path, config_maps: Mapping[str, dict[str, str]], secrets: Mapping[str, dict[str, str]]):
        self.folder = folder
        self.config_maps = config_maps
        self.secrets = secrets
        self.pods: dict[str, Pod] = {}
        self.changing = threading.Lock()
        self.obstacle: Obstacle | None = None
        """What keeps the pods of new Jobs from starting."""
        self.answers = True
        """False: every connection is closed without an answer, as by a control plane that restarts."""
        self.requests: list[str] = []
        (folder / "sitecustomize.py").write_text(HOST_NAME)

    def create(self, job: dict[str, Any]) -> dict[str, Any]:
        """Keep a Job and start its pod."""
        name = job["metadata"]["name"]
        pod = self.pods[name] = Pod(job, self.folder / f"{name}.log", self.obstacle)
        if not self.obstacle:
            self.start(name)
        return {**job, "metadata": {**job["metadata"], "uid": pod.uid}, "status": {}}

    def start(self, name: str) -> None:
        """Run the command of a Job's container, as a node does once image and room are there."""
        pod = self.pods[name]
        pod.obstacle = None
        command = [*pod.container.get("command", []), *pod.container.get("args", [])]
        with pod.output.open("wb") as output:
            pod.process = subprocess.Popen(
                command, env={**self._environment(pod.container), "HOSTNAME": name}, cwd=self.folder,
                stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def kill(self, name: str) -> None:
        """What an eviction, a lost node or too much memory does: SIGKILL, without a word to anybody."""
        process = self.pods[name].process
        assert process is not None
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def terminate(self, name: str) -> None:
        """Delete a pod: SIGTERM once, then SIGKILL after the grace period."""
        pod = self.pods[name]
        with self.changing:
            if pod.process and pod.process.poll() is None and not pod.is_terminating:
                pod.is_terminating = True
                with suppress(ProcessLookupError):
                    os.killpg(pod.process.pid, signal.SIGTERM)
                threading.Thread(target=self._kill_late, args=(name, pod.process), daemon=True).start()

    def _kill_late(self, name: str, process: subprocess.Popen[bytes]) -> None:
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill(name)

    def _environment(self, container: dict[str, Any]) -> dict[str, str]:
        environment = {name: os.environ[name] for name in VARIABLES_OF_A_NODE if name in os.environ}
        environment["PYTHONPATH"] = str(self.folder)
        for source in container.get("envFrom", []):
            if "configMapRef" in source:
                environment |= self.config_maps[source["configMapRef"]["name"]]
            else:
                environment |= self.secrets[source["secretRef"]["name"]]
        for variable in container.get("env", []):
            if "value" in variable:
                environment[variable["name"]] = variable["value"]
            else:
                key = variable["valueFrom"]["secretKeyRef"]
                environment[variable["name"]] = self.secrets[key["name"]][key["key"]]
        return environment

    def job_status(self, pod: Pod) -> dict[str, Any]:
        code = pod.exit_code
        counts: dict[str, Any] = {"active": 1} if code is None else {"succeeded": 1} if code == 0 else {"failed": 1}
        return {"startTime": "2026-01-01T00:00:00Z", **counts}

    def job_body(self, name: str) -> dict[str, Any]:
        pod = self.pods[name]
        return {**pod.job, "metadata": {**pod.job["metadata"], "uid": pod.uid}, "status": self.job_status(pod)}

    def pod_body(self, name: str) -> dict[str, Any]:
        pod = self.pods[name]
        template = pod.job["spec"]["template"]
        container = {"name": pod.container["name"], "image": pod.container["image"], "imageID": "", "ready": False}
        status: dict[str, Any] = {"phase": "Pending"}
        if pod.obstacle and not pod.obstacle.is_of_the_scheduler:
            waiting = {"reason": pod.obstacle.reason, "message": pod.obstacle.message}
            status["containerStatuses"] = [{**container, "restartCount": 0, "state": {"waiting": waiting}}]
        elif not pod.obstacle:
            code = pod.exit_code
            status["phase"] = "Running" if code is None else "Succeeded" if code == 0 else "Failed"
            state = {"running": {}} if code is None else {"terminated": _terminated(code)}
            status["containerStatuses"] = [{**container, "restartCount": 0, "state": state}]
        metadata = {**template.get("metadata", {}), "name": name}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"], "status": status}

    def events(self, name: str) -> list[dict[str, Any]]:
        """The warnings about a pod that waits."""
        pod = self.pods.get(name)
        if not pod or not pod.obstacle:
            return []
        reason = "FailedScheduling" if pod.obstacle.is_of_the_scheduler else "Failed"
        about = {"kind": "Pod", "name": name, "namespace": pod.job["metadata"].get("namespace", "default")}
        return [
            {
                "metadata": {"name": f"{name}.1"},
                "involvedObject": about,
                "type": "Warning",
                "reason": reason,
                "message": pod.obstacle.message,
                "count": 3,
            }
        ]

    def end(self) -> None:
        """Kill what still runs."""
        for name, pod in self.pods.items():
            if pod.process and pod.process.poll() is None:
                self.kill(name)


def validate(document: dict[str, Any]) -> None:
    """Raise `kubernetes_validate.ValidationError` if Kubernetes would refuse an object, or ignore a part of it.

    Not in the stand-in: it takes a second of processor time, and the launcher waits 10 s for an answer.
    """
    kubernetes_validate.validate(document, VERSION, strict=True)


def _terminated(code: int) -> dict[str, Any]:
    return {"exitCode": 128 - code if code < 0 else code, "reason": "Completed" if code == 0 else "Error"}


class _Handler(BaseHTTPRequestHandler):
    api: KubernetesApi
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self._connected():
            with self.api.changing:
                created = None if body["metadata"]["name"] in self.api.pods else self.api.create(body)
            self._answer(201, created) if created else self._refuse(409, "AlreadyExists")

    def do_GET(self) -> None:
        if not self._connected():
            return
        address = urlsplit(self.path)
        asked = {key: values[0] for key, values in parse_qs(address.query).items()}
        if jobs := JOBS.fullmatch(address.path):
            self._answer_with_jobs(jobs["name"], asked)
        elif pods := PODS.fullmatch(address.path):
            self._answer_with_pods(pods["name"], pods["log"], asked)
        elif EVENTS.fullmatch(address.path):
            name = asked["fieldSelector"].removeprefix("involvedObject.name=")
            self._answer(200, _listed("Event", self.api.events(name)))
        else:
            self._refuse(404, "NotFound")

    def do_DELETE(self) -> None:
        if not self._connected():
            return
        address = urlsplit(self.path)
        job = JOBS.fullmatch(address.path)
        matched = job or PODS.fullmatch(address.path)
        assert matched is not None, self.path
        pod = self.api.pods.get(matched["name"])
        if pod:
            pod.is_deleted = pod.is_deleted or job is not None
            self.api.terminate(matched["name"])
            self._answer(200, {"kind": "Status", "apiVersion": "v1", "status": "Success"})
        else:
            self._refuse(404, "NotFound")

    def _connected(self) -> bool:
        self.api.requests.append(f"{self.command} {self.path}")
        if not self.api.answers:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        return self.api.answers

    def _answer_with_jobs(self, name: str | None, asked: dict[str, str]) -> None:
        name = name or asked.get("fieldSelector", "").removeprefix("metadata.name=") or None
        alive = [each for each, pod in self.api.pods.items() if not pod.is_deleted and name in (None, each)]
        if "fieldSelector" in asked or name is None:
            return self._answer(200, _listed("Job", [self.api.job_body(each) for each in alive]))
        return self._answer(200, self.api.job_body(alive[0])) if alive else self._refuse(404, "NotFound")

    def _answer_with_pods(self, name: str | None, log: str | None, asked: dict[str, str]) -> None:
        if name and log:
            return self._send(200, "text/plain", self.api.pods[name].output.read_bytes())
        selected = asked.get("labelSelector", asked.get("fieldSelector", "")).rpartition("=")[2]
        bodies = [self.api.pod_body(each) for each in self.api.pods if each == selected]
        return self._answer(200, _listed("Pod", bodies))

    def _refuse(self, code: int, message: str) -> None:
        body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}
        self._answer(code, body)

    def _answer(self, code: int, body: dict[str, Any]) -> None:
        self._send(code, "application/json", json.dumps(body).encode())

    def _send(self, code: int, kind: str, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _listed(kind: str, items: list[dict[str, Any]]) -> dict[str, Any]:
    now = datetime.now(UTC).strftime("%Y%m%d%H%M%S")
    return {"kind": f"{kind}List", "apiVersion": "v1", "metadata": {"resourceVersion": now}, "items": items}


@contextmanager
def kubernetes_api(
    folder: Path, config_maps: Mapping[str, dict[str, str]], secrets: Mapping[str, dict[str, str]]
) -> Iterator[tuple[KubernetesApi, Path]]:
    """The stand-in on loopback, and a kubeconfig that leads to it; its processes end with it."""
    api = KubernetesApi(folder, config_maps, secrets)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"api": api}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    config = folder / "kubeconfig.yaml"
    config.write_text(yaml.safe_dump(_kubeconfig(f"http://127.0.0.1:{server.server_port}")))
    try:
        yield api, config
    finally:
        server.shutdown()
        server.server_close()
        api.end()


def _kubeconfig(address: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "here", "cluster": {"server": address}}],
        "users": [{"name": "nobody", "user": {}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "nobody"}}],
        "current-context": "here",
    }
