"""Code server, daemon and webserver as children of one process: started, watched, reloaded, and ended in order.

Each child has its own session, so that Ctrl-C reaches only the supervisor. If the supervisor is killed, the kernel
ends them (Linux only). `taxi dev` is the same without a drain.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Thread

import dagster as dg

from taxi_platform.runs.dagster_internals import reload_code_location
from taxi_platform.runs.in_progress import interrupt, months_of
from taxi_platform.runs.instance import problem_at_start, report_dead_runs
from taxi_platform.trips.errors import TaxiError
from taxi_platform.ui.child import Child
from taxi_platform.ui.database_watch import DatabaseWatch
from taxi_platform.ui.service_manager import ServiceManager
from taxi_platform.ui.signals import Signals

TICK_SECONDS = 0.25
INTERRUPT_SECONDS = 30.0
"""How long interrupted runs may take to end."""
STARTING_SECONDS = 30.0
"""A run that was asked to start and has no process after this time of draining never got one."""
QUIET_SECONDS = 5.0
"""A database that answers within this time is not mentioned."""

log = logging.getLogger("taxi_platform.serve")
Report = Callable[[str], None]


@dataclass(frozen=True)
class Parts:
    """The children in the order in which they start; without a daemon, that is None."""

    code_server: Child
    daemon: Child | None
    webserver: Child

    def all(self) -> list[Child]:
        return [child for child in (self.code_server, self.daemon, self.webserver) if child]


class Supervisor:
    """Runs the parts until a signal ends them; `report` is told of what somebody should know who reads no log."""

    def __init__(
        self, parts: Parts, watch: DatabaseWatch, signals: Signals, manager: ServiceManager, report: Report
    ) -> None:
        self._parts, self._watch, self._signals, self._manager, self._report = parts, watch, signals, manager, report
        self._started: list[Child] = []

    def run(self, instance: dg.DagsterInstance, ready: str, drain_seconds: float) -> None:
        """Start the parts, keep them alive, and drain; raises `TaxiError` if one does not start or keeps ending.

        `ready` is logged once everything answers. Runs in progress get `drain_seconds` to end by themselves, then they
        are interrupted, as by a second signal.
        """
        self._watch.start()
        try:
            self._start()
            if not self._signals.stops:
                self._manager.tell(READY=1)
                self._manager.status("Running")
                log.info(ready)
            self._keep_running()
            self._manager.tell(STOPPING=1)
            self._drain(instance, drain_seconds)
        except TaxiError as error:
            self._report(f"It gave up and ended: {error.problem}")
            raise
        finally:
            for child in reversed(self._started):
                child.stop()
            self._watch.end(seconds=2)

    def _start(self) -> None:
        for child in self._parts.all():
            self._manager.status(f"Starting the {child.name}")
            child.start()
            self._started.append(child)
            self._until(lambda child=child: child.is_ready)  # type: ignore[misc]
        if self._parts.daemon:
            self._manager.status("Waiting for the daemon's first report")
            self._until(lambda: self._watch.daemon_beats)
        self._watch.hurry = False

    def _keep_running(self) -> None:
        while not self._signals.stops:
            if self._signals.take_reload():
                self._reload()
            if self._watch.clock_was_ahead and self._parts.daemon:
                self._watch.clock_was_ahead = False
                log.warning("The clock was ahead for a while: the daemon starts again.")
                self._parts.daemon.restart()
            self._manager.status(self._watch.problem or "Running")
            self._tick()

    def _until(self, condition: Callable[[], bool]) -> None:
        """Keep everything alive until the condition holds, or a signal says to stop."""
        while not self._signals.stops and not condition():
            self._tick()

    def _tick(self) -> None:
        self._manager.sign_of_life()
        if self._watch.lost_hold:
            raise self._watch.lost_hold
        for child in self._started:
            if ended := child.keep_alive():
                log.warning(ended)
                self._report(ended)
        time.sleep(TICK_SECONDS)

    def _reload(self) -> None:
        """Load the code location again, beside runs in progress, and start again what only reads files at its start."""
        log.info("Reloading the code location and dagster.yaml. Changed variables need a restart.")
        self._manager.reloading()
        problems = {"dagster.yaml": "", "code": ""}
        loading = Thread(target=lambda: problems.update(self._load_again()), daemon=True)
        loading.start()
        self._until(lambda: not loading.is_alive())
        if self._signals.stops:
            return
        if problems["dagster.yaml"]:
            log.error("Nothing was reloaded. %s", problems["dagster.yaml"])
        else:
            for child in self._started[1:]:
                child.restart()
                self._until(lambda child=child: child.is_ready)  # type: ignore[misc]
            if problems["code"]:
                log.error("The code location cannot be loaded: %s Correct it and reload again.", problems["code"])
            else:
                log.info("Reloaded.")
        self._manager.tell(READY=1)

    def _load_again(self) -> dict[str, str]:
        """The problem of each part; the code is left as it is where processes that start now would end at once."""
        if problem := problem_at_start():
            return {"dagster.yaml": problem}
        return {"code": reload_code_location(str(self._parts.code_server.socket))}

    def _drain(self, instance: dg.DagsterInstance, seconds: float) -> None:
        """Start nothing more, and wait for the runs in progress; a second signal or the deadline interrupts them."""
        daemon = self._parts.daemon
        if daemon is None or daemon not in self._started or seconds == 0:
            return
        daemon.stop()
        self._started.remove(daemon)
        self._watch.look_again()
        begun, told = time.monotonic(), ""
        while self._signals.stops < 2 and time.monotonic() - begun < seconds:
            runs = self._runs_in_progress(time.monotonic() - begun)
            if runs is not None and not runs:
                log.info("No run is in progress: stopping.")
                return
            waits_for = f"runs in progress ({months_of(runs)})" if runs else "Dagster's database"
            if waits_for != told and (runs or time.monotonic() - begun > QUIET_SECONDS):
                told = waits_for
                log.info("Stopping: waiting up to %.0f s for %s. A second signal interrupts them.", seconds, told)
            self._manager.status(f"Stopping: waiting for {waits_for}")
            self._tick()
        self._interrupt(instance)

    def _interrupt(self, instance: dg.DagsterInstance) -> None:
        runs, begun = self._runs_in_progress(STARTING_SECONDS) or [], time.monotonic()
        names = months_of(runs) or "none is known"
        log.warning("Interrupting runs in progress (%s). They run again after the next start.", names)
        interrupt(instance, runs)
        while self._runs_in_progress(STARTING_SECONDS) and time.monotonic() - begun < INTERRUPT_SECONDS:
            self._tick()
        self._parts.code_server.stop()  # and what is left of its runs
        report_dead_runs(instance, is_server=True)

    def _runs_in_progress(self, waited: float) -> Sequence[dg.DagsterRun] | None:
        runs = self._watch.runs
        if runs is None or waited < STARTING_SECONDS:
            return runs
        return [run for run in runs if run.status != dg.DagsterRunStatus.STARTING]
