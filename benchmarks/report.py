"""The rows of the table, each with its goal, and the page that shows them with the machine and the versions."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from benchmarks.measure import Ratio, Timing, peak, seconds

RESULTS = Path(__file__).with_name("results.md")
PACKAGES = ("taxi_platform", "dagster", "duckdb", "pyarrow", "pandas", "sqlglot")


@dataclass(frozen=True)
class Row:
    """One line of the table. `goal` is an upper bound unless `at_least`; None where nothing was promised."""

    what: str
    value: float
    unit: str = "×"
    goal: float | None = None
    spread: tuple[float, float] | None = None
    processor: float | None = None
    """The same ratio of processor time."""
    note: str = ""
    at_least: bool = False
    rate: str = ""
    """What this is the rate of, for the estimate in `history.py`."""

    @property
    def verdict(self) -> str:
        if self.goal is None:
            return ""
        met = self.value >= self.goal if self.at_least else self.value <= self.goal
        return "met" if met else "**missed**"

    def cells(self) -> list[str]:
        goal = "" if self.goal is None else f"{'≥' if self.at_least else '≤'} {_number(self.goal, self.unit)}"
        spread = f"{self.spread[0]:.2f} to {self.spread[1]:.2f}" if self.spread else ""
        processor = "" if self.processor is None else f"{self.processor:.2f} ×"
        return [self.what, _number(self.value, self.unit), goal, self.verdict, spread, processor, self.note]


def _number(value: float, unit: str) -> str:
    return f"{value:.2f} {unit}" if unit in ("×", "s") else f"{value:,.0f} {unit}"


HEADS = ["what", "median", "goal", "", "range", "processor time", "seconds and more"]


def ratio_row(what: str, result: Ratio, goal: float | None, note: str = "") -> Row:
    """A row of a ratio of ours to theirs."""
    return Row(what, result.median, "×", goal, (result.low, result.high), result.processor, note)


def both(ours: Sequence[Timing], theirs: Sequence[Timing]) -> str:
    """The seconds of both ways, warm and, in brackets, with the start of the process; and the peak of ours."""
    warm = f"{seconds(ours):.2f} and {seconds(theirs):.2f} s"
    return f"{warm} (whole process {_process(ours):.2f} and {_process(theirs):.2f}), {peak(ours):.0f} MB"


def _process(timings: Sequence[Timing]) -> float:
    return sorted(timing.process for timing in timings)[len(timings) // 2]


def print_rows(rows: Sequence[Row]) -> None:
    """The rows, for a terminal."""
    for row in rows:
        what, value, goal, verdict, spread, processor, note = row.cells()
        print(
            f"  {what:72} {value:>12}  {goal:>10} {verdict.strip('*'):7} {spread:14} {processor:8} {note}", flush=True
        )


def page(groups: dict[str, list[Row]], options: str, minutes: float, ending: str) -> str:
    """The page, as Markdown."""
    parts = [
        "# Results",
        f"`make bench` on {datetime.now(UTC):%Y-%m-%d}: {options}, {minutes:.0f} minutes. "
        "[How it is measured](../docs/performance.md).",
        _machine(),
        "A ratio is ours to the plain way's; *median*, *range* and *seconds* are of the time that passed.",
    ]
    for title, rows in groups.items():
        lines = [HEADS, ["---"] * len(HEADS), *(row.cells() for row in rows)]
        parts.append(f"## {title}")
        parts.append("\n".join(f"| {' | '.join(cells)} |" for cells in lines))
    return "\n\n".join([*parts, ending]).rstrip() + "\n"


def _machine() -> str:
    cores, memory = len(os.sched_getaffinity(0)), psutil.virtual_memory().total / 2**30
    load = os.getloadavg()[0]
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"{platform.system()} on {_processor()}, {cores} cores, {memory:.0f} GiB of memory; "
        f"Python {platform.python_version()}, {versions}. Load at the end {load:.1f}."
    )


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.machine()
