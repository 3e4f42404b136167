"""Commands for runs on several machines: agent and agents."""

from __future__ import annotations

import importlib
import json
import sys
from typing import TYPE_CHECKING

import click
from rich.table import Table

from taxi_platform.cli_ingest import checked_settings
from taxi_platform.output import out
from taxi_platform.runs.agents.check import check_installed
from taxi_platform.runs.fork_server import CAN_FORK
from taxi_platform.runs.result import ExitStatus
from taxi_platform.settings import DEFAULT_QUEUE, Settings, listed, queue_name
from taxi_platform.trips.errors import UserError

if TYPE_CHECKING:
    from taxi_platform.runs.agents.listing import Listing


@click.command()
@click.option("--queues", default=DEFAULT_QUEUE, show_default=True, help="The queues to take runs from, as a list.")
@click.option("--slots", default=1, show_default=True, type=click.IntRange(1, 64), help="Runs at a time.")
def agent(queues: str, slots: int) -> None:
    """Execute runs on this machine: take them from queues.

    TAXI_BROKER_URL names the Redis in which they wait, and TAXI_QUEUES, for the daemon, the queue of each dataset.
    Ctrl-C or SIGTERM ends the agent as soon as its runs have ended; a second one interrupts them.

    \b
      taxi agent --queues default,heavy --slots 2
    """
    settings = agents_settings()
    names = list(dict.fromkeys(queue_name(name, "--queues") for name in listed(queues)))
    if not names:
        raise UserError("--queues names no queue.", "It takes a list such as default,heavy.")
    from taxi_platform.runs.agents.worker import work

    sys.exit(work(settings, names, slots, lambda message: out.print(message, soft_wrap=True), _warm_up))


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print agents, queues and problems as JSON.")
def agents(as_json: bool) -> None:
    """Show the agents, their queues, and what waits.

    The exit status is 1 if nobody serves a queue that runs are sent to, or an agent of another version takes nothing.
    """
    settings = agents_settings()
    from taxi_platform.runs.agents.listing import listing_of, queued_runs
    from taxi_platform.runs.instance import open_instance

    with open_instance(settings) as instance:
        shown, queued = listing_of(instance, settings), queued_runs(instance)
    if as_json:
        click.echo(json.dumps({**shown.as_json(), "queued_in_dagster": queued}, indent=1))
    else:
        _print(shown, queued)
    sys.exit(ExitStatus.FAILED if shown.problems() else ExitStatus.OK)


def agents_settings() -> Settings:
    """The settings; raises `UserError` if agents are not installed or have no broker."""
    check_installed()
    settings = checked_settings()
    if not settings.broker_url:
        raise UserError(
            "TAXI_BROKER_URL is not set.",
            "It names the Redis in which runs wait for agents, such as redis://127.0.0.1:6379/0; see deploy/agents.",
        )
    return settings


def _warm_up() -> None:
    """Import what every run needs, once, before runs are forked."""
    if CAN_FORK:
        importlib.import_module("taxi_platform.warm.runs")


def _print(shown: Listing, queued: int) -> None:
    agents_table = Table("agent", "version", "queues", "slots", "working on", box=None, pad_edge=False)
    for agent in shown.agents:
        runs = ", ".join(run[:8] for run in agent.runs) or "-"
        work = f"{runs} (ending)" if agent.is_ending else runs
        agents_table.add_row(agent.name, agent.release.version, ", ".join(agent.queues), str(agent.slots), work)
    queues = Table("queue", "waiting", "served by", box=None, pad_edge=False)
    for state in shown.queues:
        old = "" if state.queue.release == shown.release.name else f" (of {state.queue.release})"
        queues.add_row(f"{state.queue.name}{old}", str(state.waiting), ", ".join(state.agents) or "nobody")
    if shown.agents:
        out.print(agents_table)
        out.print()
    else:
        out.print("No agent answers.")
    out.print(queues)
    if queued:
        out.print(f"\nIn Dagster's own queue: {queued}. concurrency.runs.max_concurrent_runs limits how many are here.")
    for line in [*shown.problems(), *shown.risks]:
        out.print(f"\n{line}", soft_wrap=True)
