"""For the runs of a code server, as `fork_runs` says, or of an agent."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from multiprocessing.util import Finalize, register_after_fork

from taxi_platform.trips.processes import end_with_parent
from taxi_platform.warm.up import warm_up


def _begin_run(of: object) -> None:
    """In the process of a run, before it begins.

    The code server learns of a run's end from the process that forked it, so no run may outlive that: it would be run
    again.
    """
    from taxi_platform.runs.connections import held_connections, wait_for_postgres
    from taxi_platform.runs.mirroring import mirrored_by_threads

    end_with_parent(signal.SIGKILL)
    until_end = ExitStack()
    until_end.enter_context(held_connections())
    wait_for_postgres()
    until_end.enter_context(mirrored_by_threads())
    Finalize(None, until_end.close, exitpriority=1)


def _prepare_dagster() -> None:
    """Have Dagster read what it reads once in a process, such as its migrations, and build the definitions."""
    import dagster as dg

    from taxi_platform import definitions
    from taxi_platform.runs.connections import held_connections

    with held_connections(), dg.DagsterInstance.local_temp():
        pass
    built = definitions.defs()
    built.get_repository_def()
    vars(definitions)["defs"] = built  # by this name Dagster finds them, built or to be built


register_after_fork(warm_up, _begin_run)
warm_up(_prepare_dagster)
