"""Dagster's UI under uvicorn, on loopback: `python -m taxi_platform.ui.webserver WORKSPACE HOST PORT [--no-ui]`.

With `--no-ui`, only `/health` and `/metrics`, for a machine whose UI runs elsewhere.

The environment decides who may reach it (`access.py`, docs/sharing-the-ui.md). Other machines connect through a proxy.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

import taxi_platform
from taxi_platform.settings import load_settings
from taxi_platform.trips.collecting import collect_seldom
from taxi_platform.trips.errors import TaxiError, UserError
from taxi_platform.ui.access import load_access
from taxi_platform.ui.guard import BODY_BYTES, Guard

LOOPBACK_ADDRESSES = ("127.0.0.1", "::1")


def without_ui() -> Starlette:
    """Only `/server_info`, as Dagster's webserver answers it, so that whoever starts this server sees it is ready."""
    return Starlette(
        routes=[Route("/server_info", lambda _: JSONResponse({"taxi_platform_version": taxi_platform.__version__}))]
    )


def main(workspace: str, host: str, port: int, ui: bool = True) -> None:
    """Serve the UI of `$DAGSTER_HOME`'s instance until terminated; raises `UserError` unless `host` is loopback."""
    collect_seldom()
    if host not in LOOPBACK_ADDRESSES:
        raise UserError(
            f"The UI cannot be served on {host}.", "Serve it on 127.0.0.1, behind a proxy with TLS and a login."
        )
    access = load_access(port)
    if access.closes_metrics:
        logging.warning("/metrics is closed: TAXI_UI_HOSTS is set, and TAXI_METRICS_TOKEN is not.")
    settings = load_settings()

    import uvicorn
    from dagster import DagsterInstance
    from dagster_webserver.app import create_app_from_workspace_process_context
    from dagster_webserver.version import __version__

    from taxi_platform.runs.connections import check_postgres
    from taxi_platform.runs.dagster_internals import WorkspaceFileTarget, WorkspaceProcessContext
    from taxi_platform.runs.sqlite import wait_for_locked_files
    from taxi_platform.ui.check_states import add_months_at_once
    from taxi_platform.ui.health import HealthChecks
    from taxi_platform.ui.metrics import Metrics
    from taxi_platform.ui.monitoring import Monitoring

    add_months_at_once()
    wait_for_locked_files()
    target = WorkspaceFileTarget([str(Path(workspace))])
    with (
        DagsterInstance.get() as instance,
        WorkspaceProcessContext(instance, target, version=__version__, read_only=access.read_only) as context,
    ):
        instance.optimize_for_webserver(statement_timeout=15000, pool_recycle=3600, max_overflow=20)
        check_postgres(instance)
        app = create_app_from_workspace_process_context(context) if ui else without_ui()
        monitoring = Monitoring(app, HealthChecks(settings, instance, context), Metrics(settings, instance))
        uvicorn.run(
            Guard(monitoring, access),
            host=host,
            port=port,
            log_level="warning",
            timeout_graceful_shutdown=2,
            ws_max_size=BODY_BYTES,
            proxy_headers=False,  # uvicorn would trust them from any program on this machine, and nothing reads them
        )


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2], int(sys.argv[3]), ui="--no-ui" not in sys.argv[4:])
    except TaxiError as error:
        sys.exit(str(error))
