"""`taxi dev`: code server, daemon and webserver as three children that start together and end together.

Each child has its own session, so that Ctrl-C reaches only the supervisor, which ends the children in order. If the
supervisor is killed, the kernel ends them (Linux only).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import requests
from filelock import FileLock, Timeout

from taxi_platform.assets.names import LOCATION
from taxi_platform.runs.processes import end_with_parent
from taxi_platform.settings import Settings
from taxi_platform.trips.errors import TaxiError, UserError

HOST = "127.0.0.1"
READY_SECONDS = 120.0
END_SECONDS = 8.0


def serve(settings: Settings, port: int, say: Callable[[str], None]) -> None:
    """Run the UI on loopback until interrupted; raises `TaxiError` if a child does not start or ends by itself."""
    # Not in Dagster's home: Dagster moves files out of `logs` there and uploads them, even with telemetry disabled.
    logs = settings.home / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    # A private folder with a short path: UNIX socket paths are limited to about 100 characters.
    with _hold_dev_lock(settings.dagster_home), tempfile.TemporaryDirectory(prefix="taxi-") as folder:
        _check_port(port)
        code_socket, workspace = Path(folder, "code.sock"), Path(folder, "workspace.yaml")
        workspace.write_text(
            f"load_from:\n  - grpc_server: {{socket: {code_socket}, location_name: {LOCATION}}}\n", encoding="utf-8"
        )
        commands = {
            "code server": [
                "-m", "dagster", "code-server", "start", "-s", str(code_socket), "-m", "taxi_platform.definitions",
                "--location-name", LOCATION, "--use-python-environment-entry-point", "--log-level", "warning",
            ],
            "daemon": ["-m", "dagster._daemon", "run", "-w", str(workspace), "--log-level", "warning"],
            "webserver": ["-m", "taxi_platform.ui.webserver", str(workspace), HOST, str(port)],
        }  # fmt: skip
        children: dict[str, subprocess.Popen[bytes]] = {}
        try:
            children["code server"] = _start(commands["code server"], logs / "code_server.log")
            _wait(lambda: code_socket.exists(), children, "code server", logs)
            for name in ("daemon", "webserver"):
                children[name] = _start(commands[name], logs / f"{name}.log")
            _wait(lambda: _answers(port), children, "webserver", logs)
            say(f"The UI is at http://{HOST}:{port} (Ctrl-C stops it). Logs: {logs}")
            while True:
                _check_alive(children, logs)
                time.sleep(0.5)
        finally:
            _stop([children[name] for name in ("webserver", "daemon", "code server") if name in children])


@contextmanager
def _hold_dev_lock(dagster_home: Path) -> Iterator[None]:
    """Hold the home's lock: two daemons on one home would each launch the runs that are due."""
    lock = FileLock(dagster_home / "dev.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"taxi dev is already running on {dagster_home}.", "Use its UI, stop it, or set another TAXI_HOME."
        ) from None
    try:
        yield
    finally:
        lock.release()


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UserError(f"Port {port} is in use.", "Choose another: taxi dev --port 3001.") from error


def _start(arguments: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "DAGSTER_DISABLE_TELEMETRY": "1"},
            start_new_session=True,
            preexec_fn=_prepare_child,
        )


def _prepare_child() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)  # a background job of a shell inherits "ignore"
    end_with_parent()


def _wait(ready: Callable[[], bool], children: dict[str, subprocess.Popen[bytes]], name: str, logs: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not ready():
        _check_alive(children, logs)
        if time.monotonic() > deadline:
            raise TaxiError(f"The {name} did not start within {READY_SECONDS:.0f} s.", f"Its log is in {logs}.")
        time.sleep(0.1)


def _check_alive(children: dict[str, subprocess.Popen[bytes]], logs: Path) -> None:
    for name, child in children.items():
        if child.poll() is not None:
            log = logs / f"{name.replace(' ', '_')}.log"
            lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
            raise TaxiError(
                f"The {name} ended with status {child.returncode}: {lines[-1] if lines else 'no output'}",
                f"Its log is {log}.",
            )


def _answers(port: int) -> bool:
    try:
        return requests.get(f"http://{HOST}:{port}/server_info", timeout=1).ok
    except requests.RequestException:
        return False


def _stop(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """Terminate the children one after the other, the webserver first, and kill those that do not end."""
    for child in children:
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
