"""BigQuery among the warehouses that the conformance tests run on: its emulator, and the real one where it is opted in.

`conftest` imports these fixtures, so that all modules of a test process share one emulator.
"""

from __future__ import annotations

import uuid

import pytest

from taxi_platform.trips.months import Dataset
from taxi_platform.warehouse import open_warehouse
from taxi_platform.warehouse.base import rejected_table, trips_table
from taxi_platform.warehouse.bigquery import BigQueryWarehouse
from taxi_platform_tests.support.emulators.fixtures import (  # noqa: F401
    bigquery_host,
    bigquery_url,
    bucket,
    gcs_url,
    real_lake,
    real_warehouse,
    storage_host,
)

DIFFERENT_IN_BIGQUERY = {
    "test_a_month_that_differs_from_its_file_after_loading_is_rolled_back": "a load job is compared after it replaced",
    "test_a_column_of_another_type_is_refused_by_name": "it has no such ALTER; test_bigquery has its own test",
    "test_two_versions_of_a_month_loaded_at_once_never_mix": "it has no lock, so such a load starts over",
}
"""Conformance tests that BigQuery is not run on, and why."""


@pytest.fixture
def bigquery_backend(request, bigquery_url):  # noqa: F811
    _skip_where_different(request)
    warehouse = open_warehouse(bigquery_url)
    # Created beforehand: the emulator shows a dataset or table that is half created (with the default location, columns
    # without their precision). BigQuery creates them atomically.
    at_once = "at_once" in request.node.originalname
    tables = [trips_table(Dataset.GREEN), rejected_table(Dataset.GREEN)] if at_once else []
    for change in warehouse.plan(tables):
        change.apply()
    return backend_of(warehouse)


@pytest.fixture
def real_bigquery_backend(request, real_warehouse):  # noqa: F811
    _skip_where_different(request)
    project = real_warehouse.dataset.project
    dataset = f"{real_warehouse.dataset.dataset_id}_{uuid.uuid4().hex}"
    warehouse = BigQueryWarehouse(real_warehouse.client, project, dataset, real_warehouse.location)
    yield backend_of(warehouse)
    warehouse.client.delete_dataset(warehouse.dataset, delete_contents=True, not_found_ok=True)


def backend_of(warehouse: BigQueryWarehouse):
    from taxi_platform_tests.warehouse.conftest import Backend

    def execute(query):
        return [row.values() for row in warehouse.client.query(query, location=warehouse.location).result()]

    return Backend(warehouse, warehouse.url, execute, lambda table: f"`{warehouse.full_name(table)}`")


def _skip_where_different(request) -> None:
    if reason := DIFFERENT_IN_BIGQUERY.get(request.node.originalname):
        pytest.skip(f"BigQuery: {reason}")
