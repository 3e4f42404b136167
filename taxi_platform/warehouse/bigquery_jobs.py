"""Query and load jobs of BigQuery: how long to wait, which failures to retry, and links to jobs in the console."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

from google.api_core import exceptions as api
from google.cloud import bigquery as bq
from google.cloud.bigquery.retry import DEFAULT_JOB_RETRY, DEFAULT_RETRY
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from taxi_platform.trips.errors import WarehouseBusy, WarehouseError
from taxi_platform.trips.faults import fault_point
from taxi_platform.warehouse.bigquery_schema import LABELS
from taxi_platform.warehouse.tables import MartFile, TableFile

Job: TypeAlias = Any
"""A `LoadJob` or a `QueryJob` of Google's client, which has no type for what they share."""

TRANSIENT = re.compile(r"(job)?(backendError|internalError|rateLimitExceeded)", re.IGNORECASE)
"""Reasons of a failed job that another job may not meet. Not quotaExceeded: every failed load counts toward it."""

LOAD_ATTEMPTS = 4
BACK_OFF_SECONDS = 5.0
JOB_SECONDS = 3600
SERVICE_WAIT_SECONDS = 120
"""How long to retry a service that does not answer; the client's own defaults are 10 minutes, and 40 for a query."""

CALL: dict[str, Any] = {"timeout": 60, "retry": DEFAULT_RETRY.with_timeout(SERVICE_WAIT_SECONDS)}
"""Options of every API call."""

JOB_RETRY = DEFAULT_JOB_RETRY.with_timeout(SERVICE_WAIT_SECONDS)
QUERY_BYTES = 200 * 10**9
"""A query that would read more is refused; the months of the largest table take an estimated 35 GB."""


class BigQueryJobs:
    """The jobs of one session. `variable` is the setting that the URL came from, for messages."""

    def __init__(self, client: bq.Client, location: str, variable: str) -> None:
        self.client = client
        self.location = location
        self.variable = variable
        self._run = secrets.token_hex(4)
        self._numbers = count(1)

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a query and return its rows; unchanged tables are answered from BigQuery's cache at no cost."""
        rows = self.client.query_and_wait(
            statement,
            job_config=bq.QueryJobConfig(maximum_bytes_billed=QUERY_BYTES, labels=LABELS),
            location=self.location,
            api_timeout=CALL["timeout"],
            wait_timeout=JOB_SECONDS,
            retry=CALL["retry"],
            job_retry=JOB_RETRY,
        )
        return [row.values() for row in rows]

    def load_month(self, table: bq.Table, file: TableFile) -> Job:
        """Replace one month's partition of the table; a job with a transient failure is followed by another one."""
        config = bq.LoadJobConfig(
            source_format=bq.SourceFormat.PARQUET,
            schema=table.schema,
            decimal_target_types=[bq.DecimalTargetType.NUMERIC],
            create_disposition=bq.CreateDisposition.CREATE_NEVER,
            write_disposition=bq.WriteDisposition.WRITE_TRUNCATE,
            labels={**LABELS, "dataset": str(file.dataset_month.dataset)},
        )
        return self._replace_month(
            table, file, lambda partition, job_id: self._start(file.uri, file.path, partition, job_id, config)
        )

    def query_month(self, table: bq.Table, file: MartFile, statement: str) -> Job:
        """Replace one month's partition of the table by the rows of a query, in the same way."""

        def start(partition: bq.TableReference, job_id: str) -> Job:
            config = bq.QueryJobConfig(
                destination=partition,
                create_disposition=bq.CreateDisposition.CREATE_NEVER,
                write_disposition=bq.WriteDisposition.WRITE_TRUNCATE,
                maximum_bytes_billed=QUERY_BYTES,
                labels={**LABELS, "dataset": str(file.dataset_month.dataset)},
            )
            options: dict[str, Any] = {"job_id": job_id, "location": self.location, "job_config": config}
            return self._of_this_run(job_id, lambda: self.client.query(statement, job_retry=None, **CALL, **options))

        return self._replace_month(table, file, start)

    def _replace_month(self, table: bq.Table, file: TableFile, start: Callable[[bq.TableReference, str], Job]) -> Job:
        """Run the job that `start` begins, for a partition and by a job's id, until it has no transient failure."""
        month = file.dataset_month.month
        dataset = bq.DatasetReference(table.project, table.dataset_id)
        partition = dataset.table(f"{table.table_id}${month.first_day:%Y%m}")
        for attempt in Retrying(
            retry=retry_if_exception_type(WarehouseBusy),
            stop=stop_after_attempt(LOAD_ATTEMPTS),
            wait=wait_random_exponential(BACK_OFF_SECONDS, 60),
            reraise=True,
        ):
            with attempt:
                job_id = f"taxi-{table.table_id}-{month}-{file.file_version}-{self._run}-{next(self._numbers)}"
                job = start(partition, job_id)
                fault_point("bigquery_submitted")
                self.finish(job)
        return job

    def replace_rows(self, table: bq.Table, records: list[dict[str, Any]]) -> None:
        """Replace all rows of a small table."""
        config = bq.LoadJobConfig(
            schema=table.schema, write_disposition=bq.WriteDisposition.WRITE_TRUNCATE, labels=LABELS
        )
        self.finish(
            self.client.load_table_from_json(
                records, table, timeout=CALL["timeout"], location=self.location, job_config=config
            )
        )

    def finish(self, job: Job) -> None:
        """Wait for a job that writes; raises `WarehouseBusy` for a transient failure, else `WarehouseError`."""
        try:
            job.result(retry=CALL["retry"], timeout=JOB_SECONDS)
        except TimeoutError as error:
            problem = f"A job is still running after an hour: {self.link(job)}."
            raise WarehouseError(problem, "Cancel it there.") from error
        except api.GoogleAPICallError as error:
            if not job.error_result:
                raise
            reason, message = job.error_result.get("reason", ""), job.error_result.get("message", "")
            problem = f"The job {job.job_id} failed: {reason}: {message}"
            if TRANSIENT.fullmatch(reason):
                raise WarehouseBusy(problem, "Try again later.") from error
            remedies = {
                "quotaExceeded": "Run it again when the quota is renewed, or ask for more.",
                "accessDenied": "Grant the account roles/storage.objectViewer on the lake's bucket as well.",
                "notFound": f"Check that bucket and dataset exist and that {self.variable} has the dataset's location.",
            }
            raise WarehouseError(problem, remedies.get(reason, f"See {self.link(job)}.")) from error

    def link(self, job: Job) -> str:
        """The job's page in Google's console."""
        query = f"j=bq:{job.location or self.location}:{job.job_id}&page=queryresults"
        return f"https://console.cloud.google.com/bigquery?project={job.project}&{query}"

    def _start(self, uri: str, path: Path, partition: bq.TableReference, job_id: str, config: bq.LoadJobConfig) -> Job:
        """Start a load from the bucket, or from this machine if the lake is a folder."""
        options: dict[str, Any] = {"job_id": job_id, "location": self.location, "job_config": config}
        if uri.startswith("gs://"):
            return self._of_this_run(job_id, lambda: self.client.load_table_from_uri(uri, partition, **CALL, **options))
        with path.open("rb") as file:
            size = path.stat().st_size
            return self._of_this_run(
                job_id, lambda: self.client.load_table_from_file(file, partition, size=size, **options)
            )

    def _of_this_run(self, job_id: str, start: Callable[[], Job]) -> Job:
        try:
            return start()
        except api.Conflict:  # the job exists, and its id is unique to this run: only the first answer was lost
            return self.client.get_job(job_id, location=self.location, **CALL)
