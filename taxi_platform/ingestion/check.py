"""Check: read a published month again, from where it is stored, and compare."""

from __future__ import annotations

from pathlib import Path

from taxi_platform.ingestion.common import month_files, open_clean_file, retry_on_conflict
from taxi_platform.ingestion.compared import is_same_clean_file, take_comparison
from taxi_platform.ingestion.work_folder import work_folder
from taxi_platform.lake.base import Lake
from taxi_platform.lake.manifest import SetAside
from taxi_platform.lake.mart_month import MartMonth
from taxi_platform.lake.months import LakeMonth
from taxi_platform.marts.tables import mart_names, mart_table, mart_version
from taxi_platform.trips.errors import IntegrityError
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.warehouse.base import LoadResult, Warehouse
from taxi_platform.warehouse.session import MissingTable
from taxi_platform.warehouse.tables import TableFile


@retry_on_conflict
def check_accounted_for(lake: Lake, dataset_month: DatasetMonth) -> tuple[int, int, int]:
    """Rows read, clean and rejected, each from where it is stored; raises `IntegrityError` if they do not add up."""
    with open_clean_file(lake, dataset_month) as (month, footer):
        versions = month.manifest().versions
        read = next((raw.rows for raw in reversed(versions) if raw.sha256 == footer.raw_sha256), None)
        rejected = month.rejected_rows(footer.file_version)
    if read is None or read != footer.rows + rejected:
        raise IntegrityError(
            f"{dataset_month}: {read} rows were read, but {footer.rows} are clean and {rejected} rejected.",
            f"Run taxi ingest {dataset_month} --force.",
        )
    return read, footer.rows, rejected


def version_set_aside(lake: Lake, dataset_month: DatasetMonth) -> SetAside | None:
    """The version that the source offered last, if it is set aside."""
    return LakeMonth(lake, dataset_month).manifest().pending


@retry_on_conflict
def check_table(lake: Lake, warehouse: Warehouse, dataset_month: DatasetMonth, home: Path, run: str = "") -> LoadResult:
    """Compare both tables with the month's files, every value of every row; raises `IntegrityError` if they differ.

    Raises `Conflict` if a table holds another version than the clean file: the month was cleaned again and that version
    is not loaded yet, or another run replaced it meanwhile. What `run` has compared a moment ago, because the month was
    loaded already, is not compared again if clean file, version and rows are still the same.
    """
    if compared := take_comparison("trips", run, warehouse.url, dataset_month):
        footer, result = compared
        is_same = is_same_clean_file(lake, dataset_month, footer)
        if is_same and warehouse.is_loaded(dataset_month, footer.file_version, result.rows, result.rejected_rows):
            return result
    with (
        open_clean_file(lake, dataset_month) as (month, footer),
        month_files(month, footer.file_version, home) as files,
    ):
        return warehouse.verify_month(files)


@retry_on_conflict
def check_marts(
    lake: Lake, warehouse: Warehouse, dataset_month: DatasetMonth, home: Path, run: str = ""
) -> dict[str, int]:
    """Compare all marts of the month in the warehouse with the lake's, every value; returns the rows of each, by name.

    Raises `IntegrityError` if they differ, or are not those of the clean file, and `Conflict` like `check_table`. What
    `run` has compared is not compared again, as there.
    """
    dataset, remedy = dataset_month.dataset, f"Run taxi ingest {dataset_month}, which builds the marts again."
    if compared := take_comparison("marts", run, warehouse.url, dataset_month):
        footer, rows = compared
        rows_by_table = {mart_table(dataset, name): number for name, number in rows.items()}
        is_same = is_same_clean_file(lake, dataset_month, footer)
        if is_same and warehouse.holds(dataset_month, footer.file_version, rows_by_table):
            return dict(rows)
    with open_clean_file(lake, dataset_month) as (_, footer), work_folder(home, dataset_month) as folder:
        marts = MartMonth(lake, dataset_month, mart_names(dataset), footer.file_version, mart_version(dataset))
        if not marts.is_complete():
            raise IntegrityError(f"The lake does not have all marts of {dataset_month} in this version.", remedy)
        with marts.copies(folder) as paths:
            files = [
                TableFile(mart_table(dataset, name), path, marts.key(name), dataset_month, footer.file_version)
                for name, path in paths.items()
            ]
            try:
                return dict(zip(paths, warehouse.verify_marts(files), strict=True))
            except MissingTable as error:
                raise IntegrityError(error.problem, remedy) from error
