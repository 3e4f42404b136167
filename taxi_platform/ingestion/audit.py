"""Audit: read everything that is stored of a month, whole, and prove that it belongs together.

Raw files are compared with the sha256 in their manifest, the clean file and what belongs to it with their checksums and
counts, and the tables with the files, every value; the marts of lake and warehouse too. What is damaged is named with
the command that repairs it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from taxi_platform.ingestion.check import check_accounted_for, check_marts, check_table
from taxi_platform.ingestion.survey import months_in_lake
from taxi_platform.lake.base import Lake
from taxi_platform.lake.checksums import FileSum
from taxi_platform.lake.clean_month import CleanFooter
from taxi_platform.lake.manifest import RawVersion
from taxi_platform.lake.months import LakeMonth
from taxi_platform.trips.errors import DamagedFile, IntegrityError, TaxiError, WarehouseError
from taxi_platform.trips.months import Dataset, DatasetMonth, Month
from taxi_platform.warehouse.base import Warehouse, rejected_table, trips_table


@dataclass(frozen=True)
class Problem:
    """What is wrong, and the command or the act that repairs it."""

    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.problem} {self.remedy}"


@dataclass(frozen=True)
class Audited:
    """What the audit found of one month; of a whole dataset, whose table cannot be read, if `month` is None.

    `rows` are those of the clean file, None if there is none or it cannot be read.
    """

    dataset: str
    month: str | None
    rows: int | None = None
    problems: tuple[Problem, ...] = ()

    def __str__(self) -> str:
        name = f"{self.dataset} {self.month or ''}".strip()
        if self.problems:
            return f"{name}: {' '.join(map(str, self.problems))}"
        return f"{name}: {'no clean file' if self.rows is None else f'{self.rows:,} rows'}"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def audit(
    lake: Lake,
    warehouses: Sequence[Warehouse],
    datasets: Sequence[Dataset],
    home: Path,
    dataset_months: Sequence[DatasetMonth] | None = None,
) -> Iterator[Audited]:
    """Audit these months, or every month of the datasets that is in the lake or in a table; no month stops the others.

    The first of the warehouses has the marts. Each month is yielded as soon as it is known. Raises `LakeError` if the
    lake cannot be listed.
    """
    with_marts = warehouses[0] if warehouses else None
    if dataset_months is not None:
        yield from (audit_month(lake, warehouses, with_marts, month, home) for month in dataset_months)
        return
    for dataset in datasets:
        months, readable = set(months_in_lake(lake, dataset)), []
        for warehouse in warehouses:
            try:
                for table in (trips_table(dataset), rejected_table(dataset)):
                    months |= {Month.parse(month) for month in warehouse.loaded_months(table.name)}
                readable.append(warehouse)
            except WarehouseError as error:
                yield Audited(str(dataset), None, problems=(Problem(error.problem, error.remedy),))
        for month in sorted(months):
            marts = with_marts if with_marts in readable else None
            yield audit_month(lake, readable, marts, DatasetMonth(dataset, month), home)


def audit_month(
    lake: Lake, warehouses: Sequence[Warehouse], with_marts: Warehouse | None, dataset_month: DatasetMonth, home: Path
) -> Audited:
    """Audit one month. What is wrong is looked at a second time: a load may have replaced the month meanwhile."""
    audited = _Look(lake, dataset_month, home).at_everything(warehouses, with_marts)
    if audited.problems:
        again = _Look(lake, dataset_month, home).at_everything(warehouses, with_marts)
        lasting = tuple(problem for problem in again.problems if problem in audited.problems)
        audited = replace(again, problems=lasting)
    return audited


class _Look:
    """One look at a month, which collects what is wrong."""

    def __init__(self, lake: Lake, dataset_month: DatasetMonth, home: Path) -> None:
        self.lake = lake
        self.dataset_month = dataset_month
        self.home = home
        self.month = LakeMonth(lake, dataset_month)
        self.problems: list[Problem] = []

    def at_everything(self, warehouses: Sequence[Warehouse], with_marts: Warehouse | None) -> Audited:
        self._raw_files()
        known = len(self.problems)
        footer = self._clean_files()
        if len(self.problems) == known:  # a table cannot be compared with damaged files
            for warehouse in warehouses:
                with self._noted(f" ({warehouse.url})" if len(warehouses) > 1 else ""):
                    self._tables(warehouse, footer)
            if footer and with_marts and len(self.problems) == known:
                with self._noted():
                    check_marts(self.lake, with_marts, self.dataset_month, self.home)
        dataset, month = str(self.dataset_month.dataset), str(self.dataset_month.month)
        return Audited(dataset, month, footer.rows if footer else None, tuple(self.problems))

    @contextmanager
    def _noted(self, where: str = "") -> Iterator[None]:
        """Add what is raised inside to the problems."""
        try:
            yield
        except TaxiError as error:
            remedy = error.remedy
            if not remedy or "aterialize" in remedy:  # what the UI calls it; here a person types commands
                remedy = f"Run taxi ingest {self.dataset_month} --force."
            if (problem := Problem(f"{error.problem}{where}", remedy)) not in self.problems:
                self.problems.append(problem)

    def _raw_files(self) -> None:
        with self._noted(), self.lake.lock(self.dataset_month):
            manifest = self.month.manifest()
            for raw in {raw.key: raw for raw in manifest.listed}.values():
                with self._noted():
                    self._raw_file(raw, manifest.current is not None and raw.key == manifest.current.key)

    def _raw_file(self, raw: RawVersion, is_current: bool) -> None:
        if is_current:
            remedy = f"Run taxi ingest {self.dataset_month} --force, which fetches it again."
        else:
            command = f"taxi prune {self.dataset_month} --keep 1 --apply"
            remedy = f"Only taxi restore needs it. Put it back from a backup, or remove earlier files: {command}."
        uri = self.lake.uri(raw.key)
        if self.lake.stat(raw.key) is None:
            raise DamagedFile(f"{uri} is missing.", remedy)
        try:
            with self.lake.open(raw.key) as file:
                sha256 = FileSum.of(file).sha256
        except OSError as error:
            raise DamagedFile(f"{uri} cannot be read: {error.strerror}.", remedy) from error
        if sha256 != raw.sha256:
            raise DamagedFile(f"{uri} is not the file that was fetched on {raw.time[:10]}.", remedy)

    def _clean_files(self) -> CleanFooter | None:
        footer = None
        with self._noted():
            with self.lake.lock(self.dataset_month):
                footer = self.month.footer()
                if footer:
                    self.month.check_files(footer)
                elif self.lake.stat(self.month.clean_key):
                    raise self.month.damaged(self.month.clean_key, "cannot be read")
            if footer:
                check_accounted_for(self.lake, self.dataset_month)
        return footer

    def _tables(self, warehouse: Warehouse, footer: CleanFooter | None) -> None:
        if footer:
            check_table(self.lake, warehouse, self.dataset_month, self.home)
            return
        for table in (trips_table(self.dataset_month.dataset), rejected_table(self.dataset_month.dataset)):
            if stored := warehouse.loaded_month(table.name, self.dataset_month):
                raise IntegrityError(
                    f"{table.name} has {stored.rows:,} rows of {self.dataset_month}, but the lake has no clean file.",
                    f"Run taxi ingest {self.dataset_month}.",
                )
