"""The marts' tables: what their descriptions say of columns is what the SQL does."""

from __future__ import annotations

import pytest
import sqlglot
from sqlglot import exp

from taxi_platform.marts.tables import QUALITY, lineage, mart_names, mart_sql, mart_table, mart_version, trip_columns
from taxi_platform.marts.transpiling import mart_select, quality_select, table_relation
from taxi_platform.trips.months import Dataset, DatasetMonth, Month

ALL = [(dataset, name) for dataset in Dataset for name in mart_names(dataset)]
BY_SQL = [(dataset, name) for dataset, name in ALL if name != QUALITY]


def select_of(dataset: Dataset, name: str, dialect: str = "duckdb") -> exp.Select:
    trips = table_relation("trips", dialect)
    query = mart_select(DatasetMonth(dataset, Month(2021, 1)), name, "0123456789ab", trips, dialect)
    return sqlglot.parse_one(query, dialect=dialect)


def test_only_metered_taxis_have_payments():
    assert {dataset: "payments" in mart_names(dataset) for dataset in Dataset} == {
        Dataset.YELLOW: True,
        Dataset.GREEN: True,
        Dataset.FHV: False,
        Dataset.FHVHV: False,
    }


@pytest.mark.parametrize(("dataset", "name"), ALL)
def test_every_mart_carries_its_month_and_version_and_describes_each_column(dataset, name):
    table = mart_table(dataset, name)
    assert table.name == f"{dataset}_{name}"
    assert [column.name for column in table.columns[-2:]] == ["file_month", "file_version"]
    assert table.by_month
    assert all(column.description.endswith(".") for column in table.columns)
    assert ("under their own dates" in table.description) == (name != QUALITY)


@pytest.mark.parametrize(("dataset", "name"), BY_SQL)
def test_each_column_comes_from_the_columns_that_its_description_names(dataset, name):
    found = {
        projection.alias: tuple(dict.fromkeys(column.name for column in projection.find_all(exp.Column)))
        for projection in select_of(dataset, name).selects
    }
    provenance = {"file_month": ("file_month",), "file_version": ("file_version",)}
    declared = lineage(dataset, name)
    assert {column: sorted(names) for column, names in (found | provenance).items()} == {
        column: sorted(names) for column, names in declared.items()
    }
    for column in mart_table(dataset, name).columns[:-2]:
        assert all(source in column.description for source in declared[column.name])


def test_columns_that_a_dataset_lacks_are_null_and_say_so():
    (passengers,) = [p for p in select_of(Dataset.FHV, "daily_zones").selects if p.alias == "passengers"]
    assert passengers.sql("duckdb") == 'CAST(NULL AS BIGINT) AS "passengers"'
    (column,) = [c for c in mart_table(Dataset.FHV, "daily_zones").columns if c.name == "passengers"]
    assert column.description == "Always null: fhv trips have no such value."


def test_what_riders_of_high_volume_services_pay_is_the_sum_of_its_parts():
    assert trip_columns(Dataset.FHVHV, "total_amount") == (
        *("base_passenger_fare", "tolls", "bcf", "sales_tax"),
        *("congestion_surcharge", "airport_fee", "tips", "cbd_congestion_fee"),
    )
    (total,) = [p for p in select_of(Dataset.FHVHV, "hours").selects if p.alias == "total_amount"]
    assert 'SUM("base_passenger_fare" + COALESCE("tolls", 0) + ' in total.sql("duckdb")


@pytest.mark.parametrize("dialect", ["duckdb", "postgres", "bigquery"])
@pytest.mark.parametrize(("dataset", "name"), BY_SQL)
def test_the_sql_of_every_engine_parses_and_keeps_the_columns(dataset, name, dialect):
    select = select_of(dataset, name, dialect)
    assert [p.alias for p in select.selects] == [column.name for column in mart_table(dataset, name).columns]
    assert not list(select.find_all(exp.Placeholder))


def test_texts_in_a_report_are_quoted_for_each_engine():
    month, hostile = DatasetMonth(Dataset.GREEN, Month(2021, 1)), "a'b\\c\"d`e\n--"
    for dialect in ("duckdb", "postgres", "bigquery"):
        query = quality_select(month, "0123456789ab", [("read", "", 2), ("rejected", hostile, 1)], dialect)
        literals = [node.this for node in sqlglot.parse_one(query, dialect=dialect).find_all(exp.Literal)]
        assert hostile in literals


@pytest.mark.parametrize("name", ["daily_zones", "hours", "zone_pairs", "payments"])
def test_the_version_changes_with_the_sql_of_a_mart(monkeypatch, name):
    before = mart_version(Dataset.YELLOW)
    text = mart_sql(name).replace("COUNT(*)", "COUNT(1)")
    assert text != mart_sql(name)
    monkeypatch.setattr("taxi_platform.marts.tables.mart_sql", lambda asked: text if asked == name else mart_sql(asked))
    assert mart_version.__wrapped__(Dataset.YELLOW) != before
    assert len(before) == 8
