"""Runs that were sent to a queue and that no agent has started, and agents that go on with what was canceled.
Dagster's monitoring looks at neither.

A run may wait for as long as it takes. Its message can be lost, when Redis forgets or an agent is killed at the wrong
moment: then it is sent again. If nobody serves its queue, its log says so. Neither is decided by one look: a busy agent
may miss the three seconds in which it is to answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import dagster as dg

from taxi_platform.assets.names import BACKFILL_TAG
from taxi_platform.runs.agents.broker import BrokerDown, Queue, held_task_ids
from taxi_platform.runs.agents.health import Suspicions
from taxi_platform.runs.agents.launcher import AgentRunLauncher, agent_of, queue_of, task_of
from taxi_platform.runs.agents.listing import Agent, answering_agents, unserved_queue
from taxi_platform.runs.dagster_internals import WorkerStatus

UNWANTED = [dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.FAILURE]
LOST_MESSAGE_SECONDS = 45
"""A message that is nowhere for this long, seen three times, is lost, and a queue that no agent serves for this long is
unserved. A taken message is nowhere for the second or two that its process needs to begin."""
SHOWN = 3


@dataclass
class WaitingRuns:
    """Looks after waiting runs; one lives as long as the process that looks."""

    suspicions: Suspicions = field(default_factory=Suspicions)
    _warned: set[str] = field(default_factory=set)

    def look(self, instance: dg.DagsterInstance) -> str:
        """Send lost runs again, fail those whose agent was lost, and say what waits. Raises `BrokerDown`.

        Runs that were canceled are interrupted again if an agent did not hear it, and those that wait for a backfill
        that is being canceled are canceled.
        """
        launcher = instance.run_launcher
        if not isinstance(launcher, AgentRunLauncher):
            return f"{instance.root_directory}/dagster.yaml does not start runs by agents."
        runs = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTING]))
        queues = Counter(queue for run in runs if (queue := queue_of(run)))
        try:
            agents = answering_agents(launcher.celery)
            held = held_task_ids(launcher.celery, list(queues)) if runs else set()
        except BrokerDown:
            self.suspicions.clear_all()  # when it is back, agents need up to half a minute
            raise
        held |= {task for agent in agents for task in agent.tasks}
        silent = {queue for queue in queues if not any(agent.serves(queue) for agent in agents)}
        _interrupt_unwanted(instance, launcher, agents)
        runs = _without_canceled(instance, launcher, runs)
        self.suspicions.keep({*(run.run_id for run in runs), *(queue.in_broker for queue in silent)})
        unserved = {queue for queue in silent if self.suspicions.lasts(queue.in_broker, _lost_seconds(launcher))}
        said = [self._look_at(instance, launcher, run, unserved, held) for run in runs]
        self._warned &= {run.run_id for run in runs if queue_of(run) in silent}
        return _summary(agents, queues, unserved, [line for line in said if line])

    def _look_at(
        self,
        instance: dg.DagsterInstance,
        launcher: AgentRunLauncher,
        run: dg.DagsterRun,
        unserved: set[Queue],
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
        if not queue or queue not in unserved:
            return ""
        if queue != launcher.queue_of(run):
            # It was sent before an upgrade, or before TAXI_QUEUES was changed.
            return self._send_again(launcher, run, f"No agent serves {queue.name} of {queue.release} any more")
        if run.run_id not in self._warned:
            self._warned.add(run.run_id)
            instance.report_engine_event(unserved_queue(queue, ", in which this run waits"), run)
        return ""

    def _send_again(self, launcher: AgentRunLauncher, run: dg.DagsterRun, why: str) -> str:
        self.suspicions.clear(run.run_id)
        launcher.send(run)
        return f"{why}: {run.run_id[:8]} is sent again."


def _interrupt_unwanted(instance: dg.DagsterInstance, launcher: AgentRunLauncher, agents: list[Agent]) -> None:
    """Have agents interrupt runs that are canceled or have failed: one that was cut off did not hear it before."""
    tasks = [task for agent in agents for task in agent.tasks]
    if not tasks:
        return
    ids = [task.partition(".")[0] for task in tasks]
    unwanted = {run.run_id for run in instance.get_runs(dg.RunsFilter(run_ids=ids, statuses=UNWANTED))}
    for run_id, task in zip(ids, tasks, strict=True):
        if run_id in unwanted:
            launcher.interrupt(task)


def _without_canceled(
    instance: dg.DagsterInstance, launcher: AgentRunLauncher, runs: Sequence[dg.DagsterRun]
) -> list[dg.DagsterRun]:
    """The runs, but for those whose backfill is being canceled: they are, too. Dagster cancels only what has begun."""
    backfills = {run.tags[BACKFILL_TAG] for run in runs if BACKFILL_TAG in run.tags}
    found = [backfill for each in backfills if (backfill := instance.get_backfill(each))]
    canceling = {backfill.backfill_id for backfill in found if backfill.status.value == "CANCELING"}
    others = []
    for run in runs:
        if run.tags.get(BACKFILL_TAG) in canceling:
            launcher.terminate(run.run_id)
        else:
            others.append(run)
    return others


def _lost_seconds(launcher: AgentRunLauncher) -> float:
    return min(LOST_MESSAGE_SECONDS, launcher.lost_after_seconds)


def _summary(agents: list[Agent], queues: Counter[Queue], unserved: set[Queue], said: list[str]) -> str:
    served = sorted({name for agent in agents for name in agent.queues if not agent.is_ending})
    count = "1 agent serves" if len(agents) == 1 else f"{len(agents)} agents serve"
    lines = [f"{count} {', '.join(served) or 'nothing'}." if agents else "No agent answers."]
    waits = ", ".join(f"{queue.name}: {count}" for queue, count in sorted(queues.items()))
    lines += [f"Waiting: {waits}."] if waits else []
    lines += [unserved_queue(queue) for queue in sorted(unserved)]
    lines += said[:SHOWN]
    lines += [f"{len(said) - SHOWN} more were sent again or failed."] if len(said) > SHOWN else []
    return " ".join(lines)
