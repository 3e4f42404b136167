"""Dagster's UI under uvicorn, on loopback: `python -m taxi_platform.ui.webserver WORKSPACE HOST PORT`.

The environment decides who may reach it (`access.py`, docs/sharing-the-ui.md). Other machines connect through a proxy.
"""

from __future__ import annotations

import sys
from pathlib import Path

from taxi_platform.trips.errors import TaxiError, UserError
from taxi_platform.ui.access import load_access
from taxi_platform.ui.guard import BODY_BYTES, Guard

LOOPBACK_ADDRESSES = ("127.0.0.1", "::1")


def main(workspace: str, host: str, port: int) -> None:
    """Serve the UI of `$DAGSTER_HOME`'s instance until terminated; raises `UserError` unless `host` is loopback."""
    if host not in LOOPBACK_ADDRESSES:
        raise UserError(
            f"The UI cannot be served on {host}.", "Serve it on 127.0.0.1, behind a proxy with TLS and a login."
        )
    access = load_access(port)

    import uvicorn
    from dagster import DagsterInstance
    from dagster_webserver.app import create_app_from_workspace_process_context
    from dagster_webserver.version import __version__

    from taxi_platform.runs.dagster_internals import WorkspaceFileTarget, WorkspaceProcessContext
    from taxi_platform.runs.sqlite import wait_for_locked_files
    from taxi_platform.ui.check_states import add_months_at_once

    add_months_at_once()
    wait_for_locked_files()
    target = WorkspaceFileTarget([str(Path(workspace))])
    with (
        DagsterInstance.get() as instance,
        WorkspaceProcessContext(instance, target, version=__version__, read_only=access.read_only) as context,
    ):
        instance.optimize_for_webserver(statement_timeout=15000, pool_recycle=3600, max_overflow=20)
        uvicorn.run(
            Guard(create_app_from_workspace_process_context(context), access),
            host=host,
            port=port,
            log_level="warning",
            timeout_graceful_shutdown=2,
            ws_max_size=BODY_BYTES,
            proxy_headers=False,  # uvicorn would trust them from any program on this machine, and nothing reads them
        )


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    except TaxiError as error:
        sys.exit(str(error))
