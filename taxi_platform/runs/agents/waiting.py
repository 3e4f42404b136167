"""Runs that were sent to a queue and that no agent has started: Dagster's monitoring looks at runs that run.

A run may wait for as long as it takes. Its message can be lost, when Redis forgets or an agent is killed at the wrong
moment: then it is sent again. If nobody serves its queue, its log says so.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import dagster as dg

from taxi_platform.assets.names import QUEUE_TAG
from taxi_platform.runs.agents.broker import Queue, held_task_ids
from taxi_platform.runs.agents.health import Suspicions
from taxi_platform.runs.agents.launcher import AgentRunLauncher, agent_of, task_of
from taxi_platform.runs.agents.listing import Agent, answering_agents, unserved
from taxi_platform.runs.dagster_internals import WorkerStatus

LOST_MESSAGE_SECONDS = 45
"""A message that is nowhere for this long, seen three times, is lost. A taken one is nowhere for the second or two that
its process needs to begin."""
SHOWN = 3


@dataclass
class WaitingRuns:
    """Looks after waiting runs; one lives as long as the process that looks."""

    suspicions: Suspicions = field(default_factory=Suspicions)
    _warned: set[str] = field(default_factory=set)

    def look(self, instance: dg.DagsterInstance) -> str:
        """Send lost runs again, fail those whose agent was lost, and say what waits. Raises `BrokerDown`."""
        launcher = instance.run_launcher
        if not isinstance(launcher, AgentRunLauncher):
            return f"{instance.root_directory}/dagster.yaml does not start runs by agents."
        runs = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTING]))
        agents = answering_agents(launcher.celery)
        queues = [queue for run in runs if (queue := queue_of(run))]
        held = held_task_ids(launcher.celery, queues) if runs else set()
        held |= {task for agent in agents for task in agent.tasks}
        said = [self._look_at(instance, launcher, run, agents, held) for run in runs]
        self._warned &= {run.run_id for run in runs}
        return _summary(agents, Counter(queues), [line for line in said if line])

    def _look_at(
        self,
        instance: dg.DagsterInstance,
        launcher: AgentRunLauncher,
        run: dg.DagsterRun,
        agents: list[Agent],
        held: set[str],
    ) -> str:
        task, queue = task_of(run), queue_of(run)
        if task and agent_of(run):
            health = launcher.check_run_worker_health(run)
            if health.status == WorkerStatus.FAILED:
                instance.report_run_failed(run, health.msg)
                return f"{run.run_id[:8]} has failed: {health.msg}"
            return ""
        if not task or task not in held:
            if not self.suspicions.lasts(run.run_id, _lost_seconds(launcher)):
                return ""
            return self._send_again(launcher, run, "Its message was lost")
        self.suspicions.clear(run.run_id)
        if not queue or any(agent.serves(queue) for agent in agents):
            self._warned.discard(run.run_id)
            return ""
        if queue != launcher.queue_of(run):
            # It was sent before an upgrade, or before TAXI_QUEUES was changed.
            if self.suspicions.lasts(f"unserved {run.run_id}", _lost_seconds(launcher)):
                return self._send_again(launcher, run, f"No agent serves {queue.name} of {queue.release} any more")
        elif run.run_id not in self._warned:
            self._warned.add(run.run_id)
            instance.report_engine_event(unserved(queue, ", in which this run waits"), run)
        return ""

    def _send_again(self, launcher: AgentRunLauncher, run: dg.DagsterRun, why: str) -> str:
        self.suspicions.clear(run.run_id, f"unserved {run.run_id}")
        launcher.send(run)
        return f"{why}: {run.run_id[:8]} is sent again."


def _lost_seconds(launcher: AgentRunLauncher) -> float:
    return min(LOST_MESSAGE_SECONDS, launcher.lost_after_seconds)


def queue_of(run: dg.DagsterRun) -> Queue | None:
    """The queue that the run was sent to; of a run that is retried, maybe still that of the first."""
    return Queue.parse(run.tags.get(QUEUE_TAG, "")) if task_of(run) else None


def _summary(agents: list[Agent], queues: Counter[Queue], said: list[str]) -> str:
    served = sorted({name for agent in agents for name in agent.queues if not agent.is_ending})
    lines = [f"{len(agents)} agents serve {', '.join(served)}." if agents else "No agent answers."]
    waits = ", ".join(f"{queue.name}: {count}" for queue, count in sorted(queues.items()))
    lines += [f"Waiting: {waits}."] if waits else []
    lines += [unserved(queue) for queue in sorted(queues) if not any(agent.serves(queue) for agent in agents)]
    lines += said[:SHOWN]
    lines += [f"{len(said) - SHOWN} more were sent again or failed."] if len(said) > SHOWN else []
    return " ".join(lines)
