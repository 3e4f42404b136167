"""What only BigQuery can get wrong: layouts, jobs and their names, lost answers, refusals."""

import dataclasses
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import requests
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.cloud import bigquery as bq

from taxi_platform.lake import open_lake
from taxi_platform.trips.errors import (
    Conflict,
    IntegrityError,
    SettingError,
    TransientError,
    WarehouseBusy,
    WarehouseError,
)
from taxi_platform.trips.months import Dataset
from taxi_platform.warehouse import bigquery_jobs, open_warehouse
from taxi_platform.warehouse.base import StoredRows, trips_table
from taxi_platform.warehouse.bigquery_errors import translated_errors
from taxi_platform.warehouse.bigquery_schema import described


@pytest.fixture
def warehouse(bigquery_url, monkeypatch):
    monkeypatch.setattr(bigquery_jobs, "BACK_OFF_SECONDS", 0.01)
    return open_warehouse(bigquery_url)


@pytest.fixture
def april(months, gcs_url):
    """A cleaned month whose files also lie in a bucket."""
    return in_bucket(months("green", "2020-04"), gcs_url)


def in_bucket(files, gcs_url):
    lake = open_lake(gcs_url)
    for key, path in (("trips.parquet", files.trips), ("rejected.parquet", files.rejected)):
        lake.write(key, path.read_bytes())
    return dataclasses.replace(files, trips_uri=lake.uri("trips.parquet"), rejected_uri=lake.uri("rejected.parquet"))


def load_jobs(warehouse):
    """The dataset's load jobs, oldest first."""
    jobs = [job for job in warehouse.client.list_jobs() if isinstance(job, bq.LoadJob)]
    ours = [job for job in jobs if job.destination.dataset_id == warehouse.dataset.dataset_id]
    return sorted(ours, key=lambda job: job.created)


def answers(monkeypatch, warehouse, meddle):
    """Let `meddle` change each answer to a request that starts a load job; returns these jobs' names."""
    session, started = warehouse.client._http, []
    plain = session.request

    def request(method, url, data=None, **options):
        answer = plain(method, url, data=data, **options)
        if method == "POST" and "/jobs" in url and '"load"' in str(data):
            started.append(json.loads(data)["jobReference"]["jobId"])
            meddle(answer, len(started))
        return answer

    monkeypatch.setattr(session, "request", request)
    return started


def failing(reason, times=1):
    def meddle(answer, number):
        if number <= times:
            resource = answer.json()
            error = {"reason": reason, "message": f"it said {reason}"}
            resource["status"] = {"state": "DONE", "errorResult": error, "errors": [error]}
            answer._content = json.dumps(resource).encode()

    return meddle


def test_the_tables_are_laid_out_as_the_contract_says(warehouse, april):
    warehouse.replace_month(april)
    dataset = warehouse.client.get_dataset(warehouse.dataset)
    assert (dataset.location, dataset.labels) == ("EU", {"application": "taxi-platform"})
    table = warehouse.client.get_table(warehouse.dataset.table("green_trips"))
    assert (table.time_partitioning.type_, table.time_partitioning.field) == ("MONTH", "file_month")
    assert table.clustering_fields == ["pickup_datetime", "pickup_location_id"]
    assert table.description == trips_table(Dataset.GREEN).description
    assert table.labels == {"application": "taxi-platform"}
    assert [(field.name, field.description) for field in table.schema] == [
        (column.name, column.description) for column in trips_table(Dataset.GREEN).columns
    ]
    types = {field.name: (field.field_type, field.precision, field.scale) for field in table.schema}
    assert types["fare_amount"] == ("NUMERIC", 10, 2)
    assert [
        types[name][0] for name in ("pickup_datetime", "vendor_id", "trip_distance", "file_month", "file_version")
    ] == [
        "DATETIME",
        "INTEGER",
        "FLOAT",
        "DATE",
        "STRING",
    ]
    rejected = warehouse.client.get_table(warehouse.dataset.table("green_rejected_trips"))
    assert rejected.clustering_fields == ["reason"]
    assert (rejected.time_partitioning.type_, rejected.time_partitioning.field) == ("MONTH", "file_month")


