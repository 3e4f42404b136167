"""The command line, `taxi`: everything the UI can start, for terminals and scripts.

Exit status: 0 loaded or unchanged, 1 failed, 2 the user's mistake, 3 not published, 130 interrupted.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING

import click
import rich.markup
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from taxi_platform import __version__
from taxi_platform.output import (
    NOT_BEGUN,
    MonthResult,
    errors,
    out,
    print_places,
    print_pruned,
    print_status,
    print_table,
    print_versions,
)
from taxi_platform.settings import Settings, check_urls, listed, load_settings
from taxi_platform.trips.contract import all_rules, contract_of
from taxi_platform.trips.errors import TaxiError, UserError
from taxi_platform.trips.months import Dataset, DatasetMonth, Month, newest_month

if TYPE_CHECKING:
    import dagster as dg

    from taxi_platform.runs.ingest import RunOutcome

FAILED, MISTAKE, NOT_PUBLISHED, INTERRUPTED = 1, 2, 3, 130
DEMO_MONTHS = 3
DEFAULT_JOBS = 2
STEPS = ("raw_file", "cleaning", "rows_accounted_for", "trips", "table_matches_clean_trips")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="taxi", message="%(prog)s %(version)s")
def cli() -> None:
    """New York's taxi trips, month by month, from the TLC's files into a lake and a warehouse.

    Settings are variables that begin with TAXI_; `taxi doctor` checks them.
    """


@cli.command()
def demo() -> None:
    """Run three recent months of every dataset, end to end."""
    settings = _checked_settings()
    newest = newest_month(_today())
    wanted = [
        DatasetMonth(dataset, newest.plus(-back))
        for dataset in settings.datasets
        for back in reversed(range(DEMO_MONTHS))
    ]
    results = _ingest(settings, wanted)
    print_table(results)
    print_places(settings)
    sys.exit(_exit_status(results))


@cli.command()
@click.argument("dataset", required=False)
@click.argument("month", required=False)
@click.argument("last_month", required=False)
@click.option("--force", is_flag=True, help="Fetch, clean and load again, even what has not changed.")
@click.option("--reject", default="", metavar="RULES", help=f"Suspicious rules that reject: {', '.join(all_rules())}.")
@click.option("--jobs", type=click.IntRange(1, 64), help=f"Months at a time.  [default: {DEFAULT_JOBS}]")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def ingest(
    dataset: str | None,
    month: str | None,
    last_month: str | None,
    force: bool,
    reject: str,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Bring a month, or a range of them, into lake and warehouse.

    DATASET is yellow, green, fhv or fhvhv; MONTH and LAST_MONTH are written YYYY-MM. Without a month: every month since
    TAXI_SINCE that is missing, republished or outdated, newest first.

    \b
      taxi ingest green 2024-01
      taxi ingest yellow 2023-01 2023-12 --reject zero_passengers
    """
    settings = _checked_settings()
    if dataset and month:
        wanted = _range(settings, dataset, month, last_month)
    elif force:
        raise UserError("--force needs months.", "Name them: taxi ingest green 2020-04 2020-06 --force.")
    else:
        wanted = _due(settings, [Dataset.parse(dataset)] if dataset else settings.datasets)
        if not wanted and not as_json:
            out.print("Nothing to do: every month that is published is loaded in its last version.")
    rules = sorted({rule for p in wanted for rule in contract_of(p.dataset).check_rules(listed(reject))})
    results = _ingest(settings, wanted, force, rules, jobs, quiet=as_json) if wanted else []
    if as_json:
        click.echo(json.dumps([result.as_json() for result in results], indent=1))
    elif wanted:
        print_table(results, " --force" * force + f" --reject {','.join(rules)}" * bool(rules))
    sys.exit(_exit_status(results))


