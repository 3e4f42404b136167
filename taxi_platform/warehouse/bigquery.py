"""The warehouse as a BigQuery dataset: one load job replaces one month of one table."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

import requests
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery as bq
from google.cloud.bigquery.retry import DEFAULT_JOB_RETRY, DEFAULT_RETRY
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from taxi_platform.trips.errors import Conflict, IntegrityError, SettingError, WarehouseBusy, WarehouseError
from taxi_platform.trips.faults import fault_point
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.trips.plan import Change
from taxi_platform.warehouse.base import (
    CleanFiles,
    LoadResult,
    StoredRows,
    Table,
    Warehouse,
    rejected_table,
    trips_table,
)
from taxi_platform.warehouse.bigquery_schema import LABELS, check_file, described, type_of
from taxi_platform.warehouse.fingerprint import Fingerprint, fingerprint_of, fingerprint_select, parquet_fingerprint

TRANSIENT = re.compile(r"(job)?(backendError|internalError|rateLimitExceeded)", re.IGNORECASE)
"""Reasons of a failed job that another job may not meet. Not quotaExceeded: every failed load counts toward it."""

LOAD_ATTEMPTS = 4
BACK_OFF_SECONDS = 5.0
JOB_SECONDS = 3600
PATIENCE_SECONDS = 120
"""With a service that does not answer; its client's own defaults ask for 10 minutes, and for 40 about a query."""

CALL: dict[str, Any] = {"timeout": 60, "retry": DEFAULT_RETRY.with_timeout(PATIENCE_SECONDS)}
JOB_RETRY = DEFAULT_JOB_RETRY.with_timeout(PATIENCE_SECONDS)
RELOADED = "Rename or drop that table; its months are loaded again from the lake."
QUERY_BYTES = 200 * 10**9
"""A query of ours that would read more is refused; the months of the largest table take some 35 GB by estimate."""


