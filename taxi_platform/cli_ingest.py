"""The commands of `taxi` that bring months into lake and warehouse: demo, ingest, restore and accept."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from taxi_platform.output import errors, out, print_answer, print_places, print_table, print_versions
from taxi_platform.runs.fork_server import context_of_workers
from taxi_platform.runs.home_record import check_home
from taxi_platform.runs.result import IngestStatus, MonthResult, exit_status
from taxi_platform.settings import Settings, check_urls, listed, load_settings
from taxi_platform.trips.contract import all_rules, check_rules, contract_of
from taxi_platform.trips.errors import TaxiError, UserError
from taxi_platform.trips.months import Dataset, DatasetMonth, Month, newest_month

if TYPE_CHECKING:
    import dagster as dg

    from taxi_platform.runs.ingest import IngestOptions

DEMO_MONTHS = {Dataset.YELLOW: 12, Dataset.GREEN: 3, Dataset.FHV: 3, Dataset.FHVHV: 3}
"""A year of one dataset, so that a trend shows; few of the others, so that it takes less than half a minute."""
DEFAULT_JOBS = 2
STEPS = (
    "raw_file",
    "cleaning",
    "no_version_set_aside",
    "rows_accounted_for",
    "trips",
    "table_matches_clean_trips",
    "marts",
    "marts_match_trips",
)
"""The steps of a run, for the progress bar."""


@click.command()
def demo() -> None:
    """Run a year of yellow and three months of the others.

    End to end, with the default source and on this machine alone unless variables say otherwise.
    """
    settings = checked_settings()
    newest = newest_month(today())
    dataset_months = [
        DatasetMonth(dataset, newest.plus(-back))
        for dataset in settings.datasets
        for back in reversed(range(DEMO_MONTHS[dataset]))
    ]
    results = _ingest(settings, dataset_months)
    print_table(results)
    print_answer(settings)
    print_places(settings, has_trips=any(result.rows_in_table for result in results))
    try:
        write_overview(settings)
    except TaxiError as error:  # the months are loaded all the same
        errors.print(f"The overview was not drawn. {error}", soft_wrap=True)
    sys.exit(exit_status(results))


@click.command()
@click.argument("dataset", required=False)
@click.argument("month", required=False)
@click.argument("last_month", required=False)
@click.option(
    "--force",
    is_flag=True,
    help="Fetch, clean and load again, even what has not changed. A file that looks wrong is set aside all the same.",
)
@click.option("--reject", default="", metavar="RULES", help=f"Suspicious rules that reject: {', '.join(all_rules())}.")
@click.option("--jobs", type=click.IntRange(1, 64), help=f"Months at a time.  [default: {DEFAULT_JOBS}]")
@click.option(
    "--patient/--no-patient",
    default=None,
    help="When a source, lake or warehouse is busy or does not answer, wait about 30, 90 and 270 s and try the step "
    "again.  [default: only if stderr is not a terminal]",
)
@click.option(
    "--through-dagster",
    is_flag=True,
    help="Queue the months for the daemon, which starts them like those of a backfill, on agents if there are any; "
    "follow them. Ctrl-C stops following, and the runs go on.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def ingest(
    dataset: str | None,
    month: str | None,
    last_month: str | None,
    force: bool,
    reject: str,
    jobs: int | None,
    patient: bool | None,
    through_dagster: bool,
    as_json: bool,
) -> None:
    """Bring a month or a range of months into lake and warehouse.

    DATASET is yellow, green, fhv or fhvhv; MONTH and LAST_MONTH are written YYYY-MM. Without a month: every month since
    TAXI_SINCE that is missing, republished or outdated, newest first.

    \b
      taxi ingest green 2024-01
      taxi ingest yellow 2023-01 2023-12 --reject zero_passengers
    """
    settings = checked_settings()
    if through_dagster and jobs:
        raise UserError(
            "--jobs is for months that run here.", "With --through-dagster, dagster.yaml limits how many run at a time."
        )
    skipped, only_marts = False, frozenset[DatasetMonth]()
    datasets = [Dataset.parse(dataset)] if dataset else settings.datasets
    rules = check_rules([contract_of(chosen) for chosen in datasets], listed(reject))
    if dataset and month:
        dataset_months = _range(settings, dataset, month, last_month)
    elif force:
        raise UserError("--force needs months.", "Name them: taxi ingest green 2020-04 2020-06 --force.")
    else:
        dataset_months, only_marts, skipped = _due(settings, datasets, rules)
        if not dataset_months and not skipped and not as_json:
            out.print("Nothing to do: no published month needs a run.")
    results = []
    if dataset_months:
        results = _ingest(
            settings,
            dataset_months,
            force,
            rules,
            jobs,
            patient,
            quiet=as_json,
            only_marts=only_marts,
            through_dagster=through_dagster,
        )
    if as_json:
        click.echo(json.dumps([result.as_json() for result in results], indent=1))
    elif results:
        print_table(results, force, rules)
    sys.exit(exit_status(results) or skipped)


@click.command()
@click.argument("dataset")
@click.argument("month")
@click.argument("version", required=False)
@click.option("--force", is_flag=True, help="Publish it even if it is empty or mostly rejected.")
def restore(dataset: str, month: str, version: str | None, force: bool) -> None:
    """Restore an older raw file of a month.

    Restores the previous version, or VERSION as listed by `taxi versions`, then cleans the month and loads it. The
    source's current file is ignored until the source publishes another one.
    """
    from taxi_platform.lake import open_lake
    from taxi_platform.lake.months import LakeMonth

    settings = checked_settings()
    (dataset_month,) = _range(settings, dataset, month, None)
    lake_month = LakeMonth(open_lake(settings.lake_url), dataset_month)
    print_versions(lake_month.versions()[0])
    raw = lake_month.restore(version)
    out.print(f"Version {raw.short_sha256} with {raw.rows:,} rows is now the current one. Cleaning and loading it …")
    results = _ingest(settings, [dataset_month], force, use_lake_copy=True)
    print_table(results)
    sys.exit(exit_status(results))


@click.command()
@click.argument("dataset")
@click.argument("month")
@click.argument("version", required=False)
@click.option("--force", is_flag=True, help="Publish it even if it is empty or mostly rejected.")
def accept(dataset: str, month: str, version: str | None, force: bool) -> None:
    """Accept a file that was set aside.

    A version of a month that looks wrong is kept in the lake and not loaded. This makes it the current one, or VERSION
    as listed by `taxi versions`, then cleans the month and loads it. The file is never judged again.
    """
    from taxi_platform.lake import open_lake
    from taxi_platform.lake.months import LakeMonth

    settings = checked_settings()
    (dataset_month,) = _range(settings, dataset, month, None)
    raw = LakeMonth(open_lake(settings.lake_url), dataset_month).accept(version)
    out.print(f"Version {raw.short_sha256} with {raw.rows:,} rows is accepted. Cleaning and loading it …")
    results = _ingest(settings, [dataset_month], force, use_lake_copy=True)
    print_table(results)
    sys.exit(exit_status(results))


def checked_settings() -> Settings:
    """The settings; raises `UserError` for any value or home that is wrong, before anything runs."""
    settings = load_settings()
    check_urls(settings)
    check_home(settings.home)
    if settings.schedule:
        from taxi_platform.automation.schedules import check_schedule  # importing Dagster takes a second

        check_schedule(settings.schedule)
    if settings.notify_urls:
        from taxi_platform.notifications.channels import check_notify_urls  # importing Apprise takes half a second

        check_notify_urls(settings.notify_urls)
    return settings


def write_overview(settings: Settings) -> Path:
    """Write the page about all months and say where it is; returns its path."""
    from taxi_platform.ingestion.overview import write_overview
    from taxi_platform.lake import open_lake
    from taxi_platform.marts.overview import overview_path
    from taxi_platform.warehouse import open_warehouse

    lake, warehouse = open_lake(settings.lake_url), open_warehouse(settings.warehouse_url)
    newest = newest_month(today())
    path = write_overview(lake, warehouse, settings.datasets, settings.home, newest, settings.reject)
    if path != overview_path(settings.home):
        errors.print(f"{overview_path(settings.home)} cannot be written.", soft_wrap=True)
    out.print(f"Overview   {path}", soft_wrap=True)
    return path


def today() -> date:
    """The machine's local date."""
    return datetime.now().date()


