"""Whether a new version of a month looks like that month: its columns, its rows and its pick-ups.

Pure: it is told what is known of the version, and answers with reasons. The bounds are data, `usual_files.toml`, which
says what they were measured on; no real month is beyond them. What happens to a version that looks wrong is decided in
`ingestion/judging.py`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from taxi_platform.trips.contract import contract_of, normalized
from taxi_platform.trips.formats import Format
from taxi_platform.trips.known import compare_count
from taxi_platform.trips.months import Dataset, DatasetMonth

FIRST, LAST = "2009-01", "9999-12"


@dataclass(frozen=True)
class UsualColumns:
    """Columns of the contract that every file of a dataset has, in these months, of this format; None: of any."""

    dataset: Dataset
    names: tuple[str, ...]
    first: str
    last: str
    format: str | None

    def apply_to(self, dataset_month: DatasetMonth, file_format: Format) -> bool:
        is_format = self.format is None or (self.format == "parquet") == (file_format is Format.PARQUET)
        return (
            is_format and self.dataset == dataset_month.dataset and self.first <= str(dataset_month.month) <= self.last
        )


@dataclass(frozen=True)
class Bounds:
    """What the TLC's files have in common; all shares are from 0 to 1. See `usual_files.toml`."""

    rows_kept: float
    count_deviation: float
    outside_month: float
    columns: tuple[UsualColumns, ...]
    only: Mapping[str, tuple[str, ...]]
    """Published name, in lower case → the only datasets whose files have it."""


@cache
def usual_files() -> Bounds:
    """The shipped bounds."""
    document = tomllib.loads(resources.files("taxi_platform.trips").joinpath("usual_files.toml").read_text("utf-8"))
    columns = tuple(
        UsualColumns(
            Dataset(entry["dataset"]),
            tuple(entry["names"]),
            entry.get("first", FIRST),
            entry.get("last", LAST),
            entry.get("format"),
        )
        for entry in document["columns"]
    )
    only = {name: tuple(datasets) for name, datasets in document["only"].items()}
    return Bounds(**document["shares"], columns=columns, only=only)


def judge(
    dataset_month: DatasetMonth,
    file_format: Format | None = None,
    columns: Sequence[str] | None = None,
    rows: int | None = None,
    standing_rows: int | None = None,
    outside_month: int = 0,
    readable_rows: int | None = None,
    standing_readable_rows: int | None = None,
    bounds: Bounds | None = None,
) -> tuple[str, ...]:
    """Why a new version of a month looks wrong, as sentences; empty if it looks right. What is None is not judged.

    `columns` are its published names, `rows` those of the file, `standing_rows` those of the version that it would
    replace, `outside_month` how many of its rows were picked up more than a day before or after the month,
    `readable_rows` and `standing_readable_rows` how many rows of both could be stored.
    """
    bounds = bounds or usual_files()
    reasons: list[str] = []
    if columns is not None and file_format is not None:
        reasons += _about_columns(dataset_month, file_format, columns, bounds)
    if rows is not None and file_format is not None:
        reasons += _about_rows(dataset_month, file_format, rows, standing_rows, bounds)
    if rows and outside_month > bounds.outside_month * rows:
        reasons.append(
            f"{outside_month:,} of its {rows:,} pick-ups ({outside_month / rows:.0%}) are more than a day outside of "
            f"{dataset_month.month}."
        )
    least = bounds.rows_kept * min(rows or 0, standing_readable_rows or 0)
    if readable_rows is not None and readable_rows < least:
        reasons.append(
            f"Only {readable_rows:,} of its {rows:,} rows can be stored; the version that it would replace has "
            f"{standing_readable_rows:,}."
        )
    return tuple(reasons)


def _about_columns(
    dataset_month: DatasetMonth, file_format: Format, columns: Sequence[str], bounds: Bounds
) -> Iterator[str]:
    dataset, found = dataset_month.dataset, {normalized(name) for name in columns}
    foreign = [name for name, datasets in bounds.only.items() if name in found and dataset not in datasets]
    if foreign:
        owners = sorted({owner for name in foreign for owner in bounds.only[name]})
        yield f"It has columns that only files of {' and '.join(owners)} have: {', '.join(foreign)}."
    usual = [name for entry in bounds.columns if entry.apply_to(dataset_month, file_format) for name in entry.names]
    accepted = {
        column.name: {normalized(name) for name in (column.name, *column.aliases)}
        for column in contract_of(dataset).columns
    }
    if missing := [name for name in dict.fromkeys(usual) if not accepted[name] & found]:
        yield f"It lacks columns that every file of {dataset_month} has: {', '.join(missing)}."


def _about_rows(
    dataset_month: DatasetMonth, file_format: Format, rows: int, standing_rows: int | None, bounds: Bounds
) -> Iterator[str]:
    published = compare_count(dataset_month, file_format.value, rows).published
    if rows == published:
        return  # then the version that stands may be the wrong one
    if published is not None and abs(rows - published) > bounds.count_deviation * published:
        yield f"It has {rows:,} rows; {published:,} were published."
    if standing_rows and rows < bounds.rows_kept * standing_rows:
        yield f"It has {rows:,} rows; the version that it would replace has {standing_rows:,}."