class BigQueryWarehouse(Warehouse):
    """Tables in a dataset, partitioned by `file_month`. `variable` is where the URL came from, for messages."""

    def __init__(
        self,
        client: bq.Client,
        project: str,
        dataset: str,
        location: str = "US",
        variable: str = "TAXI_WAREHOUSE_URL",
    ) -> None:
        self.client = client
        self.dataset = bq.DatasetReference(project, dataset)
        self.location = location
        self.variable = variable
        self.url = f"bigquery://{project}/{dataset}?location={location}"

    def example_query(self, table: str) -> str:
        query = f"SELECT file_month, COUNT(*) AS trips FROM `{self._name(table)}` GROUP BY 1 ORDER BY 1"
        return f"bq --project_id={self.dataset.project} query --use_legacy_sql=false '{query}'"

    def links(self, table: str) -> dict[str, str]:
        path = f"p={self.dataset.project}&d={self.dataset.dataset_id}&t={table}&page=table"
        return {"bigquery_table": f"https://console.cloud.google.com/bigquery?project={self.dataset.project}&{path}"}

    def plan(self, tables: Sequence[Table]) -> Iterator[Change]:
        with self._explained("read"):
            try:
                found = self.client.get_dataset(self.dataset, **CALL)
                existing = {table.table_id for table in self.client.list_tables(self.dataset, **CALL)}
            except api.NotFound:
                found, existing = None, set()
        yield Change(f"dataset {self.dataset.dataset_id} in {self.location}", found is None, self._make_dataset)
        for table in tables:
            yield Change(f"table {self._name(table.name)}", self._lacks(table, existing), partial(self._make, table))

    def _lacks(self, table: Table, existing: set[str]) -> bool:
        """Whether the table or a column of it is missing; raises where what is there clashes."""
        if table.name not in existing:
            return True
        with self._explained("read"):
            found = self._checked(table, self.client.get_table(self.dataset.table(table.name), **CALL))
        return len(found) > 0

    def _make_dataset(self) -> None:
        with self._explained("create"):
            self._ensure_dataset()

    def _make(self, table: Table) -> None:
        with self._explained("create"):
            self._ensure(table)

    def replace_month(self, files: CleanFiles) -> LoadResult:
        """See the base; but load jobs have no common transaction, and a table is compared after it was replaced.

        The rejected rows come first: whoever sees a month's new trips finds what was rejected from them.
        """
        trips, rejected = trips_table(files.dataset_month.dataset), rejected_table(files.dataset_month.dataset)
        expected = {}
        for table, path in ((rejected, files.rejected), (trips, files.trips)):
            expected[table] = parquet_fingerprint(table.columns, path)
            check_file(table, path)
        with self._explained("load"):
            self._ensure_dataset()
            run = secrets.token_hex(4)
            self._load(self._ensure(rejected), files.rejected, files.rejected_uri, files, run)
            self._check_arrived(rejected, files, expected[rejected])
            fault_point("bigquery_rejected_loaded")
            job = self._load(self._ensure(trips), files.trips, files.trips_uri, files, run)
            self._check_arrived(trips, files, expected[trips])
            fault_point("bigquery_loaded")
        links = self.links(trips.name) | {"bigquery_job": self._job_link(job)}
        return LoadResult(expected[trips].rows, expected[rejected].rows, expected[trips], links)

    def replace_reference(self, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        names = [column.name for column in table.columns]
        wanted = described(table, self.dataset)
        config = bq.LoadJobConfig(
            schema=wanted.schema, write_disposition=bq.WriteDisposition.WRITE_TRUNCATE, labels=LABELS
        )
        with self._explained("load"):
            self._ensure_dataset()
            self._ensure(table)
            records = [dict(zip(names, row, strict=True)) for row in rows]
            options: dict[str, Any] = {"location": self.location, "job_config": config}
            self._finish(self.client.load_table_from_json(records, wanted, timeout=CALL["timeout"], **options))

    def loaded_months(self, table: str) -> dict[str, StoredRows]:
        # Asked often and answered from BigQuery's cache, at no cost, until the table changes.
        return self._loaded(table, "TRUE")

    def loaded_month(self, table: str, dataset_month: DatasetMonth) -> StoredRows | None:
        where = f"file_month = DATE '{dataset_month.month.first_day}'"
        return self._loaded(table, where).get(str(dataset_month.month))

    def fingerprint(self, table: Table, dataset_month: DatasetMonth) -> Fingerprint:
        relation = f"`{self._name(table.name)}` WHERE file_month = DATE '{dataset_month.month.first_day}'"
        with self._explained("read"):
            (row,) = self._query(fingerprint_select(table.columns, relation, "CHAR_LENGTH"))
        return fingerprint_of(table.columns, row)

    def _loaded(self, table: str, where: str) -> dict[str, StoredRows]:
        query = (
            "SELECT FORMAT_DATE('%Y-%m', file_month), COUNT(*), ARRAY_AGG(DISTINCT file_version ORDER BY file_version) "
            f"FROM `{self._name(table)}` WHERE {where} GROUP BY 1 ORDER BY 1"
        )
        with self._explained("read"):
            try:
                return {month: StoredRows(rows, tuple(versions)) for month, rows, versions in self._query(query)}
            except api.NotFound:
                return {}

    def _query(self, sql: str) -> list[tuple[Any, ...]]:
        config = bq.QueryJobConfig(maximum_bytes_billed=QUERY_BYTES, labels=LABELS)
        rows = self.client.query_and_wait(
            sql,
            job_config=config,
            location=self.location,
            api_timeout=CALL["timeout"],
            wait_timeout=JOB_SECONDS,
            retry=CALL["retry"],
            job_retry=JOB_RETRY,
        )
        return [row.values() for row in rows]

    def _check_arrived(self, table: Table, files: CleanFiles, expected: Fingerprint) -> None:
        arrived = self.fingerprint(table, files.dataset_month)
        if arrived == expected:
            return
        loaded = self.loaded_month(table.name, files.dataset_month)
        if loaded and loaded.file_versions != (files.file_version,):
            raise Conflict(f"{files.dataset_month} was cleaned again while it was loaded.", "Run the month again.")
        raise IntegrityError(
            f"{table.name} does not hold what its file does ({'; '.join(arrived.differences(expected)[:5])}).",
            "Materialize the month again with force. If it stays so, please report it.",
        )

    def _ensure_dataset(self) -> None:
        try:
            found = self.client.get_dataset(self.dataset, **CALL)
        except api.NotFound:
            dataset = bq.Dataset(self.dataset)
            dataset.location, dataset.labels = self.location, LABELS
            dataset.description = "New York's taxi trips, every month since 2009."
            with suppress(api.Conflict):  # not by exists_ok, which then asks without a timeout
                self.client.create_dataset(dataset, **CALL)
            found = self.client.get_dataset(self.dataset, **CALL)
        if found.location.casefold() != self.location.casefold():
            raise WarehouseError(
                f"The dataset {self.dataset.dataset_id} is in {found.location}, not in {self.location}.",
                f"Write ?location={found.location} in {self.variable}, or take another dataset.",
            )

    def _ensure(self, table: Table) -> bq.Table:
        """The table, created if it is missing, widened by the columns the contract has gained."""
        wanted = described(table, self.dataset)
        try:
            found = self.client.get_table(wanted, **CALL)
        except api.NotFound:
            with suppress(api.Conflict):
                self.client.create_table(wanted, **CALL)
            found = self.client.get_table(wanted, **CALL)
        if missing := self._checked(table, found):
            found.schema = [*found.schema, *missing]
            found = self.client.update_table(found, ["schema"], **CALL)
        return found

    def _checked(self, table: Table, found: bq.Table) -> list[bq.SchemaField]:
        """The fields that the table lacks; raises `WarehouseError` where what it has clashes with the contract."""
        wanted = described(table, self.dataset)
        existing = {field.name: type_of(field) for field in found.schema}
        for field in wanted.schema:
            if existing.get(field.name, type_of(field)) != type_of(field):
                problem = f"{self._name(table.name)}.{field.name} is {existing[field.name]}, not {type_of(field)}."
                raise WarehouseError(problem, RELOADED)
        month = found.time_partitioning
        if table.by_month and (not month or (month.type_, month.field) != ("MONTH", "file_month")):
            raise WarehouseError(f"{self._name(table.name)} is not partitioned by month of file_month.", RELOADED)
        return [field for field in wanted.schema if field.name not in existing]

    def _load(self, table: bq.Table, path: Path, uri: str, files: CleanFiles, run: str) -> bq.LoadJob:
        """Replace one partition; a job that failed for a passing reason is followed by another one."""
        month = str(files.dataset_month.month)
        destination = self.dataset.table(f"{table.table_id}${month.replace('-', '')}")
        config = bq.LoadJobConfig(
            source_format=bq.SourceFormat.PARQUET,
            schema=table.schema,
            decimal_target_types=[bq.DecimalTargetType.NUMERIC],
            create_disposition=bq.CreateDisposition.CREATE_NEVER,
            write_disposition=bq.WriteDisposition.WRITE_TRUNCATE,
            labels={**LABELS, "dataset": str(files.dataset_month.dataset)},
        )
        for attempt in Retrying(
            retry=retry_if_exception_type(WarehouseBusy),
            stop=stop_after_attempt(LOAD_ATTEMPTS),
            wait=wait_random_exponential(BACK_OFF_SECONDS, 60),
            reraise=True,
        ):
            with attempt:
                number = attempt.retry_state.attempt_number
                job_id = f"taxi-{table.table_id}-{month}-{files.file_version}-{run}-{number}"
                options: dict[str, Any] = {"job_id": job_id, "location": self.location, "job_config": config}
                try:
                    if uri.startswith("gs://"):
                        job = self.client.load_table_from_uri(uri, destination, **CALL, **options)
                    else:
                        with path.open("rb") as file:
                            size = path.stat().st_size
                            job = self.client.load_table_from_file(file, destination, size=size, **options)
                except api.Conflict:  # ours, by the run in its name: the answer to the first request was lost
                    found = self.client.get_job(job_id, location=self.location, **CALL)
                    job = cast(bq.LoadJob, found)
                fault_point("bigquery_submitted")
                self._finish(job)
        return job

    def _finish(self, job: bq.LoadJob) -> None:
        try:
            job.result(CALL["retry"], JOB_SECONDS)
        except TimeoutError as error:
            raise WarehouseError(f"A load still runs after an hour: {self._job_link(job)}.", "Cancel it.") from error
        except api.GoogleAPICallError as error:
            if not job.error_result:
                raise
            reason, message = job.error_result.get("reason", ""), job.error_result.get("message", "")
            problem = f"The load job {job.job_id} failed: {reason}: {message}"
            if TRANSIENT.fullmatch(reason):
                raise WarehouseBusy(problem, "Try again later.") from error
            remedy = {
                "quotaExceeded": "Run it again when the quota is renewed, or ask for more.",
                "accessDenied": "Grant the account roles/storage.objectViewer on the lake's bucket as well.",
                "notFound": f"Check that bucket and dataset exist and {self.variable} names the dataset's location.",
            }.get(reason, f"See {self._job_link(job)}.")
            raise WarehouseError(problem, remedy) from error

    def _explained(self, action: str) -> AbstractContextManager[None]:
        return explained(action, self.url, self.variable)

    def _name(self, table: str) -> str:
        return f"{self.dataset.project}.{self.dataset.dataset_id}.{table}"

    def _job_link(self, job: bq.LoadJob) -> str:
        found = f"j=bq:{job.location or self.location}:{job.job_id}&page=queryresults"
        return f"https://console.cloud.google.com/bigquery?project={job.project}&{found}"


def connect(
    url: str, variable: str = "TAXI_WAREHOUSE_URL", client_of: Callable[[str, str], bq.Client] | None = None
) -> BigQueryWarehouse:
    """The warehouse at `bigquery://project/dataset?location=US`.

    Its client comes from `client_of(project, location)`, else from the credentials of the environment.
    """
    # Of brackets and letters beyond ASCII urllib makes an error that shows the whole URL.
    parts = urlsplit(url if re.fullmatch(r"[ -Z^-~]*", url) else "")
    options = dict(parse_qsl(parts.query))
    location = options.pop("location", "US")
    project, dataset = parts.netloc, parts.path.removeprefix("/")
    named = re.fullmatch(r"([a-z0-9.-]+:)?[a-z][a-z0-9-]+/\w{1,1024}", f"{project}/{dataset}", re.ASCII)
    if not named or options or parts.fragment or not re.fullmatch(r"[A-Za-z0-9-]+", location):
        raise SettingError(
            f"{variable} names no BigQuery dataset.", "It takes bigquery://project/dataset?location=US, for example."
        )
    credentials = AnonymousCredentials() if os.environ.get("BIGQUERY_EMULATOR_HOST") else None
    with explained("open", url, variable):
        if client_of and not credentials:
            client = client_of(project, location)
        else:
            client = bq.Client(project=project, location=location, credentials=credentials)
    return BigQueryWarehouse(client, project, dataset, location, variable)


@contextmanager
def explained(action: str, url: str, variable: str) -> Iterator[None]:
    """Turn what Google's client raises into the warehouse's errors."""
    problem = f"Cannot {action} {url}"
    try:
        yield
    except (api.Unauthorized, auth.DefaultCredentialsError, auth.RefreshError) as error:
        remedy = "Run `gcloud auth application-default login`, or give the machine a service account."
        raise WarehouseError(f"{problem}: no Google credentials are accepted for {variable}.", remedy) from error
    except (
        api.TooManyRequests,
        api.ServerError,
        api.RetryError,
        api.PreconditionFailed,  # the table was changed meanwhile, perhaps by our own request whose answer was lost
        auth.TransportError,
        requests.RequestException,
        ConnectionError,
        TimeoutError,
    ) as error:
        raise WarehouseBusy(f"{problem}: BigQuery does not answer ({error}).", "Try again later.") from error
    except api.Forbidden as error:
        remedy = (
            "Grant the account roles/bigquery.jobUser on the project and roles/bigquery.dataEditor on the dataset "
            f"that {variable} names."
        )
        raise WarehouseError(f"{problem}: permission is missing ({error.message}).", remedy) from error
    except api.GoogleAPICallError as error:
        raise WarehouseError(f"{problem}: {error.message}.", f"Check project and dataset in {variable}.") from error
