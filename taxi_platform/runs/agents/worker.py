"""The process of an agent: Celery's worker, which forks a process for each run and ends when they have ended.

Celery's own clean end stops answering pings while it waits for its tasks, so a long run would count as lost. Here the
agent goes on answering until its last run has ended.
"""

from __future__ import annotations

import logging
import os
import signal
import uuid
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import dagster as dg
from celery import Celery, bootsteps, signals
from celery.apps.worker import Worker
from celery.exceptions import CPendingDeprecationWarning, SecurityWarning
from celery.worker import state
from celery.worker.control import inspect_command
from celery.worker.strategy import default as default_strategy
from dagster_celery.config import TASK_EXECUTE_JOB_NAME
from sqlalchemy.exc import DBAPIError

from taxi_platform.assets.names import AGENT_TAG
from taxi_platform.runs.agents.broker import BrokerDown, Queue, broker_errors, claim
from taxi_platform.runs.agents.launcher import launcher_of, task_of
from taxi_platform.runs.agents.shared import Release, check_shareable, published, release_of, this_host
from taxi_platform.runs.connections import close_connections, read_schema
from taxi_platform.runs.dagster_internals import execute_in_worker
from taxi_platform.runs.instance import open_instance
from taxi_platform.runs.many_months import silence_loggers
from taxi_platform.settings import Settings

LOOK_SECONDS = 0.5
POOLS = ("source", "warehouse", "serving")
"""Those that the steps of a month name."""
STARTING = (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING)


def work(
    settings: Settings,
    queues: Sequence[str],
    slots: int,
    say: Callable[[str], None],
    warm_up: Callable[[], object] = lambda: None,
) -> int:
    """Take runs from the queues, `slots` at a time, until a signal; returns the exit status.

    The first SIGTERM or SIGINT ends it when the runs that it works on have ended; a second one interrupts those, which
    Dagster then runs again elsewhere. `warm_up` imports what every run needs. Raises `TaxiError` if it cannot begin.
    """
    with open_instance(settings) as instance:
        launcher = launcher_of(instance)
        release, machine = release_of(settings), this_host()
        known = published(instance)
        check_shareable(settings, _storage_is_local(instance), known.machine if known else None, machine)
        _prepare_pools(instance)
        read_schema(instance)
        app = launcher.celery
        _silence()
        with broker_errors(app), app.connection_for_read() as connection:
            connection.ensure_connection(max_retries=1, timeout=10)
        say(_greeting(release, known.release if known else None))
        warm_up()
        agent = _AgentState(f"{uuid.uuid4().hex[:8]}@{machine.name}", release, tuple(queues), slots, say)
        _register(app, agent, instance)
        worker = app.subclass_with_self(_AgentWorker)(
            agent_state=agent,
            hostname=agent.name,
            pool="prefork",
            concurrency=slots,
            queues=[Queue(name, release.name).in_broker for name in queues],
            loglevel="WARNING",
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            quiet=True,
        )
        close_connections(instance)  # the runs' processes, forked from here on, use the same instance
        worker.start()
    return worker.exitcode or 0


def _prepare_pools(instance: dg.DagsterInstance) -> None:
    """Create the pools before any run claims a place in one.

    On PostgreSQL two runs that create the same pool at once fail: Dagster goes on in a transaction that has failed.
    """
    storage = instance.event_log_storage
    for pool in POOLS:
        if pool not in storage.get_concurrency_keys():
            with suppress(DBAPIError):  # another agent was first
                storage.initialize_concurrency_limit_to_default(pool)


def _silence() -> None:
    """`silence_loggers`, and what Celery warns of in vain."""
    silence_loggers()
    # It warns that a canceled run cannot be marked in a result store, which there is none of.
    logging.getLogger("celery.worker.control").setLevel(logging.ERROR)
    # It warns against executing pickled messages as root; only JSON is accepted.
    warnings.filterwarnings("ignore", category=SecurityWarning)


def _storage_is_local(instance: dg.DagsterInstance) -> bool:
    return "sqlite" in type(instance.event_log_storage).__name__.lower()


def _greeting(release: Release, server: Release | None) -> str:
    if server is None:
        return f"taxi_platform {release.version}. The code server has not said yet what it has."
    if differences := server.differences(release):
        return (
            f"This agent takes nothing: it has {', '.join(differences)} than the code server. Install the same version "
            "and set the same variables on both."
        )
    return f"taxi_platform {release.version}, as the code server has it."


