"""`taxi dev`: code server, daemon and webserver as three children that start together and end together.

Each child has its own session, so that Ctrl-C reaches only the supervisor, which ends the children in order. If the
supervisor is killed, the kernel ends them (Linux only). If a child is killed, it is started again.
"""

from __future__ import annotations

import logging
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import dagster as dg
import requests
from filelock import FileLock, Timeout
from sqlalchemy.exc import DBAPIError

from taxi_platform.assets.names import LOCATION
from taxi_platform.runs.clock import forget_times_ahead
from taxi_platform.runs.instance import report_dead_runs
from taxi_platform.settings import Settings
from taxi_platform.trips.errors import UserError
from taxi_platform.ui.child import Child

HOST = "127.0.0.1"
REPAIR_SECONDS = 10.0
"""How often to look for runs whose process has died (the code server looks after its own, as long as it lives), and for
times that lie ahead."""


def serve(settings: Settings, instance: dg.DagsterInstance, port: int, say: Callable[[str], None]) -> None:
    """Run the UI on loopback until interrupted; raises `TaxiError` if a child does not start, or keeps ending.

    A child that ends by itself is started again. Runs whose process died with it are reported as failed, and Dagster
    runs them again.
    """
    # Not in Dagster's home: Dagster moves files out of `logs` there and uploads them, even with telemetry disabled.
    logs = settings.home / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    # A private folder with a short path: UNIX socket paths are limited to about 100 characters.
    with _hold_dev_lock(settings.dagster_home), tempfile.TemporaryDirectory(prefix="taxi-") as folder:
        _check_port(port)
        children = _, daemon, _ = _children(Path(folder), logs, port)
        _repair(instance)
        try:
            for child in children:
                child.start()
                child.wait_until_ready()
            say(f"The UI is at http://{HOST}:{port} (Ctrl-C stops it). Logs: {logs}")
            looked_at = time.monotonic()
            while True:
                for child in children:
                    child.restart_if_ended(say)
                if time.monotonic() - looked_at > REPAIR_SECONDS:
                    if _repair(instance):
                        daemon.restart()  # it also has them in memory
                    looked_at = time.monotonic()
                time.sleep(0.5)
        finally:
            for child in reversed(children):
                child.stop()


def _children(folder: Path, logs: Path, port: int) -> tuple[Child, Child, Child]:
    """The code server, the daemon and the webserver, in the order in which they start."""
    code_socket, workspace = folder / "code.sock", folder / "workspace.yaml"
    workspace.write_text(
        f"load_from:\n  - grpc_server: {{socket: {code_socket}, location_name: {LOCATION}}}\n", encoding="utf-8"
    )
    code_server = [
        "-m", "dagster", "code-server", "start", "-s", str(code_socket), "-m", "taxi_platform.definitions",
        # Dagster would import modules from the working folder first.
        "--working-directory", str(folder),
        "--location-name", LOCATION, "--use-python-environment-entry-point", "--log-level", "warning",
    ]  # fmt: skip
    daemon = ["-m", "taxi_platform.ui.daemon", "run", "-w", str(workspace), "--log-level", "warning"]
    webserver = ["-m", "taxi_platform.ui.webserver", str(workspace), HOST, str(port)]
    return (
        Child("code server", code_server, logs / "code_server.log", code_socket.exists, code_socket),
        Child("daemon", daemon, logs / "daemon.log", lambda: True),
        Child("webserver", webserver, logs / "webserver.log", partial(_answers, port)),
    )


def _repair(instance: dg.DagsterInstance) -> bool:
    """Report the runs of dead processes; returns whether schedules and sensors had times that lay ahead."""
    try:
        report_dead_runs(instance)
        return forget_times_ahead(instance) > 0
    except DBAPIError:  # a restart of the database; the next look finds them
        logging.getLogger(__name__).warning("Dagster's database does not answer.", exc_info=True)
        return False


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


def _answers(port: int) -> bool:
    try:
        return requests.get(f"http://{HOST}:{port}/server_info", timeout=1).ok
    except requests.RequestException:
        return False
