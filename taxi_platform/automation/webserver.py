"""Dagster's UI under uvicorn, on loopback: `python -m taxi_platform.automation.webserver WORKSPACE HOST PORT`."""

from __future__ import annotations

import sys
from pathlib import Path


def main(workspace: str, host: str, port: int) -> None:
    """Serve the UI of `$DAGSTER_HOME`'s instance until terminated."""
    import uvicorn
    from dagster import DagsterInstance
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import WorkspaceFileTarget
    from dagster_webserver.app import create_app_from_workspace_process_context
    from dagster_webserver.version import __version__

    with (
        DagsterInstance.get() as instance,
        WorkspaceProcessContext(instance, WorkspaceFileTarget([str(Path(workspace))]), version=__version__) as context,
    ):
        instance.optimize_for_webserver(statement_timeout=15000, pool_recycle=3600, max_overflow=20)
        app = create_app_from_workspace_process_context(context)
        uvicorn.run(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=2)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
