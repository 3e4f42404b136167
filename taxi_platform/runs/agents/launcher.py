"""The run launcher that `dagster.yaml` names where agents execute the runs: dagster-celery's, with guards.

Stock, it takes the queue from a tag, which backfills and launches in the UI do not carry, and believes for ever in an
agent that was killed.
"""

from __future__ import annotations

import time
import uuid
import warnings
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from typing import Any

import dagster as dg
from celery import Celery
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.tags import DAGSTER_CELERY_QUEUE_TAG, DAGSTER_CELERY_TASK_ID_TAG

from taxi_platform.assets.names import AGENT_TAG, PROCESS_RUN_TAG, PROCESS_TAG, QUEUE_TAG
from taxi_platform.assets.partitions import datasets_of
from taxi_platform.runs.agents.broker import (
    CONFIG,
    BrokerDown,
    Queue,
    ask_agents,
    broker_errors,
    claim,
    claimant,
    remove,
)
from taxi_platform.runs.agents.health import LOST_SECONDS, Judge, Suspicions
from taxi_platform.runs.agents.shared import release_of
from taxi_platform.runs.dagster_internals import (
    CheckRunHealthResult,
    DagsterUserCodeUnreachableError,
    LaunchRunContext,
    WorkerStatus,
)
from taxi_platform.settings import DEFAULT_QUEUE, load_settings, queue_name
from taxi_platform.trips.errors import UserError
from taxi_platform.trips.processes import is_dead

# dagster-celery defines its task anew for each launch.
warnings.filterwarnings("ignore", message="Task name 'execute_job' is already registered")

PING_SECONDS = 3.0
FRESH_SECONDS = 2.0
"""An agent's answer serves for all its runs that are judged in this time."""
BEGUN = (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)


