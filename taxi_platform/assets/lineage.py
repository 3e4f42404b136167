"""Column lineage: which columns of which assets a column comes from.

The open-source UI does not draw it, though GraphQL returns it. So the columns' descriptions say the same in words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import dagster as dg

from taxi_platform.assets.attributes import asset_key
from taxi_platform.marts.tables import lineage
from taxi_platform.trips.contract import contract_of
from taxi_platform.trips.months import Dataset

ColumnOfAsset = tuple[dg.AssetKey, str]


def column_lineage(sources: Mapping[str, Iterable[ColumnOfAsset]]) -> dg.TableColumnLineage:
    """The metadata `dagster/column_lineage` of an asset: its column → the columns of other assets it comes from."""
    deps = {
        column: [dg.TableColumnDep(asset_key=key, column_name=source) for key, source in from_columns]
        for column, from_columns in sources.items()
    }
    return dg.TableColumnLineage(deps)


def table_lineage(dataset: Dataset) -> dg.TableColumnLineage:
    """Of the table of trips: each column is that of the clean file."""
    clean_trips = asset_key(dataset, "clean_trips")
    return column_lineage({c.name: [(clean_trips, c.name)] for c in contract_of(dataset).table_columns})


def mart_lineage(dataset: Dataset, name: str) -> dg.TableColumnLineage:
    """Of a mart, over the columns of the table of trips. Those of `quality` come from the cleaning's report."""
    trips = asset_key(dataset, "trips")
    return column_lineage(
        {column: [(trips, source) for source in sources] for column, sources in lineage(dataset, name).items()}
    )