def _range(settings: Settings, dataset: str, month: str, last_month: str | None) -> list[DatasetMonth]:
    first = DatasetMonth.parse(dataset, month)
    last = DatasetMonth.parse(dataset, last_month or month)
    if last < first:
        raise UserError(f"{last.month} comes before {first.month}.", "Give the first month first.")
    if last.month > Month.of(_today()):
        raise UserError(
            f"{last.month} lies in the future.", f"The newest month there can be is {newest_month(_today())}."
        )
    if first.dataset not in settings.datasets:
        raise UserError(f"TAXI_DATASETS leaves {first.dataset} out.", "Add it there, or unset TAXI_DATASETS.")
    return [DatasetMonth(first.dataset, m) for m in first.month.until(last.month)]


def _due(settings: Settings, datasets: Sequence[Dataset]) -> list[DatasetMonth]:
    """What the schedules would ask for, and republished months; raises what a source raises that does not answer."""
    from taxi_platform.ingestion.survey import Survey, first_month
    from taxi_platform.lake import open_lake
    from taxi_platform.sources import open_source
    from taxi_platform.warehouse import open_warehouse

    source, lake = open_source(settings.source_url, settings.datasets), open_lake(settings.lake_url)
    warehouse, newest, wanted = open_warehouse(settings.warehouse_url), newest_month(_today()), []
    for dataset in datasets:
        survey = Survey(source, lake, warehouse, dataset, settings.reject)
        months = sorted(first_month(dataset, settings.since, newest).until(newest), reverse=True)
        for state in survey.look(months):
            if state.problem:
                errors.print(f"{state.dataset_month} is left out. {state.problem}", style="red", soft_wrap=True)
            if state.reason:
                wanted.append(state.dataset_month)
        problem = survey.source_problem or survey.warehouse_problem
        if problem:
            raise problem
    return wanted


@cli.command()
@click.argument("dataset")
@click.argument("month")
def versions(dataset: str, month: str) -> None:
    """List the raw files that the lake keeps of a month.

    They stand in the order in which they were the current one.
    """
    from taxi_platform.lake import open_lake
    from taxi_platform.lake.months import LakeMonth

    found, _ = LakeMonth(open_lake(load_settings().lake_url), DatasetMonth.parse(dataset, month)).versions()
    print_versions(found)


@cli.command()
@click.argument("dataset")
@click.argument("month")
@click.argument("version", required=False)
@click.option("--force", is_flag=True, help="Publish it even if it is empty or mostly rejected.")
def restore(dataset: str, month: str, version: str | None, force: bool) -> None:
    """Go back to an older raw file of a month.

    To the one before, or to VERSION as `taxi versions` names it. The month is cleaned and loaded from it. What the
    source has now is left alone until it publishes something else.
    """
    from taxi_platform.lake import open_lake
    from taxi_platform.lake.months import LakeMonth

    settings = _checked_settings()
    (dataset_month,) = _range(settings, dataset, month, None)
    in_lake = LakeMonth(open_lake(settings.lake_url), dataset_month)
    print_versions(in_lake.versions()[0])
    raw = in_lake.restore(version)
    out.print(
        f"Version {raw.short_sha256} with {raw.rows:,} rows becomes the current one: it is cleaned and loaded now."
    )
    results = _ingest(settings, [dataset_month], force, kept=True)
    print_table(results)
    sys.exit(_exit_status(results))


@cli.command()
@click.argument("dataset", required=False)
@click.argument("month", required=False)
@click.option("--keep", default=2, show_default=True, type=click.IntRange(1), help="Raw files that stay of a month.")
@click.option("--apply", is_flag=True, help="Remove them; without this, only say which.")
def prune(dataset: str | None, month: str | None, keep: int, apply: bool) -> None:
    """Remove old raw files, and those that killed runs left.

    The current ones always stay. Over a bucket, which has no locks, run it while nothing is ingested.
    """
    from taxi_platform.ingestion.survey import months_in_lake
    from taxi_platform.lake import open_lake
    from taxi_platform.lake.months import LakeMonth

    settings = load_settings()
    lake = open_lake(settings.lake_url)
    if dataset and month:
        chosen = [DatasetMonth.parse(dataset, month)]
    else:
        datasets = [Dataset.parse(dataset)] if dataset else settings.datasets
        chosen = [DatasetMonth(name, kept) for name in datasets for kept in months_in_lake(lake, name)]
    print_pruned(
        [file for dataset_month in chosen for file in LakeMonth(lake, dataset_month).prune(keep, apply)], apply
    )