class AgentRunLauncher(CeleryRunLauncher):
    """Sends each run to the queue that TAXI_QUEUES names for its dataset, and notices runs whose agent is lost."""

    def __init__(self, broker: str, lost_after_seconds: float = LOST_SECONDS, inst_data: Any = None) -> None:
        super().__init__(DEFAULT_QUEUE, broker=broker, backend=None, config_source=CONFIG, inst_data=inst_data)
        self.lost_after_seconds = lost_after_seconds

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        lost = dg.Field(
            dg.Noneable(float), is_required=False, default_value=None, description="How long an agent may be silent."
        )
        return {"broker": dg.Field(dg.StringSource, description="TAXI_BROKER_URL."), "lost_after_seconds": lost}

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Mapping[str, Any]) -> AgentRunLauncher:
        return cls(config_value["broker"], config_value.get("lost_after_seconds") or LOST_SECONDS, inst_data)

    def queue_of(self, run: dg.DagsterRun) -> Queue:
        """The tag `dagster-celery/queue`, which only a person sets; else TAXI_QUEUES by the run's datasets.

        A run of several datasets goes where the first entry of TAXI_QUEUES that names one of them says.
        """
        settings = load_settings()
        release = release_of(settings).name
        if tag := run.tags.get(DAGSTER_CELERY_QUEUE_TAG):
            return Queue(queue_name(tag, f"The tag {DAGSTER_CELERY_QUEUE_TAG}"), release)
        return Queue(settings.queue_for({dataset.value for dataset in datasets_of(run)}), release)

    def send(self, run: dg.DagsterRun) -> None:
        """Put a run, for the first time or again, into its queue. An agent executes only what was sent last."""
        self.launch_run(LaunchRunContext(run, workspace=None))

    def _launch_celery_task_run(self, run: dg.DagsterRun, task_signature: Any, routing_key: str) -> None:
        queue, task = self.queue_of(run), f"{run.run_id}.{uuid.uuid4().hex[:8]}"
        if (earlier := task_of(run)) and (earlier_queue := queue_of(run)):
            with suppress(BrokerDown):  # it is left there, and ignored
                remove(self.celery, earlier_queue, earlier)
        # Before it is sent: whoever takes it compares.
        self._instance.add_run_tags(run.run_id, {DAGSTER_CELERY_TASK_ID_TAG: task, QUEUE_TAG: queue.in_broker})
        try:
            with broker_errors(self.celery):
                task_signature.apply_async(
                    task_id=task, queue=queue.in_broker, routing_key=f"{queue.in_broker}.{routing_key}", priority=0
                )
        except BrokerDown as error:
            raise DagsterUserCodeUnreachableError(f"The run stays in the queue. {error}") from error
        self._instance.report_engine_event(f"The run waits for an agent in the queue {queue.name}.", run)

    @property
    def supports_resume_run(self) -> bool:
        return False

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """FAILED only when it is certain; a broker that is down says nothing about a run."""
        if not (task := task_of(run)):
            return self._judge_own_process(run)
        try:
            # An agent that was cut off between the two stores a tag of its own, over that of the next.
            agent = agent_of(run) or (run.status in BEGUN and claimant(self.celery, task))
            if not agent:
                return CheckRunHealthResult(WorkerStatus.RUNNING, "No agent has taken it yet.")
            problem = self.judge.problem(agent, task)
        except BrokerDown as error:
            return CheckRunHealthResult(WorkerStatus.RUNNING, str(error))
        if not problem:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        self.interrupt(task)  # if it is only cut off, it shall not go on beside the next try
        return CheckRunHealthResult(WorkerStatus.FAILED, problem)

    def _judge_own_process(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Of a run that no agent was to execute, such as one of `taxi ingest`."""
        if run.tags.get(PROCESS_RUN_TAG) == run.run_id and is_dead(run.tags.get(PROCESS_TAG, "")):
            return CheckRunHealthResult(WorkerStatus.FAILED, "The process of this run was killed.")
        return CheckRunHealthResult(WorkerStatus.RUNNING)

    def terminate(self, run_id: str) -> bool:
        """Cancel: at once if no agent has taken the run, else by interrupting its process, which ends it itself.

        The run is canceling also while the broker is down: Dagster's daemon cancels a backfill's runs again and again,
        and does nothing else, until all of them are. `WaitingRuns` repeats an interruption that no agent heard.
        """
        run = self._instance.get_run_by_id(run_id)
        task = task_of(run) if run else None
        if run is None or task is None or run.is_finished:
            return False
        if not agent_of(run) and self._keep_from_agents(task, queue_of(run)):
            self._instance.report_run_canceled(run, "Canceled before an agent took it.")
            return True
        # Asked again: it may have ended while the broker was asked.
        if (run := self._instance.get_run_by_id(run_id)) and not run.is_finished:
            # Before the interruption, which is a failure to a run that nobody is canceling.
            self._instance.report_run_canceling(run)
            self.interrupt(task)
        return True

    def _keep_from_agents(self, task: str, queue: Queue | None) -> bool:
        """Whether no agent will execute the task: none has claimed it, and none can any more."""
        try:
            if not claim(self.celery, task, "canceled"):
                return False
            if queue:
                remove(self.celery, queue, task)
        except BrokerDown:
            pass  # the run's status keeps agents away, too
        return True

    def get_run_worker_debug_info(self, run: dg.DagsterRun, include_container_logs: bool | None = True) -> str | None:
        queue = queue_of(run)
        return f"Queue: {queue.name if queue else 'none'}. Agent: {agent_of(run) or 'none'}."

    def interrupt(self, task: str) -> None:
        """Have agents interrupt the task, or never start it. An agent that is cut off just now does not hear it."""
        with suppress(BrokerDown), broker_errors(self.celery), self.celery.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1)
            self.celery.control.revoke(task, terminate=True, connection=connection)

    @cached_property
    def judge(self) -> Judge:
        lost = self.lost_after_seconds
        return Judge(AskedAgents(self.celery), SUSPICIONS, lost, ended_seconds=min(5, lost))


SUSPICIONS = Suspicions()
"""Of this process: Dagster opens its instance, and with it this launcher, again and again."""


class AskedAgents:
    """Agents by their answer to a ping; see `worker.py`."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._answers: dict[str, tuple[float, frozenset[str] | None]] = {}

    def tasks_of(self, agent: str) -> frozenset[str] | None:
        now = time.monotonic()
        asked, answer = self._answers.get(agent, (-FRESH_SECONDS, None))
        if now - asked >= FRESH_SECONDS:
            said = ask_agents(self._app, PING_SECONDS, agent).get(agent)
            answer = frozenset(said["tasks"]) if said else None
            self._answers[agent] = time.monotonic(), answer
        return answer


def launcher_of(instance: dg.DagsterInstance) -> AgentRunLauncher:
    """The launcher that sends this instance's runs to agents; raises `UserError` if it has another."""
    if not isinstance(instance.run_launcher, AgentRunLauncher):
        raise UserError(
            f"{instance.root_directory}/dagster.yaml does not start runs by agents.",
            "Copy deploy/agents/dagster.yaml over it; docs: deploy/agents/README.md.",
        )
    return instance.run_launcher


def task_of(run: dg.DagsterRun) -> str | None:
    """The id of the run's task; None if it was not sent. A run that is retried inherits the tags of the first."""
    task = run.tags.get(DAGSTER_CELERY_TASK_ID_TAG, "")
    return task if task.startswith(f"{run.run_id}.") else None


def queue_of(run: dg.DagsterRun) -> Queue | None:
    """The queue that the run was sent to; of a run that is retried, maybe still that of the first."""
    return Queue.parse(run.tags.get(QUEUE_TAG, "")) if task_of(run) else None


def agent_of(run: dg.DagsterRun) -> str | None:
    """The agent that took the task which was sent last; None if none has."""
    agent, _, task = run.tags.get(AGENT_TAG, "").partition(" ")
    return agent if task and task == task_of(run) else None
