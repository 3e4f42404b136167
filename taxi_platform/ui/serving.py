"""`taxi serve` and `taxi dev`: what they hold, open and wait for before the supervisor runs their parts."""

from __future__ import annotations

import errno
import logging
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import dagster as dg
import psutil
import requests

from taxi_platform.assets.names import LOCATION
from taxi_platform.runs.instance import open_instance
from taxi_platform.settings import Settings
from taxi_platform.trips.errors import DatabaseUnavailable, LakeError, TaxiError, UserError
from taxi_platform.trips.os_errors import remedy
from taxi_platform.trips.processes import process_name
from taxi_platform.ui.child import Child
from taxi_platform.ui.database_watch import DatabaseWatch
from taxi_platform.ui.only_server import DatabaseHold, hold_home
from taxi_platform.ui.service_manager import ServiceManager
from taxi_platform.ui.signals import Signals
from taxi_platform.ui.supervisor import Parts, Report, Supervisor

HOST = "127.0.0.1"
PORT_SECONDS = 10.0
"""How long the webserver of a killed `taxi serve` may take to leave the port."""
DATABASE_INTERVAL = 2.0

log = logging.getLogger("taxi_platform.serve")


@dataclass(frozen=True)
class Options:
    """What is served: the UI, the daemon or both, and how long to wait for what, in seconds."""

    port: int
    with_ui: bool = True
    with_daemon: bool = True
    reloads: bool = False
    """Whether SIGHUP reloads; in a terminal, which sends it when it is closed, it stops."""
    drain_seconds: float = 0
    database_seconds: float = 0


def serve(settings: Settings, options: Options, report: Report) -> None:
    """Serve until a signal ends it; raises `TaxiError` if a part does not start or keeps ending.

    Raises `UserError` if the home, the database or the port is in use.
    """
    manager = ServiceManager()
    with ExitStack() as stack:
        signals = stack.enter_context(Signals(options.reloads))
        if options.with_daemon:
            stack.enter_context(hold_home(settings.dagster_home))
        _check_port(options.port)
        instance = _open_when_it_answers(stack, settings, options, signals, manager)
        if instance is None:
            return
        hold = None
        if options.with_daemon:
            hold = DatabaseHold(instance, process_name(os.getpid()), f"{datetime.now():%Y-%m-%d %H:%M:%S}")
            manager.status("Making sure that no other machine serves this database")
            hold.take(lambda: signals.stops > 0)
            if signals.stops:
                return
            stack.callback(hold.release)
        folder = stack.enter_context(_private_folder())
        logs = _log_folder(settings)
        parts = _parts(folder, logs, options)
        watch = DatabaseWatch(instance, str(parts.code_server.socket), hold)
        address = f"http://{HOST}:{options.port}"
        where = f"The UI is at {address}." if options.with_ui else f"Serving without the UI. {address}/health answers."
        supervisor = Supervisor(parts, watch, signals, manager, report)
        supervisor.run(instance, f"{where} Logs: {logs}", options.drain_seconds)


def _open_when_it_answers(
    stack: ExitStack, settings: Settings, options: Options, signals: Signals, manager: ServiceManager
) -> dg.DagsterInstance | None:
    """Dagster's instance; None if a signal came first. Raises `TaxiError` once the database was away for too long."""
    begun, is_told = time.monotonic(), False
    while not signals.stops:
        try:
            return stack.enter_context(open_instance(settings))
        except DatabaseUnavailable as error:
            waited = time.monotonic() - begun
            if not is_told:
                is_told = True
                log.warning("%s Waiting up to %.0f s for it.", error.problem, options.database_seconds)
            elif waited > options.database_seconds:
                raise TaxiError(f"{error.problem} Gave up after {waited:.0f} s.", error.remedy) from error
        manager.status("Waiting for Dagster's database")
        manager.extend_start(60)
        time.sleep(DATABASE_INTERVAL)
    return None


def _parts(folder: Path, logs: Path, options: Options) -> Parts:
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
    webserver = ["-m", "taxi_platform.ui.webserver", str(workspace), HOST, str(options.port)]
    webserver += [] if options.with_ui else ["--no-ui"]
    answers = partial(_answers, options.port)
    return Parts(
        Child("code server", code_server, logs / "code_server.log", code_socket.exists, code_socket),
        Child("daemon", daemon, logs / "daemon.log", lambda: True) if options.with_daemon else None,
        Child("webserver", webserver, logs / "webserver.log", answers),
    )


@contextmanager
def _private_folder() -> Iterator[Path]:
    """A folder of this user's alone with a short path: UNIX socket paths are limited to about 100 characters."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="taxi-")
    except OSError as error:
        raise LakeError(f"Cannot make a folder: {error.strerror}.", remedy(error.errno, "TMPDIR")) from error
    with folder as path:
        yield Path(path)


def _log_folder(settings: Settings) -> Path:
    # Not in Dagster's home: Dagster moves files out of `logs` there and uploads them, even with telemetry disabled.
    logs = settings.home / "logs"
    try:
        logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LakeError(f"Cannot make {logs}: {error.strerror}.", remedy(error.errno, "TAXI_HOME")) from error
    return logs


def _check_port(port: int) -> None:
    deadline = time.monotonic() + PORT_SECONDS
    while True:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
                return
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise UserError(
                        f"Cannot use port {port}: {error.strerror}.", "Choose another with --port."
                    ) from error
                if time.monotonic() > deadline:
                    raise UserError(f"Port {port} is in use{_by_whom(port)}.", "Choose another with --port.") from error
        time.sleep(0.5)


def _by_whom(port: int) -> str:
    """Which process listens there, if the system tells us: it does of processes of the same user."""
    with suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid:
                return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    return ""


def _answers(port: int) -> bool:
    try:
        return requests.get(f"http://{HOST}:{port}/server_info", timeout=1).ok
    except requests.RequestException:
        return False