@cli.command()
@click.option("--ask", is_flag=True, help="Ask the source about every month, not only the newest three.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of months as JSON.")
def status(ask: bool, as_json: bool) -> None:
    """Show the status of every month, and what failed."""
    from taxi_platform.runs.status import failed_months, status

    settings = _checked_settings()
    with errors.status("Looking at every month …"):
        overview = status(settings, newest_month(_today()), failed_months(settings), ask)
    if as_json:
        click.echo(json.dumps([month.as_json() for month in overview.months], indent=1))
    else:
        print_status(settings, overview)
    if overview.source_problem:
        errors.print(f"The source was not asked further. {overview.source_problem}", markup=False, soft_wrap=True)
    if overview.warehouse_problem:
        errors.print(
            f"{overview.warehouse_problem} Months that are clean in the lake are shown as unknown.", soft_wrap=True
        )


@cli.command()
@click.option("--port", default=3000, show_default=True, type=click.IntRange(1, 65535), help="Port on loopback.")
def dev(port: int) -> None:
    """Open Dagster's UI on this machine.

    Code server, daemon and webserver run until Ctrl-C ends them together.
    """
    from taxi_platform.runs.ingest import open_instance
    from taxi_platform.ui.guard import load_access
    from taxi_platform.ui.supervisor import serve

    settings = _checked_settings()
    load_access(port)
    with open_instance(settings):
        pass
    serve(settings, port, lambda told: out.print(told, soft_wrap=True))


@cli.command()
def doctor() -> None:
    """Check every setting, credential and connection.

    What is wrong is told with what mends it.
    """
    from taxi_platform.doctor import examine

    settings = load_settings()
    with errors.status("Looking at everything …"):
        findings = list(examine(settings, newest_month(_today())))
    for finding in findings:
        mark = "[green]ok   [/]" if finding.ok else "[red]wrong[/]"
        out.print(f"{mark} {finding.name:20}", rich.markup.escape(finding.told), soft_wrap=True)
    sys.exit(0 if all(finding.ok for finding in findings) else FAILED)


@cli.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be made.")
def bootstrap(dry_run: bool) -> None:
    """Make bucket, dataset, schema and tables that are missing.

    What is there stays as it is.
    """
    from taxi_platform.doctor import plan

    settings = _checked_settings()
    for change in plan(settings):
        if change.needed and not dry_run:
            change.apply()
        state = ("would make" if dry_run else "made") if change.needed else "is there"
        out.print(f"{state:10} {change.what}", markup=False, soft_wrap=True)


@cli.group()
def notify() -> None:
    """Messages about finished runs, to those in TAXI_NOTIFY_URLS."""


@notify.command("test")
def notify_test() -> None:
    """Send a message to every channel now, and say which worked."""
    from taxi_platform.notifications.sensors import send_test

    worked = send_test(load_settings(), lambda told: out.print(told, markup=False, soft_wrap=True))
    sys.exit(0 if worked else FAILED)


def _checked_settings() -> Settings:
    """The settings, every URL among them known to name something."""
    settings = load_settings()
    check_urls(settings)
    if settings.schedule:
        from taxi_platform.automation.schedules import check_schedule  # a second of imports

        check_schedule(settings.schedule)
    if settings.notify_urls:
        from taxi_platform.notifications.channels import check_notify_urls  # Apprise costs half a second

        check_notify_urls(settings.notify_urls)
    return settings


