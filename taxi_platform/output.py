"""What `taxi` prints: results as a table, the status of every month as a chart, and the next commands."""

from __future__ import annotations

import codecs
import io
import shlex
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.columns import Columns
from rich.console import Console
from rich.table import Table
from rich.text import Text

from taxi_platform.runs.result import UNFINISHED, IngestStatus, MonthResult
from taxi_platform.settings import Settings
from taxi_platform.trips.contract import contract_of
from taxi_platform.trips.months import Dataset, DatasetMonth
from taxi_platform.trips.text import printable_lines

if TYPE_CHECKING:
    from taxi_platform.ingestion.audit import Audited
    from taxi_platform.lake.base import StoredObject
    from taxi_platform.lake.manifest import RawVersion, SetAside
    from taxi_platform.runs.status import MonthStatus, Status

MARKS = {
    "loaded": ("●", "green"),
    "not loaded": ("◐", "yellow"),
    "marts due": ("◕", "yellow"),
    "raw": ("○", "yellow"),
    "outdated": ("!", "yellow"),
    "republished": ("↻", "yellow"),
    "damaged": ("#", "red"),
    "failed": ("✗", "red"),
    "set aside": ("?", "red"),
    "published": ("+", "cyan"),
    "unknown": ("·", "dim"),
    "not published": ("-", "dim"),
}
"""How `taxi status` draws a month, by its stage."""

ASCII = str.maketrans(dict(zip("●◐◕○↻✗·…", ["*", "~", "m", "o", "r", "x", ".", "..."], strict=True)))