def _range(settings: Settings, dataset: str, month: str, last_month: str | None) -> list[DatasetMonth]:
    first = DatasetMonth.parse(dataset, month)
    last = DatasetMonth.parse(dataset, last_month or month)
    if last < first:
        raise UserError(f"{last.month} comes before {first.month}.", "Give the first month first.")
    if last.month > Month.of(today()):
        raise UserError(
            f"{last.month} is in the future.", f"The newest month that can be published is {newest_month(today())}."
        )
    if first.dataset not in settings.datasets:
        raise UserError(f"TAXI_DATASETS does not include {first.dataset}.", "Add it, or unset TAXI_DATASETS.")
    return [DatasetMonth(first.dataset, m) for m in first.month.until(last.month)]


def _due(
    settings: Settings, datasets: Sequence[Dataset], rules: Sequence[str]
) -> tuple[list[DatasetMonth], frozenset[DatasetMonth], bool]:
    """The months that schedules and sensors would start if TAXI_REJECT had these rules too, those of which only the
    marts are due, and whether any month had to be skipped, which says why.

    Raises `TaxiError` if source or table did not answer.
    """
    from taxi_platform.ingestion.survey import MonthState, Stage, Survey, first_month
    from taxi_platform.lake import open_lake
    from taxi_platform.sources import open_source
    from taxi_platform.warehouse import open_warehouse

    source, lake = open_source(settings.source_url, settings.datasets), open_lake(settings.lake_url)
    warehouse, newest = open_warehouse(settings.warehouse_url), newest_month(today())
    due: list[MonthState] = []
    skipped = False
    for dataset in datasets:
        survey = Survey(source, lake, warehouse, dataset, [*settings.reject, *rules])
        months = sorted(first_month(dataset, settings.since, newest).until(newest), reverse=True)
        for state in survey.look(months):
            if state.problem:
                errors.print(f"{state.dataset_month} is skipped. {state.problem}", style="red", soft_wrap=True)
                skipped = True
            if state.stage == Stage.SET_ASIDE:
                errors.print(f"{state.dataset_month} has a version that is set aside; see taxi status.", style="red")
            if state.reason:
                due.append(state)
        if problem := survey.source_problem or survey.warehouse_problem:
            raise problem
    only_marts = frozenset(state.dataset_month for state in due if state.needs_only_marts)
    return [state.dataset_month for state in due], only_marts, skipped


