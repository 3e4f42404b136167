"""What columns come from: as declared for the marts, and as the SQL says."""

import pytest

from taxi_platform.marts.lineage import lineage_of
from taxi_platform.marts.tables import QUALITY, lineage, mart_names, mart_table
from taxi_platform.marts.transpiling import mart_select, table_relation
from taxi_platform.marts.view_sql import view_select
from taxi_platform.marts.views import VIEWS
from taxi_platform.trips.contract import PROVENANCE
from taxi_platform.trips.months import Dataset, DatasetMonth
from taxi_platform.warehouse.tables import trips_table, zones_table


@pytest.mark.parametrize("dataset", list(Dataset))
def test_the_lineage_of_the_marts_is_that_of_their_sql(dataset):
    trips = trips_table(dataset)
    month = DatasetMonth(dataset, dataset.first_month)
    for name in [name for name in mart_names(dataset) if name != QUALITY]:
        select = mart_select(month, name, "0123456789ab", table_relation(trips.name, "duckdb"), "duckdb")
        found = lineage_of(select, [trips])
        declared = {
            column: sorted((trips.name, source) for source in sources)
            for column, sources in lineage(dataset, name).items()
            if column not in {each.name for each in PROVENANCE}  # the same for the whole month, given by the caller
        }
        assert {column: found[column] for column in declared} == declared


def test_the_lineage_of_a_view_leads_to_the_marts_and_the_zones():
    datasets = [Dataset.GREEN, Dataset.FHV]
    tables = [zones_table(), *(mart_table(d, name) for d in datasets for name in mart_names(d))]
    found = lineage_of(view_select(VIEWS["daily_zones"], datasets, "duckdb", str), tables)
    assert found["trips"] == [("fhv_daily_zones", "trips"), ("green_daily_zones", "trips")]
    assert found["pickup_borough"] == [("taxi_zones", "borough")]
    assert found["dataset"] == []
