"""Who serves which queue, and what waits: what `taxi agents` and `taxi doctor` show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
from celery import Celery

from taxi_platform.runs.agents.broker import Queue, ask_agents, known_queues, risks, waiting
from taxi_platform.runs.agents.launcher import launcher_of
from taxi_platform.runs.agents.shared import CodeServer, Release, code_server_of, published
from taxi_platform.settings import Settings

ANSWER_SECONDS = 3.0


@dataclass(frozen=True)
class Agent:
    """One agent that answered: `tasks` are the ids of those it works on; it takes no more if `is_ending`."""

    name: str
    machine: str
    release: Release
    queues: tuple[str, ...]
    slots: int
    tasks: tuple[str, ...]
    is_ending: bool

    @property
    def runs(self) -> list[str]:
        """The ids of the runs that it works on."""
        return [task.partition(".")[0] for task in self.tasks]

    def serves(self, queue: Queue) -> bool:
        return not self.is_ending and queue.name in self.queues and queue.release == self.release.name


@dataclass(frozen=True)
class QueueState:
    """A queue: how many runs wait in it, and the agents that take them."""

    queue: Queue
    waiting: int
    agents: tuple[str, ...]


@dataclass(frozen=True)
class Listing:
    """Everything that `taxi agents` shows; `release` is that of the code server, which agents must have."""

    release: Release
    agents: Sequence[Agent]
    queues: Sequence[QueueState]
    risks: Sequence[str]

    @property
    def unserved(self) -> list[QueueState]:
        """The queues that nobody serves, if runs are sent to them or wait in them."""
        return [state for state in self.queues if not state.agents]

    def problems(self) -> list[str]:
        """Each with what to do."""
        found = [_problem(state, self.release) for state in self.unserved]
        different = [(agent, self.release.differences(agent.release)) for agent in self.agents]
        return found + [
            f"The agent {agent.name} takes nothing: it has {', '.join(differences)}. Install the same version and set "
            "the same variables there, and start it again."
            for agent, differences in different
            if differences
        ]

    def as_json(self) -> dict[str, Any]:
        """What `taxi agents --json` prints; its keys are public."""
        agents = [
            {
                "name": agent.name,
                "machine": agent.machine,
                "version": agent.release.version,
                "differs": self.release.differences(agent.release),
                "queues": list(agent.queues),
                "slots": agent.slots,
                "runs": agent.runs,
                "ending": agent.is_ending,
            }
            for agent in self.agents
        ]
        queues = [
            {
                "name": state.queue.name,
                "waiting": state.waiting,
                "agents": list(state.agents),
                "current": state.queue.release == self.release.name,
            }
            for state in self.queues
        ]
        return {"agents": agents, "queues": queues, "problems": self.problems(), "risks": list(self.risks)}


def _problem(state: QueueState, release: Release) -> str:
    waits = "1 run waits" if state.waiting == 1 else f"{state.waiting} runs wait"
    if state.queue.release != release.name:
        return (
            f"{waits} in the queue {state.queue.name} for agents of {state.queue.release}, and none is there; sent "
            f"again to agents of {release.name} within a minute, while the daemon runs."
        )
    return unserved_queue(state.queue, f"; {waits} in it")


def unserved_queue(queue: Queue, waits: str = "") -> str:
    """What people are told of a queue that nobody serves; `waits` says what waits in it."""
    return f"No agent serves the queue {queue.name}{waits}. Start one: taxi agent --queues {queue.name}"


def answering_agents(app: Celery) -> list[Agent]:
    """The agents that answer within `ANSWER_SECONDS`, by name. Raises `BrokerDown`."""
    return [_agent(name, said) for name, said in sorted(ask_agents(app, ANSWER_SECONDS).items())]


def _agent(name: str, said: Mapping[str, Any]) -> Agent:
    release, queues, tasks = Release(**said["release"]), tuple(said["queues"]), tuple(sorted(said["tasks"]))
    return Agent(name, said["machine"], release, queues, said["slots"], tasks, said["is_ending"])


def listing_of(instance: dg.DagsterInstance, settings: Settings) -> Listing:
    """Of the agents that this instance sends its runs to. Raises `BrokerDown`, or `UserError` if it has none."""
    here = code_server_of(settings)
    return listing(launcher_of(instance).celery, published(instance) or here, here)


def listing(app: Celery, server: CodeServer, here: CodeServer) -> Listing:
    """Ask the broker and all agents, a second time if nobody serves a queue: a busy agent may have missed the first.

    `here` is what this process would say in place of the code server. Raises `BrokerDown`.
    """
    release = server.release
    used = {Queue(name, release.name) for name in server.queues}
    agents = answering_agents(app)
    if not all(any(agent.serves(queue) for agent in agents) for queue in used):
        late = {agent.name: agent for agent in [*agents, *answering_agents(app)]}
        agents = [late[name] for name in sorted(late)]
    served = {Queue(name, agent.release.name) for agent in agents for name in agent.queues}
    states = []
    for queue in sorted({*used, *served, *known_queues(app)}):
        count = waiting(app, queue)
        serving = tuple(agent.name for agent in agents if agent.serves(queue))
        if count or serving or queue in used:
            states.append(QueueState(queue, count, serving))
    differences = release.differences(here.release)
    differences += ["another TAXI_QUEUES"] if server.queues != here.queues else []
    said = [f"here is {', '.join(differences)}; shown are the agents of the code server"] if differences else []
    return Listing(release, agents, states, [*said, *risks(app)])


def queued_runs(instance: dg.DagsterInstance) -> int:
    """The runs that wait in Dagster, before they are sent to a queue."""
    return instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED]))