def test_a_month_is_one_load_job_a_table_from_the_bucket_the_rejected_rows_first(warehouse, april):
    result = warehouse.replace_month(april)
    rejected, trips = load_jobs(warehouse)
    assert (rejected.destination.table_id, trips.destination.table_id) == (
        "green_rejected_trips$202004",
        "green_trips$202004",
    )
    assert (rejected.source_uris, trips.source_uris) == ([april.rejected_uri], [april.trips_uri])
    assert (trips.write_disposition, trips.create_disposition) == ("WRITE_TRUNCATE", "CREATE_NEVER")
    assert trips.labels == {"application": "taxi-platform", "dataset": "green"}
    assert trips.job_id.startswith(f"taxi-green_trips-2020-04-{april.file_version}-")
    assert trips.output_rows == result.rows == 499
    assert f"j=bq:{trips.location}:{trips.job_id}&" in result.links["bigquery_job"]
    assert "&t=green_trips&" in result.links["bigquery_table"]
    assert warehouse.loaded_month("green_trips", april.dataset_month) == StoredRows(499, (april.file_version,))


def test_every_load_has_a_job_of_its_own_also_of_the_same_version(warehouse, april):
    warehouse.replace_month(april)
    warehouse.replace_month(april)
    assert len({job.job_id for job in load_jobs(warehouse)}) == 4


@pytest.mark.fault(38)
def test_a_job_whose_answer_was_lost_is_waited_for_and_not_started_again(warehouse, april, monkeypatch):
    def lose_the_first(answer, number):
        if number == 1:
            raise requests.ConnectionError("the answer was lost")

    started = answers(monkeypatch, warehouse, lose_the_first)
    result = warehouse.replace_month(april)
    assert (result.rows, result.rejected_rows) == (499, 1)
    assert started[0] == started[1]
    assert sorted({*started}) == sorted(job.job_id for job in load_jobs(warehouse))


@pytest.mark.fault(38)
@pytest.mark.parametrize("reason", ["backendError", "internalError", "rateLimitExceeded", "jobBackendError"])
def test_a_job_that_failed_for_a_passing_reason_is_followed_by_another(warehouse, april, monkeypatch, reason):
    started = answers(monkeypatch, warehouse, failing(reason))
    assert warehouse.replace_month(april).rows == 499
    assert [name.rpartition("-")[2] for name in started] == ["1", "2", "3"]


@pytest.mark.fault(38)
def test_a_reason_that_does_not_pass_ends_after_four_jobs(warehouse, april, monkeypatch):
    started = answers(monkeypatch, warehouse, failing("backendError", times=99))
    with pytest.raises(WarehouseBusy, match=r"taxi-green_rejected_trips-2020-04-\S+-4 failed: backendError: it said"):
        warehouse.replace_month(april)
    assert len(started) == 4


@pytest.mark.fault(38)
@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("quotaExceeded", "when the quota is renewed"),
        ("accessDenied", r"roles/storage\.objectViewer"),
        ("invalid", r"https://console\.cloud\.google\.com/bigquery"),
    ],
)
def test_a_job_that_failed_for_good_is_not_tried_again(warehouse, april, monkeypatch, reason, remedy):
    started = answers(monkeypatch, warehouse, failing(reason))
    with pytest.raises(WarehouseError, match=f"failed: {reason}: it said {reason}.*{remedy}") as caught:
        warehouse.replace_month(april)
    assert not isinstance(caught.value, TransientError)
    assert len(started) == 1


def test_a_file_with_another_type_is_refused_before_any_job(warehouse, april, tmp_path):
    table = pq.read_table(april.trips)
    position = table.schema.get_field_index("fare_amount")
    as_float = table.set_column(position, "fare_amount", pc.cast(table["fare_amount"], pa.float64()))
    pq.write_table(as_float, tmp_path / "trips.parquet")
    with pytest.raises(IntegrityError, match=r"green_trips\.fare_amount is double in trips\.parquet, not decimal128"):
        warehouse.replace_month(dataclasses.replace(april, trips=tmp_path / "trips.parquet"))
    assert load_jobs(warehouse) == []


def test_a_table_with_a_column_of_another_type_is_refused_by_name(warehouse, april):
    warehouse.client.create_dataset(warehouse.dataset)
    table = described(trips_table(Dataset.GREEN), warehouse.dataset)
    table.schema = [
        bq.SchemaField("passenger_count", "STRING") if field.name == "passenger_count" else field
        for field in table.schema
    ]
    warehouse.client.create_table(table)
    refusal = r"green_trips\.passenger_count in \S+ is STRING, not INT64\. Rename or drop"
    with pytest.raises(WarehouseError, match=refusal):
        warehouse.replace_month(april)