class SafeConsole(Console):
    """Prints text as it reads: escape codes do nothing, and brackets are markup only for `print(…, markup=True)`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:  # every string passes here, those in tables too
        return super().render_str(printable_lines(text), **options)


errors, out = SafeConsole(stderr=True), SafeConsole()


def accept_any_encoding() -> None:
    """Print in ASCII what the terminal's encoding lacks, a question mark at least, instead of failing."""

    def replace(error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeEncodeError):
            raise error
        text = error.object[error.start : error.end].translate(ASCII)
        return text.encode("ascii", "replace").decode(), error.end

    codecs.register_error("taxi", replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with suppress(OSError):  # a file that was replaced by a pipe under an open stream cannot be asked its place
                stream.reconfigure(errors="taxi")


def print_table(results: Sequence[MonthResult], force: bool = False, reject: Sequence[str] = ()) -> None:
    """A line for each month that was begun, what went wrong, and the commands, with the flags, that finish the rest."""
    table = _table("dataset", "month", "status", numbers=("rows read", "clean", "rejected", "in table", "seconds"))
    begun = [result for result in results if result.status != IngestStatus.NOT_BEGUN]
    for result in begun:
        counts = (result.rows_read, result.rows_clean, result.rows_rejected, result.rows_in_table)
        numbers = ["" if count is None else f"{count:,}" for count in counts]
        month = result.dataset_month
        table.add_row(str(month.dataset), str(month.month), str(result.status), *numbers, f"{result.seconds:.1f}")
    if begun:
        out.print(table)
    for result in begun:
        if result.problem:
            style = None if result.status == IngestStatus.LOADED else "red"
            message = f"{result.dataset_month}: {result.problem}{_expected(result)}"
            errors.print(message, style=style, soft_wrap=True)
    to_repeat = {*UNFINISHED} - {IngestStatus.QUEUED}  # whose runs go on
    if unfinished := [result.dataset_month for result in results if result.status in to_repeat]:
        commands = _commands(unfinished, force, reject)
        errors.print("Finish the remaining months with:", *commands, sep="\n", soft_wrap=True)


def _table(*names: str, numbers: Sequence[str]) -> Table:
    """A table whose columns are one space apart: with months of 33,000,000 rows it is 80 characters wide."""
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
    for name in (*names, *numbers):
        table.add_column(name, no_wrap=True, justify="right" if name in numbers else "left")
    return table


def _expected(result: MonthResult) -> str:
    from taxi_platform.ingestion.survey import expected_on

    day = expected_on(result.dataset_month.month)
    if result.status == IngestStatus.NOT_PUBLISHED and day > date.today():
        return f" It is expected about {day}."
    return ""


def print_status(settings: Settings, overview: Status) -> None:
    """A line per year, a mark per month; at most 80 characters wide but for paths and problems."""
    for dataset in settings.datasets:
        _print_dataset(dataset, [month for month in overview.months if month.dataset == dataset])
    shown = {month.stage for month in overview.months}
    legend = [Text.assemble(MARKS[stage], f" {stage}") for stage in MARKS if stage in shown]
    out.print("", Columns(legend, (0, 3)), sep="\n")
    if "unknown" in shown and not overview.source_problem:
        out.print("unknown: not asked about; taxi status --ask asks the source about every month.")
    if marts_due := sum(month.stage == "marts due" for month in overview.months):
        count = "1 month is" if marts_due == 1 else f"{marts_due} months are"
        out.print(
            f"{count} loaded, but without the marts of this version: taxi ingest and the schedules build them.",
            soft_wrap=True,
        )
    if overview.weak:
        from taxi_platform.runs.status import COMPARE_EVERY

        out.print(
            f"{len(overview.weak)} of the files came without ETag and Last-Modified: only fetching them shows whether "
            f"they were republished. Runs do so {COMPARE_EVERY.days} days after the last comparison.",
            soft_wrap=True,
        )
    if settings.home.exists():
        out.print(f"{shutil.disk_usage(settings.home).free / 1e9:,.0f} GB are free at {settings.home}.", soft_wrap=True)
    for month in overview.months:
        if month.set_aside:
            message = f"{month.dataset} {month.month}: a new version looks wrong and is set aside. {month.set_aside}"
            out.print(message, style="red", soft_wrap=True)
    for dataset_month, sentences in sorted(overview.failed_checks.items()):
        for sentence in sentences:
            out.print(f"{dataset_month}: {sentence}", style="yellow", soft_wrap=True)
    failed = [month for month in overview.months if month.problem]
    for month in failed:
        out.print(f"{month.dataset} {month.month}: {month.problem}", style="red", soft_wrap=True)
    if failed:
        again = _commands([DatasetMonth.parse(month.dataset, month.month) for month in failed])
        out.print("Repeat what failed with:", *again, sep="\n", soft_wrap=True)


def print_missing(settings: Settings, months: Sequence[MonthStatus], today: date) -> None:
    """How many months are not published although they should be, and the address at which the newest one is missing."""
    from taxi_platform.ingestion.survey import newest_due
    from taxi_platform.sources import open_source

    due = str(newest_due(today))
    missing = [month for month in months if month.stage == "not published" and month.month <= due]
    if missing:
        newest = max(missing, key=lambda month: month.month)
        address = open_source(settings.source_url, settings.datasets).address(
            DatasetMonth.parse(newest.dataset, newest.month)
        )
        count = "1 month" if len(missing) == 1 else f"{len(missing)} months"
        out.print(
            f"{count} that should be published not found at the source; {newest.dataset} {newest.month} was looked for "
            f"at {address}",
            soft_wrap=True,
        )


def _print_dataset(dataset: Dataset, months: Sequence[MonthStatus]) -> None:
    from taxi_platform.runs.status import by_year

    years = by_year(months)
    if not any(of_year for _, of_year in years):
        out.print(f"{dataset}: nothing is loaded yet; up to {len(months)} months are published")
        return
    rows, rejected = sum(month.rows or 0 for month in months), sum(month.rows_rejected or 0 for month in months)
    loaded, size = sum(map(_is_loaded, months)), _size(sum(month.bytes for month in months))
    out.print(
        f"[bold]{dataset}: {loaded} of {len(months)} months loaded, {rows:,} rows, {rejected:,} rejected, {size}[/]",
        markup=True,
    )
    out.print("       J F M A M J J A S O N D", style="dim")
    for year, of_year in years:
        cells = {int(month.month[5:]): MARKS[month.stage] for month in of_year}
        marks = " ".join(_mark(*cells[n]) if n in cells else " " for n in range(1, 13)).rstrip()
        out.print(f"  {year} ", marks if of_year else "[dim]nothing in the lake[/]", markup=True)


def _is_loaded(month: MonthStatus) -> bool:
    """Also where only its marts are missing, and where a newer version is set aside: the one before it is loaded."""
    return month.stage in ("loaded", "marts due") or (month.stage == "set aside" and month.file_version is not None)


def print_versions(versions: Sequence[RawVersion], set_aside: Sequence[SetAside] = ()) -> None:
    """A line for each time that a raw file became the current one (UTC), the last line being the current one.

    Below them those that were set aside, and why.
    """
    table = _table("version", "since", numbers=("rows", "bytes"))
    table.add_column(no_wrap=True)
    for raw in versions:
        notes = [*(["restored"] if raw.instead_of else []), *(["current"] if raw is versions[-1] else [])]
        since = raw.time[:16].replace("T", " ")
        table.add_row(raw.short_sha256, since, f"{raw.rows:,}", f"{raw.size:,}", ", ".join(notes))
    nothing = "No version of this month is current." if set_aside else "The lake has no raw file of this month."
    out.print(table if versions else nothing)
    for entry in set_aside:
        raw = entry.raw
        when = raw.time[:16].replace("T", " ")
        out.print(
            f"Set aside: {raw.short_sha256}, {when}, {raw.rows:,} rows, {raw.size:,} bytes. {entry.why}",
            soft_wrap=True,
        )


def print_audited(audited: Audited) -> None:
    """A line for each problem of a month, or one that says that it has none."""
    for problem in audited.problems:
        name = f"{audited.dataset} {audited.month or ''}".strip()
        out.print(Text.assemble(("wrong", "red"), f" {printable_lines(f'{name}: {problem}')}"), soft_wrap=True)
    if not audited.problems:
        out.print(Text.assemble(("ok   ", "green"), f" {audited}"), soft_wrap=True)


def print_pruned(files: Sequence[StoredObject], applied: bool) -> None:
    """A line for each file that was removed, or would be, and their total size."""
    if not files:
        out.print("Nothing to remove.")
        return
    for file in files:
        out.print(f"{'removed' if applied else 'would remove'} {file.key} ({file.size:,} bytes)", soft_wrap=True)
    count = "1 file" if len(files) == 1 else f"{len(files)} files"
    out.print(f"{count}, {_size(sum(file.size for file in files))}.")
    if not applied:
        out.print("Nothing was removed; use --apply to remove them.")


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def _mark(mark: str, style: str) -> str:
    return f"[{style}]{mark}[/]"


def _commands(dataset_months: Sequence[DatasetMonth], force: bool = False, reject: Sequence[str] = ()) -> list[str]:
    """The commands that ingest these months, as they can be typed here: with the path of `taxi` if PATH lacks it."""
    taxi = _taxi()
    commands = []
    for dataset, span in _spans(dataset_months):
        rules = contract_of(dataset).own_rules(reject)
        flags = [*(["--force"] if force else []), *(["--reject", ",".join(rules)] if rules else [])]
        commands.append("  " + " ".join([taxi, "ingest", span, *flags]))
    return commands


def _taxi() -> str:
    """The command as it can be typed here."""
    path = sys.argv[0]
    return "taxi" if Path(shutil.which("taxi") or "").resolve() == Path(path).resolve() else shlex.quote(path)


def _spans(dataset_months: Sequence[DatasetMonth]) -> list[tuple[Dataset, str]]:
    """Datasets, and arguments such as `green 2020-04 2020-06`: neighbouring months as one range."""
    spans: list[list[DatasetMonth]] = []
    for dataset_month in sorted(dataset_months):
        previous = spans[-1][-1] if spans else None
        if previous and DatasetMonth(previous.dataset, previous.month.plus(1)) == dataset_month:
            spans[-1].append(dataset_month)
        else:
            spans.append([dataset_month])
    return [(span[0].dataset, str(span[0]) if len(span) == 1 else f"{span[0]} {span[-1].month}") for span in spans]


def print_answer(settings: Settings) -> None:
    """A first answer from the marts of what is loaded; nothing if there are none."""
    from taxi_platform.ingestion.mart_views import busiest_borough
    from taxi_platform.warehouse import open_warehouse

    if answer := busiest_borough(open_warehouse(settings.warehouse_url)):
        borough, trips, paid = answer
        out.print(f"\nMost pick-ups: {borough}, {trips:,} trips, ${paid:,.0f} (from the view daily_zones)")


def print_places(settings: Settings, has_trips: bool) -> None:
    """Where the lake, the warehouse and the UI are, and a first query if there is something to ask."""
    from taxi_platform.ingestion.views import views_path
    from taxi_platform.lake import open_lake
    from taxi_platform.warehouse import open_warehouse
    from taxi_platform.warehouse.duckdb import DuckDBWarehouse

    lake, warehouse = open_lake(settings.lake_url), open_warehouse(settings.warehouse_url)
    dev = "make dev" if Path("workspace.yaml").exists() else f"{_taxi()} dev"  # an installed wheel has no Makefile
    out.print(f"\nLake       {lake.url}\nWarehouse  {warehouse.url}\nUI         {dev}, then http://127.0.0.1:3000")
    if not has_trips:
        return
    path, table = views_path(settings.home), f"{settings.datasets[0]}_trips"
    query = DuckDBWarehouse(path).example_query(table) if path.exists() else warehouse.example_query(table)
    out.print(f"\nTry a query:\n  {query}", soft_wrap=True)