def _ingest(
    settings: Settings,
    dataset_months: Sequence[DatasetMonth],
    force: bool = False,
    reject: Sequence[str] = (),
    jobs: int | None = None,
    patient: bool | None = None,
    quiet: bool = False,
    use_lake_copy: bool = False,
    only_marts: frozenset[DatasetMonth] = frozenset(),
    through_dagster: bool = False,
) -> list[MonthResult]:
    """Run the months and show the progress; returns a result for each, in order, also after an interruption."""
    jobs = 0 if through_dagster else min(jobs or min(DEFAULT_JOBS, os.cpu_count() or 1), len(dataset_months))
    if jobs > 1:
        context_of_workers()  # which import Dagster while this process does
    # Imported here: Dagster takes a second or two, which --help and a mistyped month need not pay.
    from taxi_platform.runs.ingest import IngestOptions
    from taxi_platform.sources import open_source

    if patient is None:
        patient = not errors.is_terminal  # at a terminal a person waits, and can repeat the command
    options = IngestOptions(force, tuple(reject), use_lake_copy, patient, only_marts)
    results = {result.dataset_month: result for result in _run_months(settings, dataset_months, options, jobs, quiet)}
    source = open_source(settings.source_url, settings.datasets)
    for month, result in results.items():
        if result.status == IngestStatus.NOT_PUBLISHED:
            results[month] = replace(result, problem=f"not published (yet) at {source.address(month)}.")
    _deliver_notifications(settings)
    return [results.get(month) or MonthResult(month, IngestStatus.NOT_BEGUN) for month in dataset_months]


def _deliver_notifications(settings: Settings) -> None:
    """Deliver messages about these runs now, as no daemon may be running to do so; problems fail no month."""
    if not settings.notify_urls:
        return
    import sqlite3

    from taxi_platform.notifications.delivery import deliver_notifications
    from taxi_platform.runs.instance import open_instance

    def log(message: str) -> None:
        errors.print(message, soft_wrap=True)

    try:
        with open_instance(settings) as instance:
            deliver_notifications(instance, settings, log)
    except (OSError, sqlite3.Error, TaxiError) as error:
        log(f"Messages were not delivered: {error}")


def _run_months(
    settings: Settings, dataset_months: Sequence[DatasetMonth], options: IngestOptions, jobs: int, quiet: bool
) -> list[MonthResult]:
    """Run the months with a progress bar, or a line for each where stderr is not a terminal; nothing if `quiet`.

    With no `jobs`, the daemon runs them.
    """
    from taxi_platform.runs.many_months import ingest_months
    from taxi_platform.runs.through_dagster import ingest_through_dagster

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
    count = len(dataset_months)
    with bar:
        task = bar.add_task("starting", total=count * len(STEPS), months=f"0/{count}")
        try:
            if jobs:
                done = ingest_months(
                    settings, build_current_definitions, dataset_months, options, jobs, lambda step: bar.advance(task)
                )
            else:
                done = ingest_through_dagster(
                    settings,
                    build_current_definitions,
                    dataset_months,
                    options,
                    lambda message: errors.print(message, soft_wrap=True),
                )
            for result in done:
                results.append(result)
                months = f"{len(results)}/{count}"
                description, completed = str(result.dataset_month), len(results) * len(STEPS)
                bar.update(task, description=description, completed=completed, months=months)
                if bar.disable and not quiet:
                    errors.print(f"{result.dataset_month}: {result.status}, {months}")
        except KeyboardInterrupt:
            pass  # months without a result are "not begun", which decides the exit status
    return results


def build_current_definitions() -> dg.Definitions:
    """The definitions under the settings of the environment; worker processes call it by its name."""
    from taxi_platform.definitions import build_definitions

    return build_definitions(load_settings())
