"""What `taxi` prints: results as a table, every month in a picture, places and remedies."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.columns import Columns
from rich.console import Console
from rich.table import Table

from taxi_platform.settings import Settings
from taxi_platform.trips.months import Dataset, DatasetMonth

if TYPE_CHECKING:
    from taxi_platform.lake.base import StoredObject
    from taxi_platform.lake.months import RawVersion
    from taxi_platform.runs.status import MonthStatus, Status

MARKS = {
    "loaded": ("●", "green"),
    "not loaded": ("◐", "yellow"),
    "raw": ("○", "yellow"),
    "outdated": ("!", "yellow"),
    "republished": ("↻", "yellow"),
    "failed": ("✗", "red"),
    "published": ("+", "cyan"),
    "unknown": ("·", "dim"),
    "not published": ("-", "dim"),
}
"""How `taxi status` draws a month, by its stage."""

NOT_BEGUN = "not begun"
"""The status of months that an interruption left alone."""

errors = Console(stderr=True, highlight=False, markup=False)
out = Console(highlight=False)


@dataclass(frozen=True)
class MonthResult:
    """One line of what an ingestion tells at its end."""

    dataset_month: DatasetMonth
    status: str
    seconds: float
    rows_read: int | None = None
    rows_clean: int | None = None
    rows_rejected: int | None = None
    rows_in_table: int | None = None
    run_id: str | None = None
    problem: str = ""

    def as_json(self) -> dict[str, Any]:
        counts = ("rows_read", "rows_clean", "rows_rejected", "rows_in_table")
        return {
            "dataset": str(self.dataset_month.dataset),
            "month": str(self.dataset_month.month),
            "status": self.status,
            **{name: getattr(self, name) for name in counts},
            "seconds": round(self.seconds, 2),
            "run_id": self.run_id,
            "problem": self.problem or None,
        }


def print_table(results: Sequence[MonthResult], flags: str = "") -> None:
    """A line for each month that was begun, what was wrong, and the command, with `flags`, for what is left."""
    table = _table("dataset", "month", "status", numbers=("rows read", "clean", "rejected", "in table", "seconds"))
    begun = [result for result in results if result.status != NOT_BEGUN]
    for result in begun:
        counts = (result.rows_read, result.rows_clean, result.rows_rejected, result.rows_in_table)
        numbers = ["" if count is None else f"{count:,}" for count in counts]
        month = result.dataset_month
        table.add_row(str(month.dataset), str(month.month), result.status, *numbers, f"{result.seconds:.1f}")
    if begun:
        out.print(table)
    for result in begun:
        if result.problem:
            told = f"{result.dataset_month}: {result.problem}{_expected(result)}"
            style = None if result.status == "loaded" else "red"
            errors.print(told, style=style, markup=False, soft_wrap=True)
    if left := [result.dataset_month for result in results if result.status in ("failed", "interrupted", NOT_BEGUN)]:
        errors.print("Repeat what is missing with:", *_commands(left, flags), sep="\n", markup=False, soft_wrap=True)


def _table(*names: str, numbers: Sequence[str]) -> Table:
    """A table whose columns are one space apart: with months of 33,000,000 rows it is 80 characters wide."""
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
    for name in (*names, *numbers):
        table.add_column(name, no_wrap=True, justify="right" if name in numbers else "left")
    return table


def _expected(result: MonthResult) -> str:
    from taxi_platform.ingestion.survey import expected_on

    day = expected_on(result.dataset_month.month)
    return f" It is expected about {day}." if result.status == "not published" and day > date.today() else ""


def print_status(settings: Settings, overview: Status) -> None:
    """A line per year, a mark per month; at most 80 characters wide but for paths and problems."""
    for dataset in settings.datasets:
        _print_dataset(dataset, [month for month in overview.months if month.dataset == dataset])
    shown = {month.stage for month in overview.months}
    legend = [f"{_mark(*MARKS[stage])} {stage}" for stage in MARKS if stage in shown]
    out.print("", Columns(legend, (0, 3)), sep="\n")
    if "unknown" in shown and not overview.source_problem:
        out.print("unknown: not asked about; taxi status --ask asks the source about every month.")
    if overview.weak:
        from taxi_platform.runs.status import COMPARE_EVERY

        out.print(
            f"{len(overview.weak)} of the files came without ETag and Last-Modified: only fetching them shows whether "
            f"they were republished. Runs do so {COMPARE_EVERY.days} days after the last comparison.",
            soft_wrap=True,
        )
    if settings.home.exists():
        out.print(f"{shutil.disk_usage(settings.home).free / 1e9:,.0f} GB are free at {settings.home}.", soft_wrap=True)
    failed = [month for month in overview.months if month.problem]
    for month in failed:
        out.print(f"{month.dataset} {month.month}: {month.problem}", style="red", markup=False, soft_wrap=True)
    if failed:
        again = _commands([DatasetMonth.parse(month.dataset, month.month) for month in failed])
        out.print("Repeat what failed with:", *again, sep="\n", markup=False, soft_wrap=True)


def _print_dataset(dataset: Dataset, months: Sequence[MonthStatus]) -> None:
    from taxi_platform.runs.status import by_year

    years = by_year(months)
    if not any(of_year for _, of_year in years):
        out.print(f"{dataset}: nothing yet, {len(months)} months there may be")
        return
    rows, rejected = sum(month.rows or 0 for month in months), sum(month.rows_rejected or 0 for month in months)
    loaded, size = sum(month.stage == "loaded" for month in months), _size(sum(month.bytes for month in months))
    out.print(
        f"[bold]{dataset}: {loaded} of {len(months)} months loaded, {rows:,} rows, {rejected:,} rejected, {size}[/]"
    )
    out.print("       J F M A M J J A S O N D", style="dim")
    for year, of_year in years:
        cells = {int(month.month[5:]): MARKS[month.stage] for month in of_year}
        marks = " ".join(_mark(*cells[n]) if n in cells else " " for n in range(1, 13)).rstrip()
        out.print(f"  {year} ", marks if of_year else "[dim]nothing in the lake[/]")


def print_versions(versions: Sequence[RawVersion]) -> None:
    """A line for each time that a raw file became the current one (UTC); the last line is that of today."""
    table = _table("version", "since", numbers=("rows", "bytes"))
    table.add_column(no_wrap=True)
    for raw in versions:
        notes = ["gone back to"] * bool(raw.instead_of) + ["current"] * (raw is versions[-1])
        since = raw.time[:16].replace("T", " ")
        table.add_row(raw.short_sha256, since, f"{raw.rows:,}", f"{raw.size:,}", ", ".join(notes))
    out.print(table if versions else "The lake keeps no raw file of this month.")


def print_pruned(gone: Sequence[StoredObject], applied: bool) -> None:
    if not gone:
        out.print("Nothing to remove.")
        return
    for file in gone:
        out.print(f"{'removed' if applied else 'would remove'} {file.key} ({file.size:,} bytes)", soft_wrap=True)
    out.print(f"{len(gone)} file{'s' * (len(gone) > 1)}, {_size(sum(file.size for file in gone))}.")
    if not applied:
        out.print("Nothing was removed yet: --apply does it.")


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def _mark(mark: str, style: str) -> str:
    return f"[{style}]{mark}[/]"


def _commands(partitions: Sequence[DatasetMonth], flags: str = "") -> list[str]:
    """The commands that ingest these months, as they can be typed here: `taxi` by its name only if it is found so."""
    called = sys.argv[0]
    by_name = Path(shutil.which("taxi") or "").resolve() == Path(called).resolve()
    taxi = "taxi" if by_name else shlex.quote(called)
    return [f"  {taxi} ingest {span}{flags}" for span in _spans(partitions)]


def _spans(partitions: Sequence[DatasetMonth]) -> list[str]:
    """`green 2020-04 2020-06` and the like: neighbouring months as one range, in the order of the command line."""
    spans: list[list[DatasetMonth]] = []
    for dataset_month in sorted(partitions):
        last = spans[-1][-1] if spans else None
        if last and (last.dataset, last.month.plus(1)) == (dataset_month.dataset, dataset_month.month):
            spans[-1].append(dataset_month)
        else:
            spans.append([dataset_month])
    return [" ".join(map(str, [span[0], *(p.month for p in span[1:][-1:])])) for span in spans]


def print_places(settings: Settings) -> None:
    from taxi_platform.lake import open_lake
    from taxi_platform.warehouse import open_warehouse

    lake, warehouse = open_lake(settings.lake_url), open_warehouse(settings.warehouse_url)
    out.print(f"\nLake       {lake.url}\nWarehouse  {warehouse.url}\nUI         make dev, then http://127.0.0.1:3000")
    out.print(f"\nAsk it something:\n  {warehouse.example_query(f'{settings.datasets[0]}_trips')}", soft_wrap=True)
