"""Whole months through the three steps, with a bucket and a table elsewhere instead of a folder and a file."""

import shutil

import pytest

from taxi_platform.ingestion import steps
from taxi_platform.lake import open_lake
from taxi_platform.sources import open_source
from taxi_platform.trips.engine import Engine
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.warehouse import open_warehouse
from taxi_platform_tests.support.system import shared_file

ENGINE = Engine(threads=1)


def ingest(source, lake, warehouse, dataset_month, home):
    fetched = steps.fetch(source, lake, dataset_month, home)
    cleaned = steps.clean(lake, dataset_month, home, ENGINE)
    return fetched, cleaned, steps.load(lake, warehouse, dataset_month, home)


def same_as_on_this_machine(source, dataset_month, lake_url, warehouse_url, tmp_path):
    """Ingest a month here, and twice there; returns the rows there."""
    here = open_lake((tmp_path / "lake").as_uri()), open_warehouse(f"duckdb://{tmp_path / 'warehouse.duckdb'}")
    there = open_lake(lake_url), open_warehouse(warehouse_url)
    *_, expected = ingest(source, *here, dataset_month, tmp_path / "home")
    fetched, cleaned, loaded = ingest(source, *there, dataset_month, tmp_path / "home")
    assert not (fetched.unchanged or cleaned.unchanged or loaded.unchanged)
    assert (loaded.result.rows, loaded.result.rejected_rows) == (expected.result.rows, expected.result.rejected_rows)
    assert loaded.file_version == expected.file_version
    read, clean, rejected = steps.check_accounted_for(there[0], dataset_month)
    assert (clean, rejected) == (loaded.result.rows, loaded.result.rejected_rows)
    assert read == clean + rejected
    assert steps.check_table(*there, dataset_month, tmp_path / "home") == loaded.result
    again = ingest(source, *there, dataset_month, tmp_path / "home")
    assert [step.unchanged for step in again] == [True, True, True]
    assert again[2].result == loaded.result
    assert list((tmp_path / "home" / "tmp").iterdir()) == []
    return loaded.result.rows, loaded.result.rejected_rows


def test_a_sample_month_is_the_same_in_the_cloud_as_on_this_machine(gcs_url, bigquery_url, tmp_path):
    source = open_source("sample://?rows=2000")
    rows = same_as_on_this_machine(source, DatasetMonth.parse("fhvhv", "2021-01"), gcs_url, bigquery_url, tmp_path)
    assert rows == (1999, 1)


@pytest.mark.real_gcp
def test_a_sample_month_is_the_same_in_the_real_cloud_too(real_lake, real_bigquery_backend, tmp_path):
    source = open_source("sample://?rows=2000")
    dataset_month = DatasetMonth.parse("yellow", "2021-01")
    there = real_lake, real_bigquery_backend.warehouse
    first, again = (ingest(source, *there, dataset_month, tmp_path / "home") for _ in range(2))
    assert (first[2].result.rows, first[2].unchanged, again[2].unchanged) == (1999, False, True)


PUBLISHED = pytest.mark.parametrize(
    ("name", "month", "rows"),
    [
        ("green_tripdata_2020-04.csv.gz", "2020-04", (35612, 0)),
        ("green_tripdata_2020-11.csv.gz", "2020-11", (88605, 0)),
        ("green_tripdata_2024-01.parquet", "2024-01", (56551, 0)),
    ],
)


def published(name, tmp_path):
    """A source of one published file, copied so that its version is this test's own."""
    shutil.copy(shared_file(f"files/{name}"), tmp_path / name)
    return open_source(f"file://{tmp_path}/{{dataset}}_tripdata_{{month}}.{name.partition('.')[2]}")


@PUBLISHED
def test_a_published_month_is_the_same_in_the_cloud_as_on_this_machine(
    gcs_url, bigquery_url, tmp_path, name, month, rows
):
    source, dataset_month = published(name, tmp_path), DatasetMonth.parse("green", month)
    assert same_as_on_this_machine(source, dataset_month, gcs_url, bigquery_url, tmp_path) == rows


@PUBLISHED
def test_a_published_month_is_the_same_in_a_bucket_and_postgresql_as_on_this_machine(
    gcs_url, postgres_backend, tmp_path, name, month, rows
):
    source, dataset_month = published(name, tmp_path), DatasetMonth.parse("green", month)
    assert same_as_on_this_machine(source, dataset_month, gcs_url, postgres_backend.address, tmp_path) == rows