class _AgentState:
    """What an agent says of itself, and whether it is ending."""

    def __init__(
        self, name: str, release: Release, queues: Sequence[str], slots: int, say: Callable[[str], None]
    ) -> None:
        self.name, self.release, self.queues, self.slots, self.say = name, release, queues, slots, say
        self.is_ending = False

    def described(self) -> dict[str, Any]:
        return {
            "machine": this_host().name,
            "release": asdict(self.release),
            "queues": list(self.queues),
            "slots": self.slots,
            "tasks": list(state.requests),
            "is_ending": self.is_ending,
        }

    def handle_signal(self, number: int, frame: object) -> None:
        """In the main process, between two instructions: only flags and signals."""
        running = [request for request in list(state.requests.values()) if request.worker_pid]
        if not self.is_ending:
            self.is_ending = True
            runs = f"{len(running)} {'run' if len(running) == 1 else 'runs'}"
            _say_at_once(f"Ending: takes nothing more, and waits for {runs}. A second signal interrupts them.")
        else:
            _say_at_once(f"Interrupts {len(running)} runs; Dagster runs them again elsewhere.")
            for request in running:
                _signal(request.worker_pid)
        if not state.requests:
            state.should_stop = os.EX_OK


def _say_at_once(text: str) -> None:
    """From a signal handler, which may interrupt a print that is going on."""
    with suppress(OSError):
        os.write(1, f"{text}\n".encode())


def _signal(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)


class _AgentWorker(Worker):
    """Celery's worker with our signals, and without its banner."""

    def on_before_init(self, agent_state: _AgentState, **kwargs: Any) -> None:
        self.agent_state = agent_state
        super().on_before_init(**kwargs)

    def install_platform_tweaks(self, worker: Any) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.agent_state.handle_signal)

    def setup_logging(self, colorize: bool | None = None) -> Any:
        result = super().setup_logging(colorize)
        # Celery turns it on there, and with each lost connection warns of what its next major version will do.
        warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)
        return result

    def set_process_status(self, info: str) -> None:
        """The command line stays as it was typed: it holds no secret, and operators look for it."""

    def on_consumer_ready(self, consumer: Any) -> None:
        super().on_consumer_ready(consumer)
        state_ = self.agent_state
        self.agent_state.say(
            f"Agent {state_.name} serves {', '.join(state_.queues)}, {state_.slots} at a time (Ctrl-C ends it)."
        )


class _Looks(bootsteps.StartStopStep):
    """Looks every half second whether a slot is free, and ends an agent that is to end when it has no run left."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:
        self._is_canceled = False
        self._timer = consumer.timer.call_repeatedly(LOOK_SECONDS, self._look, (consumer,))

    def stop(self, consumer: Any) -> None:
        self._timer.cancel()

    def _look(self, consumer: Any) -> None:
        # Celery itself looks each 5 s, and a slot whose run has ended, with its process, often stood empty until then.
        consumer.pool.maintain_pool()
        agent: _AgentState = consumer.controller.agent_state
        if not agent.is_ending:
            return
        if not self._is_canceled:
            self._is_canceled = True
            for name in agent.queues:
                consumer.cancel_task_queue(Queue(name, agent.release.name).in_broker)
        if not state.requests:
            state.should_stop = os.EX_OK


def _register(app: Celery, agent: _AgentState, instance: dg.DagsterInstance) -> None:
    """Tell Celery what this process does: the task of a run, the answer to a ping, what a child does first."""

    def answer(state: Any) -> dict[str, Any]:
        return agent.described()

    inspect_command(name="taxi_agent")(answer)
    signals.worker_process_init.connect(_begin_child, weak=False)
    app.steps["consumer"].add(_Looks)

    @app.task(bind=True, name=TASK_EXECUTE_JOB_NAME, Strategy=f"{__name__}:receive_once")
    def execute_job(task: Any, execute_job_args_packed: dict[str, Any]) -> int:
        try:
            return _execute(app, task.request.id, agent, instance)
        finally:
            close_connections(instance)


def receive_once(task: Any, app: Celery, consumer: Any, **options: Any) -> Callable[..., None]:
    """Celery's strategy, but a message that comes again while its first is here is acknowledged, and that is all.

    Celery keeps requests by id, so the end of the second, which only finds that the run was claimed, would take the
    first from those that the agent answers with: its run would count as lost, and could not be canceled.
    """
    receive = default_strategy(task, app, consumer, **options)

    def receive_message(message: Any, body: Any, ack: Any, *others: Any) -> None:
        if message.headers["id"] in state.requests:
            ack(logging.getLogger(__name__), consumer.connection_errors)
        else:
            receive(message, body, ack, *others)

    return receive_message


def _begin_child(**_: Any) -> None:
    """In the process of a run. With a session of its own, a Ctrl-C at the agent's terminal does not reach it."""
    os.setsid()


def _execute(app: Celery, task: str, agent: _AgentState, instance: dg.DagsterInstance) -> int:
    """Execute a run if it was sent by this task, and is still to start; returns 0 if it succeeded or was left alone."""
    run_id = task.partition(".")[0]
    run = instance.get_run_by_id(run_id)
    if run is None or run.status not in STARTING or task_of(run) != task:
        return 0
    with suppress(BrokerDown):  # it was up a moment ago; the run's status keeps others away too
        if not claim(app, task, agent.name):
            return 0
    instance.add_run_tags(run_id, {AGENT_TAG: f"{agent.name} {task}"})
    instance.report_engine_event(f"The agent {agent.name} has taken the run.", run)
    return 0 if execute_in_worker(instance, run_id) else 1
