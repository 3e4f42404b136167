"""Check: read a published month again, from where it is stored, and compare."""

from __future__ import annotations

from pathlib import Path

from taxi_platform.ingestion.common import open_clean_month, retry_on_conflict
from taxi_platform.ingestion.work_folder import work_folder
from taxi_platform.lake.base import Lake
from taxi_platform.lake.manifest import SetAside
from taxi_platform.lake.months import LakeMonth
from taxi_platform.trips.errors import Conflict, IntegrityError
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.warehouse.base import Warehouse, check_arrived, rejected_table, trips_table
from taxi_platform.warehouse.fingerprint import parquet_fingerprint


@retry_on_conflict
def check_accounted_for(lake: Lake, dataset_month: DatasetMonth) -> tuple[int, int, int]:
    """Rows read, clean and rejected, each from where it is stored; raises `IntegrityError` if they do not add up."""
    with open_clean_month(lake, dataset_month) as (month, footer, _):
        versions = month.manifest().versions
        read = next((raw.rows for raw in reversed(versions) if raw.sha256 == footer.raw_sha256), None)
        rejected = month.rejected_rows(footer.file_version)
    if read is None or read != footer.rows + rejected:
        raise IntegrityError(
            f"{dataset_month}: {read} rows were read, but {footer.rows} are clean and {rejected} rejected.",
            "Materialize the month again with force.",
        )
    return read, footer.rows, rejected


def version_set_aside(lake: Lake, dataset_month: DatasetMonth) -> SetAside | None:
    """The version that the source offered last, if it is set aside."""
    return LakeMonth(lake, dataset_month).manifest().pending


@retry_on_conflict
def check_table(lake: Lake, warehouse: Warehouse, dataset_month: DatasetMonth, home: Path) -> tuple[str, str]:
    """The fingerprints of clean file and table, both computed again; raises `IntegrityError` if they differ.

    Raises `Conflict` if the table holds another version than the clean file: the month was cleaned again and that
    version is not loaded yet.
    """
    trips, rejected = trips_table(dataset_month.dataset), rejected_table(dataset_month.dataset)
    with open_clean_month(lake, dataset_month) as (month, footer, report):
        loaded = warehouse.loaded_month(trips.name, dataset_month)
        if loaded and len(loaded.file_versions) == 1 and loaded.file_versions != (footer.file_version,):
            raise Conflict(
                f"{trips.name} holds version {loaded.file_versions[0]} of {dataset_month}, "
                f"the lake {footer.file_version}.",
                "The run that cleaned the month should load it; otherwise materialize "
                f"{dataset_month.dataset}/trips again.",
            )
        with work_folder(home, dataset_month) as folder, month.clean_copy(footer.file_version, folder) as path:
            expected = parquet_fingerprint(trips.columns, path)
        arrived = warehouse.fingerprint(trips, dataset_month)
        check_arrived(trips, expected, arrived)
        stored = warehouse.loaded_month(rejected.name, dataset_month)
        rejected_rows = stored.rows if stored else 0
        if rejected_rows != report.rows_rejected:
            raise IntegrityError(
                f"{dataset_month}: {rejected_rows} rejected rows are in the table, not {report.rows_rejected}.",
                "Materialize the month again with force.",
            )
    return str(expected), str(arrived)
