"""The warehouse as a BigQuery dataset: one load job replaces one month of one table."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from google.api_core import exceptions as api
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery as bq

from taxi_platform.trips.contract import Column
from taxi_platform.trips.errors import SettingError, WarehouseError
from taxi_platform.trips.faults import fault_point
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.trips.plan import Change
from taxi_platform.warehouse import bigquery_jobs as jobs
from taxi_platform.warehouse.base import DROP_TABLE, Action, Warehouse
from taxi_platform.warehouse.bigquery_errors import translated_errors
from taxi_platform.warehouse.bigquery_schema import LABELS, described, sql_type
from taxi_platform.warehouse.row_hash import IN_BIGQUERY
from taxi_platform.warehouse.session import MissingTable, Session, StagedRows, month_relation
from taxi_platform.warehouse.tables import MartFile, Table, TableFile

VIEW_VERSION = "version"
"""The label that a view's version is in."""


class BigQuerySession(Session):
    """One use of the dataset. Load jobs have no common transaction: a table is compared after it was replaced."""

    dialect = "bigquery"

    def __init__(self, warehouse: BigQueryWarehouse) -> None:
        self.warehouse = warehouse
        self.client, self.dataset = warehouse.client, warehouse.dataset
        self.jobs = jobs.BigQueryJobs(warehouse.client, warehouse.location, warehouse.variable)

    def name(self, table: str) -> str:
        return f"`{self.warehouse.full_name(table)}`"

    def type_of(self, column: Column) -> str:
        return column.column_type.bigquery_sql

    def columns(self, table: Table) -> dict[str, str]:
        try:
            existing = self._existing(table)
        except api.NotFound:
            return {}
        month = existing.time_partitioning
        if table.by_month and (not month or (month.type_, month.field) != ("MONTH", "file_month")):
            problem = f"{self.warehouse.full_name(table.name)} is not partitioned by month of file_month."
            raise WarehouseError(problem, DROP_TABLE)
        return {field.name: sql_type(field) for field in existing.schema}

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        try:
            return self.jobs.query(statement)
        except api.NotFound as error:
            remedy = f"Check project and dataset in {self.warehouse.variable}, or load a month."
            raise MissingTable(f"Cannot read {self.warehouse.url}: {error.message}.", remedy) from error

    def relations(self) -> dict[str, str | None]:
        try:
            items = list(self.client.list_tables(self.dataset, **jobs.CALL))
        except api.NotFound:
            return {}
        return {item.table_id: item.labels.get(VIEW_VERSION) if item.table_type == "VIEW" else None for item in items}

    def replace_view(self, view: Table, select: str, version: str) -> None:
        columns = ", ".join(f"`{c.name}` OPTIONS (description = {_text(c.description)})" for c in view.columns)
        versioned = LABELS | {VIEW_VERSION: version}
        labels = ", ".join(f"({_text(key)}, {_text(value)})" for key, value in versioned.items())
        self.execute(
            f"CREATE OR REPLACE VIEW {self.name(view.name)} ({columns}) "
            f"OPTIONS (description = {_text(view.description)}, labels = [{labels}]) AS {select}"
        )

    def create_or_widen(self, table: Table) -> None:
        wanted = described(table, self.dataset)
        try:
            existing = self._existing(table)
        except api.NotFound:
            with suppress(api.Conflict):
                self.client.create_table(wanted, **jobs.CALL)
            existing = self._existing(table)
        names = {field.name for field in existing.schema}
        if missing := [field for field in wanted.schema if field.name not in names]:
            existing.schema = [*existing.schema, *missing]
            self.client.update_table(existing, ["schema"], **jobs.CALL)

    @contextmanager
    def transaction(self, dataset_month: DatasetMonth) -> Iterator[None]:
        yield
        fault_point("bigquery_loaded")

    @contextmanager
    def stage(self, file: TableFile) -> Iterator[StagedRows]:
        """See the base; but the job publishes the rows at once, and a failed comparison leaves the new month."""
        job = self.jobs.load_month(self._existing(file.table), file)
        links = {"bigquery_job": self.jobs.link(job)}
        yield StagedRows(month_relation(self, file.table, file.dataset_month), links)
        if file.is_rejected:
            fault_point("bigquery_rejected_loaded")

    def insert_month(self, file: MartFile) -> None:
        """See the base; but the job publishes the rows at once."""
        self.jobs.query_month(self._existing(file.table), file, self.query_of(file))

    def replace_rows(self, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
        names = [column.name for column in table.columns]
        records = [dict(zip(names, row, strict=True)) for row in rows]
        self.jobs.replace_rows(described(table, self.dataset), records)

    def ensure_dataset(self) -> None:
        """Create the dataset if it is missing; raises `WarehouseError` if it is in another location."""
        location = self.warehouse.location
        try:
            existing = self.client.get_dataset(self.dataset, **jobs.CALL)
        except api.NotFound:
            dataset = bq.Dataset(self.dataset)
            dataset.location, dataset.labels = location, LABELS
            dataset.description = "New York's taxi trips, every month since 2009."
            with suppress(api.Conflict):  # not by exists_ok, which then asks without a timeout
                self.client.create_dataset(dataset, **jobs.CALL)
            existing = self.client.get_dataset(self.dataset, **jobs.CALL)
        if existing.location.casefold() != location.casefold():
            raise WarehouseError(
                f"The dataset {self.dataset.dataset_id} is in {existing.location}, not in {location}.",
                f"Write ?location={existing.location} in {self.warehouse.variable}, or use another dataset.",
            )

    def has_dataset(self) -> bool:
        """Whether the dataset exists, wherever it is."""
        try:
            self.client.get_dataset(self.dataset, **jobs.CALL)
        except api.NotFound:
            return False
        return True

    def _existing(self, table: Table) -> bq.Table:
        return self.client.get_table(self.dataset.table(table.name), **jobs.CALL)


class BigQueryWarehouse(Warehouse):
    """Tables in a dataset, partitioned by `file_month`. `variable` is the setting the URL came from, for messages."""

    row_hash = IN_BIGQUERY

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

    def full_name(self, table: str) -> str:
        """The table's name with project and dataset."""
        return f"{self.dataset.project}.{self.dataset.dataset_id}.{table}"

    def example_query(self, table: str) -> str:
        query = f"SELECT file_month, COUNT(*) AS trips FROM `{self.full_name(table)}` GROUP BY 1 ORDER BY 1"
        return f"bq --project_id={self.dataset.project} query --use_legacy_sql=false '{query}'"

    def links(self, table: str) -> dict[str, str]:
        path = f"p={self.dataset.project}&d={self.dataset.dataset_id}&t={table}&page=table"
        return {"bigquery_table": f"https://console.cloud.google.com/bigquery?project={self.dataset.project}&{path}"}

    def plan(self, tables: Sequence[Table]) -> Iterator[Change]:
        """See the base; the dataset comes first."""
        with self.session("read") as session:
            is_missing = not session.has_dataset()
        yield Change(f"dataset {self.dataset.dataset_id} in {self.location}", is_missing, self._create_dataset)
        yield from super().plan(tables)

    @contextmanager
    def session(self, action: Action) -> Iterator[BigQuerySession]:
        with translated_errors(action, self.url, self.variable):
            session = BigQuerySession(self)
            if action != "read":
                session.ensure_dataset()
            yield session

    def _create_dataset(self) -> None:
        with self.session("create"):
            pass  # opening it creates the dataset


def connect(
    url: str, variable: str = "TAXI_WAREHOUSE_URL", client_of: Callable[[str, str], bq.Client] | None = None
) -> BigQueryWarehouse:
    """The warehouse at `bigquery://project/dataset?location=US`; raises `SettingError` for any other URL.

    Its client is `client_of(project, location)`, or one with the credentials of the environment.
    """
    # For brackets and letters beyond ASCII, urllib raises an error that shows the whole URL.
    parts = urlsplit(url if re.fullmatch(r"[ -Z^-~]*", url) else "")
    options = dict(parse_qsl(parts.query))
    location = options.pop("location", "US")
    project, dataset = parts.netloc, parts.path.removeprefix("/")
    match = re.fullmatch(r"([a-z0-9.-]+:)?[a-z][a-z0-9-]+/\w{1,1024}", f"{project}/{dataset}", re.ASCII)
    if not match or options or parts.fragment or not re.fullmatch(r"[A-Za-z0-9-]+", location):
        raise SettingError(
            f"{variable} does not name a BigQuery dataset.",
            "It takes bigquery://project/dataset?location=US, for example.",
        )
    credentials = AnonymousCredentials() if os.environ.get("BIGQUERY_EMULATOR_HOST") else None
    with translated_errors("open", url, variable):
        if client_of and not credentials:
            client = client_of(project, location)
        else:
            client = bq.Client(project=project, location=location, credentials=credentials)
    return BigQueryWarehouse(client, project, dataset, location, variable)


def _text(value: str) -> str:
    """A string literal; JSON writes what BigQuery reads."""
    return json.dumps(value)
