"""Celery over Redis, as the launcher and the agents use it.

There is no result store: what became of a run stands in Dagster's storage alone, so no second record can be lost,
expire, or say otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from celery import Celery
from kombu.exceptions import ChannelError
from kombu.exceptions import OperationalError as BrokerError

from taxi_platform.trips.errors import TaxiError

VISIBILITY_SECONDS = 120
"""A message that an agent took and did not start within this time goes to another. It is acknowledged as soon as a
process for its run is there, which takes no time: only a killed agent leaves one."""
CONNECT_SECONDS = 5
CLAIM_SECONDS = 24 * 3600
ANSWER_SECONDS = 30
"""A broker that is stuck counts as one that is down."""
CONFIG: dict[str, Any] = {
    # One process a run, forked from the agent, which has imported everything: no memory of one run reaches the next.
    "worker_max_tasks_per_child": 1,
    # An agent takes no more than it can start.
    "worker_prefetch_multiplier": 1,
    "worker_disable_prefetch": True,
    # Acknowledged at the start: one that is redelivered at the end of its agent would meet its own run, STARTED, be
    # ignored as a duplicate, and the run would never end. Dagster's run retries are the only retries.
    "task_acks_late": False,
    "task_ignore_result": True,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "broker_transport_options": {
        "visibility_timeout": VISIBILITY_SECONDS,
        "max_retries": 3,
        "interval_start": 0,
        "interval_step": 0.2,
        "interval_max": 0.5,
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_timeout": ANSWER_SECONDS,
        "socket_keepalive": True,
    },
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
    "accept_content": ["json"],
    "task_serializer": "json",
}

PREFIX = "taxi"


@dataclass(frozen=True, order=True)
class Queue:
    """A queue as people know it, and the release of the agents that may serve it."""

    name: str
    release: str

    @property
    def in_broker(self) -> str:
        return f"{PREFIX}.{self.name}.{self.release}"

    @classmethod
    def parse(cls, in_broker: str) -> Queue | None:
        """The queue of this name in the broker; None if it is not one of ours."""
        prefix, _, rest = in_broker.partition(".")
        name, dot, release = rest.partition(".")
        return cls(name, release) if prefix == PREFIX and dot else None


class BrokerDown(TaxiError):
    """The broker does not answer."""


@contextmanager
def broker_errors(app: Celery) -> Iterator[None]:
    """Raise `BrokerDown` for what kombu and Redis raise when the broker does not answer."""
    connection = app.connection_for_read()
    failures: tuple[type[BaseException], ...] = (
        BrokerError,
        *connection.connection_errors,
        *connection.channel_errors,
        *connection.recoverable_connection_errors,
    )
    try:
        yield
    except failures as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise BrokerDown(
            f"The broker {connection.as_uri()} does not answer: {reason}.",
            "Start Redis, or correct TAXI_BROKER_URL.",
        ) from error


def held_task_ids(app: Celery, queues: Sequence[Queue]) -> set[str]:
    """The ids of all tasks that wait in these queues, or that an agent took and did not acknowledge yet."""
    with broker_errors(app), app.connection_for_read() as connection:
        channel = connection.default_channel
        messages = [json.loads(text) for _, text in _waiting_messages(channel, queues)]
        messages += [json.loads(text)[0] for text in channel.client.hvals(channel.unacked_key)]
    return {message["headers"]["id"] for message in messages if "id" in message.get("headers", {})}


def remove(app: Celery, queue: Queue, task: str) -> None:
    """Remove a task that no agent is to execute any more from a queue, where it would count as waiting."""
    with broker_errors(app), app.connection_for_write() as connection:
        channel = connection.default_channel
        for key, text in _waiting_messages(channel, [queue]):
            if json.loads(text)["headers"].get("id") == task:
                channel.client.lrem(key, 1, text)


def _waiting_messages(channel: Any, queues: Sequence[Queue]) -> Iterator[tuple[str, bytes]]:
    """The list in Redis and the text of each message that waits in these queues."""
    lists = dict.fromkeys(
        channel._q_for_pri(queue.in_broker, step) for queue in queues for step in channel.priority_steps
    )
    return ((name, text) for name in lists for text in channel.client.lrange(name, 0, -1))


def claim(app: Celery, task: str, agent: str) -> bool:
    """Whether this agent is the first to take a task: a message can be delivered twice, even at the same moment."""
    with broker_errors(app), app.connection_for_write() as connection:
        client = connection.default_channel.client
        return bool(client.set(_claim(task), agent, nx=True, ex=CLAIM_SECONDS))


def claimant(app: Celery, task: str) -> str | None:
    """The agent that was the first to take a task; None if none was, or a day ago."""
    with broker_errors(app), app.connection_for_read() as connection:
        name = connection.default_channel.client.get(_claim(task))
    return name.decode() if name else None


def _claim(task: str) -> str:
    return f"taxi-claim:{task}"


def ask_agents(app: Celery, seconds: float, agent: str | None = None) -> dict[str, dict[str, Any]]:
    """What each agent that answers in time says of itself (see `worker.py`), by its name; or this agent alone.

    By a connection of its own: Celery keeps one, which fails once after the broker has restarted.
    """
    with broker_errors(app), app.connection_for_write() as connection:
        to = [agent] if agent else None
        replies = app.control.broadcast(
            "taxi_agent", destination=to, connection=connection, reply=True, timeout=seconds
        )
    return {name: said for reply in replies or [] for name, said in reply.items() if "tasks" in said}


def waiting(app: Celery, queue: Queue) -> int:
    """How many tasks wait in a queue."""
    with broker_errors(app), app.connection_for_read() as connection:
        try:
            return connection.default_channel.queue_declare(queue.in_broker, passive=True).message_count
        except ChannelError:  # nobody has sent anything to it yet
            return 0


def known_queues(app: Celery) -> list[Queue]:
    """The queues that somebody has sent to, or served, and that still exist."""
    with broker_errors(app), app.connection_for_read() as connection:
        client = connection.default_channel.client
        names = {key.decode() for key in client.scan_iter(match=f"{PREFIX}.*", count=500)}
        names |= {
            key.decode().removeprefix("_kombu.binding.")
            for key in client.scan_iter(match=f"_kombu.binding.{PREFIX}.*", count=500)
        }
    return sorted({queue for name in names if (queue := Queue.parse(name.partition("\x06")[0]))})


def risks(app: Celery) -> list[str]:
    """What in the broker's configuration can lose waiting runs."""
    with broker_errors(app), app.connection_for_read() as connection:
        client = connection.default_channel.client
        memory, persistence = client.info("memory"), client.info("persistence")
    found = []
    if memory.get("maxmemory_policy", "noeviction") != "noeviction":
        found.append(f"maxmemory-policy is {memory['maxmemory_policy']}: set noeviction, or full memory drops runs")
    if not persistence.get("aof_enabled"):
        found.append("appendonly is off: a crash forgets waiting runs, which are then sent again a minute later")
    return found
