"""Whether the newest months are loaded: a check per dataset, evaluated by every run of the dataset and once a day.

Dagster's freshness policies look at an asset's latest event, so loading 2009-01 again would make the asset fresh.
"""

import dagster as dg

from taxi_platform.assets.attributes import asset_key
from taxi_platform.assets.checks import named_result
from taxi_platform.assets.names import FRESHNESS_CHECK
from taxi_platform.assets.resources import LakeResource, WarehouseResource
from taxi_platform.ingestion.survey import LONGEST_LAG, newest_due
from taxi_platform.lake.base import Lake
from taxi_platform.lake.months import LakeMonth
from taxi_platform.runs.dagster_internals import get_current_datetime
from taxi_platform.trips.errors import TaxiError, WarehouseBusy
from taxi_platform.trips.months import Dataset, DatasetMonth, newest_month
from taxi_platform.trips.text import markdown
from taxi_platform.warehouse.base import Warehouse, trips_table


def freshness_check(dataset: Dataset) -> dg.AssetChecksDefinition:
    """Warns when a month that must have been published by now is not in the table.

    It looks at the three or four newest months, never waits for a lock and never fails a run. If the table is locked,
    it checks which months are clean in the lake.
    """

    @dg.asset_check(
        asset=asset_key(dataset, "trips"),
        name=FRESHNESS_CHECK,
        description=f"The newest month loaded is no older than the TLC's lag ({LONGEST_LAG.days} days) explains.",
    )
    def check(lake: LakeResource, warehouse: WarehouseResource) -> dg.AssetCheckResult:
        today = get_current_datetime().date()
        due, newest = newest_due(today), newest_month(today)
        candidates = [DatasetMonth(dataset, month) for month in sorted(due.until(newest), reverse=True)]
        try:
            loaded, where = _newest(candidates, lake, warehouse)
        except TaxiError as error:
            return _result(dataset, False, f"The newest months could not be checked. {error}")
        if loaded:
            months = {"newest_loaded": str(loaded.month), "newest_due": str(due)}
            return _result(dataset, True, f"{loaded.month} is {where}.", **months)
        missing = f"None of the months from {due} to {newest} is {where}; {due} should be."
        return _result(dataset, False, missing, newest_loaded=f"before {due}", newest_due=str(due))

    return check


def _newest(
    candidates: list[DatasetMonth], lake: LakeResource, warehouse: WarehouseResource
) -> tuple[DatasetMonth | None, str]:
    """The first of the months that is loaded, and where that was seen."""
    try:
        return _newest_in_table(candidates, warehouse.open().for_polling()), "loaded"
    except WarehouseBusy:
        return _newest_in_lake(candidates, lake.open()), "clean in the lake (the warehouse is busy)"


def _newest_in_table(candidates: list[DatasetMonth], warehouse: Warehouse) -> DatasetMonth | None:
    loaded = warehouse.loaded_months(trips_table(candidates[0].dataset).name, candidates)
    return next((candidate for candidate in candidates if str(candidate.month) in loaded), None)


def _newest_in_lake(candidates: list[DatasetMonth], lake: Lake) -> DatasetMonth | None:
    return next((candidate for candidate in candidates if LakeMonth(lake, candidate).footer()), None)


def _result(dataset: Dataset, passed: bool, description: str, **metadata: str) -> dg.AssetCheckResult:
    return named_result(asset_key(dataset, "trips"), FRESHNESS_CHECK)(
        passed=passed, severity=dg.AssetCheckSeverity.WARN, description=markdown(description), metadata=metadata
    )
