"""Whether a run that an agent took still has that agent, judged from outside and never in haste.

An agent answers a ping while its runs work in processes of their own. A loaded machine answers late, a restarted broker
keeps everybody silent for half a minute, and a run ends between two questions: so nothing is declared lost on one look.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import Protocol

LOST_SECONDS = 60
"""An agent that answers no ping for this long is lost. Celery's worker takes up to 32 s to reconnect to a broker."""
ENDED_SECONDS = 5
"""An agent that answers, and does not have the run, for this long has lost it: its process was killed."""
LOOKS = 3
"""In this time, at least so many looks must agree."""


class Agents(Protocol):
    """Asks agents; raises `BrokerDown` if nobody can be asked."""

    def tasks_of(self, agent: str) -> frozenset[str] | None:
        """The ids of the tasks that the agent has; None if it did not answer in time."""


@dataclass
class Suspicions:
    """Since when something has looked wrong, and how often; one good look clears it."""

    clock: Callable[[], float] = time.monotonic
    _since: dict[str, tuple[float, int]] = field(default_factory=dict)

    def lasts(self, what: str, seconds: float) -> bool:
        """Note one more bad look; whether there have been `LOOKS` of them over that many seconds."""
        first, looks = self._since.get(what, (self.clock(), 0))
        self._since[what] = first, looks + 1
        return looks + 1 >= LOOKS and self.clock() - first >= seconds

    def clear(self, *whats: str) -> None:
        for what in whats:
            self._since.pop(what, None)

    def keep(self, whats: Container[str]) -> None:
        """Clear all but these."""
        self._since = {what: since for what, since in self._since.items() if what in whats}

    def clear_all(self) -> None:
        self._since.clear()


@dataclass
class Judge:
    """Judges runs by their agents. One lives as long as the process that looks."""

    agents: Agents
    suspicions: Suspicions
    lost_seconds: float = LOST_SECONDS
    ended_seconds: float = ENDED_SECONDS

    def problem(self, agent: str, task: str) -> str | None:
        """Why the task is lost; None while it is not, or while it is too early to say.

        Raises `BrokerDown`; time in which nobody can be asked counts against nobody.
        """
        silent, gone = f"silent {agent} {task}", f"gone {task}"
        try:
            tasks = self.agents.tasks_of(agent)
        except Exception:
            self.suspicions.clear_all()
            raise
        if tasks is None:
            if self.suspicions.lasts(silent, self.lost_seconds):
                return (
                    f"The agent {agent} has not answered for {self.lost_seconds:.0f} s: it was killed, or its machine "
                    "or network failed."
                )
            return None
        self.suspicions.clear(silent)
        if task in tasks:
            self.suspicions.clear(gone)
            return None
        if self.suspicions.lasts(gone, self.ended_seconds):
            return (
                f"The agent {agent} no longer has this run: its process was killed (for lack of memory?), or ended "
                "without recording it."
            )
        return None
