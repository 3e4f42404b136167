"""The commands that serve Dagster's UI and run what is due: dev, for a terminal, and serve, for a server."""

from __future__ import annotations

import logging
import sqlite3
import sys
import time
import uuid
from threading import Thread

import click

from taxi_platform.cli_ingest import checked_settings
from taxi_platform.runs.result import ExitStatus
from taxi_platform.settings import Settings
from taxi_platform.trips.errors import TaxiError, UserError
from taxi_platform.trips.os_errors import remedy

log = logging.getLogger("taxi_platform.serve")

port_option = click.option(
    "--port", default=3000, show_default=True, type=click.IntRange(1, 65535), help="Port on loopback."
)


@click.command()
@port_option
def dev(port: int) -> None:
    """Open Dagster's UI on this machine.

    The code server, the daemon and the webserver run until Ctrl-C stops them. `taxi serve` is the same for a server.
    """
    from taxi_platform.ui.access import load_access
    from taxi_platform.ui.serving import Options, serve

    settings = checked_settings()
    load_access(port)
    _log_to(logging.StreamHandler(sys.stdout), logging.Formatter("%(message)s"))
    serve(settings, Options(port), lambda problem: None)
    raise KeyboardInterrupt


@click.command()
@port_option
@click.option("--no-ui", is_flag=True, help="Run code server and daemon; the port answers /health and /metrics only.")
@click.option("--ui-only", is_flag=True, help="Run code server and webserver only; the daemon runs on another machine.")
@click.option(
    "--drain-seconds",
    default=600,
    show_default=True,
    type=click.IntRange(0),
    help="How long to wait for runs in progress when stopped.",
)
@click.option(
    "--database-seconds",
    default=300,
    show_default=True,
    type=click.IntRange(0),
    help="How long to wait at the start for Dagster's database, if it does not answer.",
)
def serve(port: int, no_ui: bool, ui_only: bool, drain_seconds: int, database_seconds: int) -> None:
    """Serve Dagster's UI on a server, and run what is due.

    SIGTERM and Ctrl-C start no more runs, wait for those in progress, and end; a second one interrupts them. SIGHUP
    reloads the code. A part that ends is started again.
    """
    from taxi_platform.ui.access import load_access
    from taxi_platform.ui.service_manager import LineFormatter, goes_to_journal
    from taxi_platform.ui.serving import Options, serve

    if no_ui and ui_only:
        raise UserError("--no-ui and --ui-only exclude each other.", "Give one of them, or none to serve everything.")
    settings = checked_settings()
    load_access(port)
    _log_to(logging.StreamHandler(), LineFormatter(goes_to_journal()))
    try:
        serve(
            settings,
            Options(
                port,
                with_ui=not no_ui,
                with_daemon=not ui_only,
                reloads=True,
                drain_seconds=drain_seconds,
                database_seconds=database_seconds,
            ),
            lambda problem: _report(settings, problem),
        )
    except OSError as error:  # a full disk, before anything could be started
        log.error("%s %s", error, remedy(error.errno, "TAXI_HOME or TMPDIR"))
        sys.exit(ExitStatus.FAILED)
    except TaxiError as error:
        log.error("%s", error)
        sys.exit(ExitStatus.USER_ERROR if isinstance(error, UserError) else ExitStatus.FAILED)
    log.info("Stopped.")


def _log_to(handler: logging.Handler, formatter: logging.Formatter) -> None:
    """Send the package's log there, and what the service says from the level of information on."""
    handler.setFormatter(formatter)
    # Other packages log what they try again, such as each attempt to connect: only what fails is of interest.
    others = logging.StreamHandler()
    others.setFormatter(formatter)
    others.setLevel(logging.ERROR)
    logging.getLogger().addHandler(others)
    package = logging.getLogger("taxi_platform")
    package.handlers = [handler]
    package.propagate = False
    log.setLevel(logging.INFO)


def _report(settings: Settings, problem: str) -> None:
    """Put a message into the outbox and send it in a thread: the sensor that sends them may be what ended."""
    from taxi_platform.notifications.channels import open_channels
    from taxi_platform.notifications.messages import compose_about_service
    from taxi_platform.notifications.outbox import Outbox, deliver

    if not settings.notify_urls:
        return
    message = compose_about_service(problem, f"serve-{uuid.uuid4()}", settings.home / "logs", settings.ui_url)
    outbox = Outbox(settings.home)
    try:
        outbox.add(message, open_channels(settings.notify_urls), time.time())
    except (OSError, sqlite3.Error, TaxiError) as error:
        log.warning("The message about it could not be stored: %s", error)
        return
    # Not a daemon thread: if the command ends, it first waits for the channels, half a minute at most.
    Thread(target=deliver, args=(outbox, settings.notify_urls, log.warning)).start()
