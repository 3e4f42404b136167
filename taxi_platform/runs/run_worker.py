"""The process of a run that a cluster starts: Dagster's own command, but it waits for Dagster's PostgreSQL.

    python -m taxi_platform.runs.run_worker dagster api execute_run '{…}'

Dagster's launchers start `dagster api execute_run`, which gives up a database that restarts after 11 s: a run that
begins meanwhile ends at once, and one in progress fails a step, which is not run again.
"""

from __future__ import annotations

import runpy
import sys

from taxi_platform.runs.connections import wait_for_postgres


def main() -> None:
    """Run Dagster's command line, however it is named before `api`; ends the process with its exit status."""
    wait_for_postgres()
    sys.argv = ["dagster", *sys.argv[sys.argv.index("api") :]]
    runpy.run_module("dagster", run_name="__main__")


if __name__ == "__main__":
    main()
