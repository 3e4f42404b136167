"""Load: bring a warehouse's month up to date with the lake's clean file and rejected rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from taxi_platform.ingestion.common import Say, month_files, no_message, open_clean_month, retry_on_conflict
from taxi_platform.ingestion.compared import note_comparison
from taxi_platform.lake.base import Lake
from taxi_platform.trips.errors import IntegrityError, WarehouseError
from taxi_platform.trips.known import taxi_zones
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.warehouse.base import LoadResult, Warehouse, trips_table, zones_table
from taxi_platform.warehouse.session import MissingTable


@dataclass(frozen=True)
class Loaded:
    """The month as its tables hold it."""

    result: LoadResult
    file_version: str
    uri: str
    unchanged: bool


@retry_on_conflict
def load(
    lake: Lake,
    warehouse: Warehouse,
    dataset_month: DatasetMonth,
    home: Path,
    force: bool = False,
    say: Say = no_message,
    run: str = "",
) -> Loaded:
    """Bring the warehouse's month up to date with the lake's clean file and rejected rows.

    A month that is already loaded is compared by every value, and loaded again if it differs. Loads the taxi zones too,
    where the warehouse does not have them and lets us. Raises `LakeError` if the month is not clean, or what the
    warehouse raises. `run` names the run, whose check then need not compare an unchanged month again.
    """
    trips = trips_table(dataset_month.dataset)
    with open_clean_month(lake, dataset_month, run) as (month, footer, report):
        version = footer.file_version
        with month_files(month, version, home) as files:
            result = None
            if not force and warehouse.is_loaded(dataset_month, version, footer.rows, report.rows_rejected):
                try:
                    result = warehouse.verify_month(files)
                except (IntegrityError, MissingTable) as error:  # nothing is missing of a month without rows
                    say(f"{error.problem} It is loaded again.")
            unchanged = result is not None
            result = result or warehouse.replace_month(files)
    _load_missing_zones(warehouse, say)
    if unchanged:
        note_comparison("trips", run, warehouse.url, dataset_month, footer, result)
        say(f"{dataset_month}: {trips.name} already holds version {version}.")
    else:
        say(f"{dataset_month}: {result.rows:,} rows in {trips.name}, {result.rejected_rows:,} in the rejected table.")
    return Loaded(result, version, warehouse.uri(trips.name), unchanged)


def _load_missing_zones(warehouse: Warehouse, say: Say) -> None:
    """Load the zones where they are missing. The month is loaded: somebody's own table of that name cannot fail it."""
    try:
        if not zones_are_loaded(warehouse):
            load_zones(warehouse)
    except WarehouseError as error:
        say(f"The taxi zones were not loaded: {error}")


def zones_are_loaded(warehouse: Warehouse) -> bool:
    """Whether the warehouse has all taxi zones, judged by their number."""
    return warehouse.row_count(zones_table()) == len(taxi_zones())


def load_zones(warehouse: Warehouse) -> None:
    """Replace the warehouse's taxi zones by those shipped in the package."""
    warehouse.replace_reference(zones_table(), taxi_zones())
