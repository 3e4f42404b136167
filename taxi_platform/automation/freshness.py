"""Whether the newest months are there: a check per dataset, which `jobs.freshness_job` runs.

Dagster's freshness policies look at an asset's latest event, so loading 2009-01 again would pass for fresh.
"""

import dagster as dg

from taxi_platform.assets.resources import WarehouseResource
from taxi_platform.ingestion.survey import LONGEST_LAG, newest_due, newest_loaded
from taxi_platform.runs.dagster_internals import get_current_datetime
from taxi_platform.trips.months import Dataset, newest_month

NAME = "newest_month_is_loaded"


def freshness_check(dataset: Dataset) -> dg.AssetChecksDefinition:
    """Warns when a month that must have been published by now is not in the table."""

    @dg.asset_check(
        asset=dg.AssetKey([dataset.value, "trips"]),
        name=NAME,
        description=f"The newest month loaded is no older than the TLC's lag ({LONGEST_LAG.days} days) explains.",
    )
    def check(warehouse: WarehouseResource) -> dg.AssetCheckResult:
        today = get_current_datetime().date()
        found, due = newest_loaded(warehouse.open(), dataset, newest_month(today)), newest_due(today)
        return dg.AssetCheckResult(
            passed=found is not None and found >= due,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"The newest month loaded is {found or 'none of the last 24'}; {due} should be.",
            metadata={"newest_loaded": str(found), "newest_due": str(due)},
        )

    return check