def test_a_table_without_month_partitions_is_refused(warehouse, april):
    warehouse.client.create_dataset(warehouse.dataset)
    table = described(trips_table(Dataset.GREEN), warehouse.dataset)
    table.time_partitioning = None
    warehouse.client.create_table(table)
    with pytest.raises(WarehouseError, match="green_trips is not partitioned by month"):
        warehouse.replace_month(april)


def test_a_dataset_elsewhere_is_reported_with_its_location(warehouse, april):
    warehouse.replace_month(april)
    elsewhere = open_warehouse(warehouse.url.replace("EU", "US"), "TAXI_SERVING_URL")
    with pytest.raises(WarehouseError, match=r"is in EU, not in US\. Write \?location=EU in TAXI_SERVING_URL"):
        elsewhere.replace_month(april)


@pytest.mark.fault(39)
def test_a_month_that_differs_from_its_file_after_loading_fails(warehouse, april, months):
    cut = pq.read_table(april.trips).slice(0, 400)
    other = Path(april.trips).with_name("cut.parquet")
    pq.write_table(cut, other)
    with pytest.raises(IntegrityError, match=r"green_trips differs from its file of green 2020-04 \(499 rows, not 400"):
        warehouse.replace_month(dataclasses.replace(april, trips=other))


def test_a_month_cleaned_again_while_it_is_loaded_starts_over(warehouse, april, months, gcs_url):
    newer = in_bucket(months("green", "2020-04", 700), f"{gcs_url}/newer")
    with pytest.raises(Conflict, match=f"green_trips holds version {newer.file_version} of green 2020-04"):
        warehouse.replace_month(dataclasses.replace(april, trips_uri=newer.trips_uri))


@pytest.mark.parametrize(
    ("error", "kind", "remedy"),
    [
        (
            api.Forbidden("no"),
            WarehouseError,
            r"permission is missing \(no\).*roles/bigquery\.jobUser.*TAXI_SERVING_URL",
        ),
        (api.Unauthorized("no"), WarehouseError, "TAXI_SERVING_URL.*gcloud auth application-default login"),
        (auth.DefaultCredentialsError("no"), WarehouseError, "gcloud auth application-default login"),
        (api.ServiceUnavailable("no"), WarehouseBusy, "Try again later"),
        (api.RetryError("no", None), WarehouseBusy, "Try again later"),
        (requests.ConnectionError("no"), WarehouseBusy, "Try again later"),
        (TimeoutError(), WarehouseBusy, "Try again later"),
        (api.BadRequest("no"), WarehouseError, "TAXI_SERVING_URL"),
    ],
)
def test_a_refusal_names_the_place_and_the_remedy(error, kind, remedy):
    with (
        pytest.raises(WarehouseError, match=rf"Cannot load bigquery://p/d.*{remedy}") as caught,
        translated_errors("load", "bigquery://p/d", "TAXI_SERVING_URL"),
    ):
        raise error
    assert type(caught.value) is kind


def test_missing_credentials_are_reported_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with pytest.raises(WarehouseError, match=r"TAXI_WAREHOUSE_URL.*application-default login"):
        open_warehouse("bigquery://project/dataset")


@pytest.mark.parametrize(
    "url",
    [
        "bigquery://",
        "bigquery://project",
        "bigquery://project/",
        "bigquery://project/data-set",
        "bigquery://project/a/b",
        "bigquery://Project`/a",
        "bigquery://project/a?location=E U",
        "bigquery://project/a?region=EU",
    ],
)
def test_a_url_without_a_dataset_is_reported_with_what_the_variable_takes(url):
    with pytest.raises(
        SettingError, match=r"TAXI_SERVING_URL does not name a BigQuery dataset\. It takes bigquery://project/"
    ):
        open_warehouse(url, "TAXI_SERVING_URL")


def test_a_table_has_an_address_and_an_example_query(warehouse):
    name = f"taxi-test.{warehouse.dataset.dataset_id}.green_trips"
    assert warehouse.uri("green_trips") == f"{warehouse.url}#green_trips"
    assert warehouse.example_query("green_trips") == (
        "bq --project_id=taxi-test query --use_legacy_sql=false "
        f"'SELECT file_month, COUNT(*) AS trips FROM `{name}` GROUP BY 1 ORDER BY 1'"
    )