def _ingest(
    settings: Settings,
    wanted: Sequence[DatasetMonth],
    force: bool = False,
    reject: Sequence[str] = (),
    jobs: int | None = None,
    quiet: bool = False,
    kept: bool = False,
) -> list[MonthResult]:
    """Run the months, telling how far it is; those that an interruption left alone are listed as not begun."""
    jobs = min(jobs or min(DEFAULT_JOBS, os.cpu_count() or 1), len(wanted))
    results: list[MonthResult] = []
    bar = Progress(
        TextColumn("{task.description:<16}"),
        BarColumn(),
        TextColumn("{task.fields[months]}"),
        TimeElapsedColumn(),
        console=errors,
        transient=True,
        disable=quiet or not errors.is_terminal,
    )
    with bar:
        task = bar.add_task("starting", total=len(wanted) * len(STEPS), months=f"0/{len(wanted)}")
        # Imported here: Dagster costs a second or two, which --help and a mistyped month need not pay.
        from taxi_platform.runs.backfill import ingest_months
        from taxi_platform.runs.ingest import IngestOptions

        options = IngestOptions(force, tuple(reject), kept)
        try:
            for outcome, seconds in ingest_months(
                settings, _definitions, wanted, options, jobs, lambda step: bar.advance(task)
            ):
                result = _result(outcome, seconds)
                results.append(result)
                told = f"{len(results)}/{len(wanted)}"
                bar.update(
                    task, description=str(result.dataset_month), completed=len(results) * len(STEPS), months=told
                )
                if bar.disable and not quiet:
                    errors.print(f"{result.dataset_month}: {result.status}, {told}")
        except KeyboardInterrupt:
            pass  # the exit status tells
    begun = {result.dataset_month for result in results}
    results += [MonthResult(dataset_month, NOT_BEGUN, 0.0) for dataset_month in wanted if dataset_month not in begun]
    return sorted(results, key=lambda result: wanted.index(result.dataset_month))


def _definitions() -> dg.Definitions:
    from taxi_platform.definitions import defs

    return defs


def _result(outcome: RunOutcome, seconds: float) -> MonthResult:
    raw, clean, table = (outcome.metadata.get(name, {}) for name in ("raw_file", "clean_trips", "trips"))
    problem = outcome.problem or "; ".join([*outcome.failed_checks, *([raw["warning"]] if "warning" in raw else [])])
    if outcome.interrupted:
        status = "interrupted"
    elif not outcome.succeeded:
        status = "failed"
    elif not raw:
        status, problem = "not published", "not published (yet)."
    else:
        unchanged = all(entry.get("unchanged") for entry in outcome.metadata.values())
        status = "unchanged" if unchanged else "loaded"
    return MonthResult(
        outcome.dataset_month,
        status,
        seconds,
        clean.get("rows_read", raw.get("rows_read")),
        clean.get("rows_clean"),
        clean.get("rows_rejected"),
        table.get("rows"),
        outcome.run_id,
        problem,
    )


def _exit_status(results: Sequence[MonthResult]) -> int:
    statuses = {result.status for result in results}
    for status, code in (
        ("interrupted", INTERRUPTED),
        (NOT_BEGUN, INTERRUPTED),
        ("failed", FAILED),
        ("not published", NOT_PUBLISHED),
    ):
        if status in statuses:
            return code
    return 0


def _today() -> date:
    return datetime.now().date()


def main() -> None:
    """Run the command line; a user's mistake ends in a sentence, never in a traceback."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background job passes on "ignore" for the first
        signal.signal(number, signal.default_int_handler)
    try:
        cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(MISTAKE)
    except (click.Abort, KeyboardInterrupt):
        errors.print("Interrupted.")
        sys.exit(INTERRUPTED)
    except TaxiError as error:
        errors.print(str(error), style="red", soft_wrap=True)
        sys.exit(MISTAKE if isinstance(error, UserError) else FAILED)
