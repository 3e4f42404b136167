"""What the service asks Dagster's database, in a thread: one that does not answer must not stop anything else."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from typing import Any

import dagster as dg

from taxi_platform.runs.clock import MARGIN_SECONDS, forget_times_ahead
from taxi_platform.runs.dagster_internals import get_current_timestamp
from taxi_platform.runs.in_progress import runs_launched_at
from taxi_platform.runs.instance import described, report_dead_runs
from taxi_platform.trips.errors import TaxiError
from taxi_platform.ui.only_server import DatabaseHold

LOOK_SECONDS, HURRY_SECONDS = 10.0, 0.5
"""How often to look for runs whose process has died (the code server looks after its own, as long as it lives), and for
times that lie ahead; and how often while somebody waits for what is found."""

log = logging.getLogger("taxi_platform.serve")


class DatabaseWatch:
    """The findings of a thread that looks again and again, for others to read."""

    def __init__(self, instance: dg.DagsterInstance, code_socket: str, hold: DatabaseHold | None) -> None:
        self._instance, self._code_socket, self._hold = instance, code_socket, hold
        self._earlier_daemons = {beat.daemon_id for beat in instance.get_daemon_heartbeats().values()}
        self._known_ahead = set(self._earlier_daemons)
        self._required = set(instance.get_required_daemon_types())
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._work, name="database watch", daemon=True)
        self._is_ended = False
        self._questions = 0
        self.hurry = True
        """Whether somebody waits for the findings."""
        self.problem = ""
        """Why the database does not answer; empty if it does."""
        self.daemon_beats = False
        """Whether every part of a daemon that was started after this watch has reported."""
        self.clock_was_ahead = False
        """Whether the daemon has times in memory that lie ahead, of schedules and sensors or of its own loops."""
        self.runs: list[dg.DagsterRun] | None = None
        """The runs that the code server's processes execute; None until they are known."""
        self.lost_hold: TaxiError | None = None
        """Why this process may not run the daemon any longer."""

    def start(self) -> None:
        self._thread.start()

    def look_again(self) -> None:
        """Forget which runs are in progress, and look at once."""
        self._questions += 1
        self.runs, self.hurry = None, True
        self._wake.set()

    def end(self, seconds: float) -> None:
        """End the thread, and this process's entry in the database, if that answers in time."""
        self._is_ended = True
        self._wake.set()
        self._thread.join(seconds)

    def _work(self) -> None:
        while not self._is_ended:
            try:
                self._look()
                if self.problem:
                    log.info("Dagster's database answers again.")
                self.problem = ""
            except TaxiError as error:
                self.lost_hold = error
            except Exception as error:  # whatever it is, the next look may succeed; nothing else depends on this thread
                problem = f"Dagster's database does not answer: {described(error)}"
                if not self.problem:
                    log.warning(problem)
                self.problem = problem
            self._wake.wait(HURRY_SECONDS if self.hurry else LOOK_SECONDS)
            self._wake.clear()

    def _look(self) -> None:
        questions = self._questions
        if self._hold:
            self._hold.renew()
            report_dead_runs(self._instance, is_server=True)
            beats = self._instance.get_daemon_heartbeats()
            self.clock_was_ahead |= forget_times_ahead(self._instance) > 0
            self.clock_was_ahead |= self._has_beats_ahead(beats.values())
            new = {name for name, beat in beats.items() if beat.daemon_id not in self._earlier_daemons}
            self.daemon_beats |= new >= self._required
        runs = runs_launched_at(self._instance, self._code_socket)
        if questions == self._questions:  # else it may be older than the question
            self.runs = runs

    def _has_beats_ahead(self, beats: Iterable[Any]) -> bool:
        """Whether a daemon has reported from the future that was not known to: it would rest until then."""
        latest = get_current_timestamp() + MARGIN_SECONDS
        ahead = {beat.daemon_id for beat in beats if beat.timestamp > latest} - self._known_ahead
        self._known_ahead |= ahead
        return bool(ahead)
