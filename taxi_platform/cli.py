"""The command line, `taxi`: everything that the UI can start, for terminals and scripts.

Exit status: 0 loaded or unchanged, 1 failed, 2 the user's mistake, 3 not published, 130 interrupted.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from typing import TYPE_CHECKING

import click
import rich.markup

from taxi_platform import __version__, cli_agents, cli_ingest, cli_serve
from taxi_platform.cli_ingest import checked_settings, today, write_overview
from taxi_platform.output import (
    accept_any_encoding,
    errors,
    out,
    print_audited,
    print_missing,
    print_pruned,
    print_status,
    print_versions,
)
from taxi_platform.runs.home_record import check_home
from taxi_platform.runs.result import ExitStatus
from taxi_platform.settings import load_settings, open_warehouses
from taxi_platform.trips.collecting import collect_seldom
from taxi_platform.trips.errors import LakeError, TaxiError, UserError
from taxi_platform.trips.locks import log_to_stderr
from taxi_platform.trips.months import Dataset, DatasetMonth, newest_month

if TYPE_CHECKING:
    from taxi_platform.lake.base import StoredObject


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="taxi", message="%(prog)s %(version)s")
def cli() -> None:
    """New York's taxi trips, month by month, from the TLC's files into a lake and a warehouse.

    Settings are variables that begin with TAXI_; `taxi doctor` checks them.
    """


COMMANDS = (cli_ingest.demo, cli_ingest.ingest, cli_ingest.restore, cli_ingest.accept)
for command in (*COMMANDS, cli_serve.dev, cli_serve.serve, cli_agents.agent, cli_agents.agents):
    cli.add_command(command)


@cli.command()
@click.argument("dataset")
@click.argument("month")
def versions(dataset: str, month: str) -> None:
    """List the raw files of a month in the lake.

    The last line of the table is the current version; the lines above are the earlier ones, in order. Below are those
    that look wrong and were set aside.
    """
    from taxi_platform.lake import open_lake
    from taxi_platform.lake.months import LakeMonth

    lake = open_lake(load_settings().lake_url)
    manifest = LakeMonth(lake, DatasetMonth.parse(dataset, month)).manifest()
    print_versions(manifest.versions, manifest.set_aside)


@cli.command()
@click.argument("dataset", required=False)
@click.argument("month", required=False)
@click.option("--keep", default=2, show_default=True, type=click.IntRange(1), help="Raw files to keep per month.")
@click.option("--apply", is_flag=True, help="Remove them; without this, only list them.")
def prune(dataset: str | None, month: str | None, keep: int, apply: bool) -> None:
    """Remove old raw files and those left by killed runs.

    Current files always stay. A bucket has no locks: prune it only while nothing is being ingested.
    """
    from taxi_platform.ingestion.survey import months_in_lake
    from taxi_platform.lake import open_lake
    from taxi_platform.lake.months import LakeMonth

    settings = load_settings()
    check_home(settings.home)
    lake = open_lake(settings.lake_url)
    if dataset and month:
        dataset_months = [DatasetMonth.parse(dataset, month)]
    else:
        datasets = [Dataset.parse(dataset)] if dataset else settings.datasets
        dataset_months = [DatasetMonth(name, in_lake) for name in datasets for in_lake in months_in_lake(lake, name)]
    files: list[StoredObject] = []
    skipped = False
    for dataset_month in dataset_months:
        try:
            files += LakeMonth(lake, dataset_month).prune(keep, apply)
        except LakeError as error:
            errors.print(f"{dataset_month} is skipped. {error}", style="red", soft_wrap=True)
            skipped = True
    print_pruned(files, apply)
    sys.exit(int(skipped))


@cli.command()
@click.option("--ask", is_flag=True, help="Ask the source about every month, not only the newest three.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of months as JSON.")
def status(ask: bool, as_json: bool) -> None:
    """Show the status of every month, and what failed."""
    from taxi_platform.runs.status import status, what_failed

    settings = checked_settings()
    with errors.status("Looking at every month …"):
        failures, failed_checks = what_failed(settings)
        all_months = status(settings, newest_month(today()), failures, ask)
        all_months.failed_checks = failed_checks
    if as_json:
        click.echo(json.dumps([month.as_json() for month in all_months.months], indent=1))
    else:
        print_status(settings, all_months)
        if ask:
            print_missing(settings, all_months.months, today())
    if problem := all_months.source_problem:
        errors.print(f"The source was not asked about the remaining months. {problem}", soft_wrap=True)
    if all_months.warehouse_problem:
        errors.print(
            f"{all_months.warehouse_problem} Months that are clean in the lake are shown as unknown.", soft_wrap=True
        )


@cli.command()
@click.argument("dataset", required=False)
@click.argument("month", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print a list of months as JSON.")
def audit(dataset: str | None, month: str | None, as_json: bool) -> None:
    """Read lake and tables whole, and prove them.

    Of every month, or those named: raw files are compared with their sha256, clean files with their checksums and
    counts, and the tables with the files, every value. Each problem comes with the command that repairs it; with any,
    the exit status is 1.
    """
    from taxi_platform.ingestion.audit import audit
    from taxi_platform.lake import open_lake

    settings = checked_settings()
    lake, warehouses = open_lake(settings.lake_url), [warehouse for _, warehouse in open_warehouses(settings)]
    datasets = [Dataset.parse(dataset)] if dataset else settings.datasets
    months = [DatasetMonth.parse(dataset, month)] if dataset and month else None
    results = []
    with errors.status("Reading everything …"):
        for result in audit(lake, warehouses, datasets, settings.home, months):
            results.append(result)
            if not as_json:
                print_audited(result)
    if as_json:
        click.echo(json.dumps([result.as_json() for result in results], indent=1))
    sys.exit(ExitStatus.FAILED if any(result.problems for result in results) else ExitStatus.OK)


@cli.command()
@click.option("--open", "open_it", is_flag=True, help="Open it in the browser.")
def overview(open_it: bool) -> None:
    """Draw all months that are loaded, as one HTML page.

    Trips, market share, a map, hours, payments, data quality and the status of every month, from the marts in the
    lake. The page is overview.html in TAXI_HOME; it needs no network.
    """
    settings = checked_settings()
    with errors.status("Drawing …"):
        path = write_overview(settings)
    if open_it:
        import webbrowser

        webbrowser.open(path.as_uri())


@cli.command()
def doctor() -> None:
    """Check every setting, credential and connection.

    Each problem comes with its fix.
    """
    from taxi_platform.doctor import examine

    settings = load_settings()
    with errors.status("Checking …"):
        findings = list(examine(settings, newest_month(today())))
    for finding in findings:
        mark = "[green]ok   [/]" if finding.ok else "[red]wrong[/]"
        out.print(f"{mark} {finding.name:20}", rich.markup.escape(finding.message), markup=True, soft_wrap=True)
    sys.exit(ExitStatus.OK if all(finding.ok for finding in findings) else ExitStatus.FAILED)


@cli.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be created.")
def bootstrap(dry_run: bool) -> None:
    """Create the bucket, dataset, schema and tables.

    Existing objects are left unchanged.
    """
    from taxi_platform.doctor import plan

    settings = checked_settings()
    for change in plan(settings):
        if not change.needed:
            state = "exists"
        elif dry_run:
            state = "would create"
        else:
            change.apply()
            state = "created"
        out.print(f"{state:12} {change.what}", soft_wrap=True)


@cli.group()
def notify() -> None:
    """Messages about finished runs, sent to TAXI_NOTIFY_URLS."""


@notify.command("test")
def notify_test() -> None:
    """Send a test message to every channel; report which worked."""
    from taxi_platform.notifications.channels import send_test

    worked = send_test(load_settings(), lambda message: out.print(message, soft_wrap=True))
    sys.exit(ExitStatus.OK if worked else ExitStatus.FAILED)


def main() -> None:
    """Run the command line; an expected error ends in a sentence and an exit status, never in a traceback."""
    collect_seldom()
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell starts background jobs with SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    accept_any_encoding()
    log_to_stderr()
    # NumPy would start a thread for each core when it is imported, for algebra that nothing here does: 0.07 s.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ["PYTHONSAFEPATH"] = "1"  # a gql.py in the working folder must not reach the processes we start
    try:
        cli.main(standalone_mode=False)
    except click.ClickException as error:
        message = io.StringIO()
        error.show(message)
        errors.print(message.getvalue(), end="", soft_wrap=True)
        sys.exit(ExitStatus.USER_ERROR)
    except (click.Abort, KeyboardInterrupt):
        errors.print("Interrupted.")
        sys.exit(ExitStatus.INTERRUPTED)
    except TaxiError as error:
        errors.print(str(error), style="red", soft_wrap=True)
        sys.exit(ExitStatus.USER_ERROR if isinstance(error, UserError) else ExitStatus.FAILED)
