"""The same graph on Google Cloud by two URLs alone, through Dagster's own resources."""

import dagster as dg
import duckdb
import pytest

from taxi_platform.assets.names import FRESHNESS_CHECK
from taxi_platform.definitions import build_definitions
from taxi_platform.settings import load_settings
from taxi_platform_tests.support.emulators.fixtures import (  # noqa: F401
    bigquery_host,
    bigquery_url,
    bucket,
    gcs_url,
    storage_host,
)


def ingest():
    job = build_definitions(load_settings()).resolve_job_def("green_ingest")
    result = job.execute_in_process(
        partition_key="2020-04", instance=dg.DagsterInstance.ephemeral(), raise_on_error=False
    )
    assert result.success
    checks = {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
    assert checks.pop(FRESHNESS_CHECK) is False  # the newest months are not loaded here
    assert set(checks.values()) == {True}
    return {e.asset_key.path[-1]: e.materialization.metadata for e in result.get_asset_materialization_events()}


@pytest.fixture
def on_a_laptop(monkeypatch):
    """What the month is on the embedded default."""
    monkeypatch.setenv("TAXI_SOURCE_URL", "sample://?rows=1000")
    return ingest()


def test_a_month_in_a_bucket_loads_as_it_does_from_a_folder(on_a_laptop, monkeypatch, tmp_path, gcs_url):  # noqa: F811
    monkeypatch.setenv("TAXI_LAKE_URL", gcs_url)
    monkeypatch.setenv("TAXI_HOME", str(tmp_path / "other"))
    metadata = ingest()
    assert metadata["clean_trips"]["dagster/uri"].value.startswith(gcs_url)
    for asset in ("raw_file", "clean_trips", "rejected_trips"):
        linked, key = metadata[asset]["lake_object"].value, metadata[asset]["dagster/uri"].value.removeprefix("gs://")
        assert linked == f"https://console.cloud.google.com/storage/browser/_details/{key.replace('=', '%3D')}"
    assert metadata["trips"]["fingerprint"] == on_a_laptop["trips"]["fingerprint"]
    assert metadata["clean_trips"]["file_version"] == on_a_laptop["clean_trips"]["file_version"]
    with duckdb.connect(str(tmp_path / "other/warehouse.duckdb"), read_only=True) as con:
        assert con.execute("SELECT count(*) FROM green_trips").fetchone()[0] == metadata["trips"]["rows"].value
    assert [entry["unchanged"].value for entry in ingest().values()] == [True] * 9


def test_a_month_in_bigquery_is_the_month_in_duckdb(on_a_laptop, monkeypatch, gcs_url, bigquery_url):  # noqa: F811
    monkeypatch.setenv("TAXI_LAKE_URL", gcs_url)
    monkeypatch.setenv("TAXI_WAREHOUSE_URL", bigquery_url)
    metadata = ingest()  # with its check that table and file are equal
    assert metadata["trips"]["rows"] == on_a_laptop["trips"]["rows"]
    assert metadata["clean_trips"]["file_version"] == on_a_laptop["clean_trips"]["file_version"]
    assert "console.cloud.google.com" in metadata["trips"]["bigquery_job"].value
    again = ingest()
    assert [entry["unchanged"].value for entry in again.values()] == [True] * 9
    assert again["trips"]["bigquery_table"] == metadata["trips"]["bigquery_table"]
