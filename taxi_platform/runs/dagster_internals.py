"""Every private import from Dagster, each with the reason why the public API is not enough."""

from __future__ import annotations

from dagster._core.workspace.context import WorkspaceProcessContext  # what the webserver's app is created from
from dagster._core.workspace.load_target import WorkspaceFileTarget  # the workspace file that it serves
from dagster._time import get_current_timestamp  # the clock that runs are stamped with, which tests can set

__all__ = ["WorkspaceFileTarget", "WorkspaceProcessContext", "get_current_timestamp"]
