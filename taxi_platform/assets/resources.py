"""The resources: each is one URL, and opens into a source, a lake or a warehouse.

An asset opens them itself, inside its step, so that a wrong URL or missing credentials become a failure with a remedy.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from taxi_platform.assets.failures import waits_in
from taxi_platform.assets.names import PROCESS_RUN_TAG, PROCESS_TAG
from taxi_platform.assets.partitions import dataset_months_of
from taxi_platform.lake import open_lake
from taxi_platform.lake.base import Lake
from taxi_platform.sources import open_source
from taxi_platform.sources.base import Source
from taxi_platform.trips.engine import Engine
from taxi_platform.trips.locks import working_on
from taxi_platform.trips.months import Dataset
from taxi_platform.trips.processes import process_name
from taxi_platform.warehouse import open_warehouse
from taxi_platform.warehouse.base import Warehouse


class SourceResource(dg.ConfigurableResource):
    """Where files come from."""

    url: str = Field(description="TAXI_SOURCE_URL: sample://, tlc://, course://, or a template with {month}.")
    datasets: list[str] = Field(default_factory=lambda: [d.value for d in Dataset], description="TAXI_DATASETS.")

    def open(self) -> Source:
        return open_source(self.url, [Dataset.parse(name) for name in self.datasets])


class LakeResource(dg.ConfigurableResource):
    """Where files live, and what cleaning may use. A bucket's client is dagster-gcp's `GCSResource`."""

    url: str = Field(description="TAXI_LAKE_URL: file:///folder or gs://bucket/prefix.")
    home: str = Field(description="TAXI_HOME: where work in progress is stored and spilled.")
    memory_limit: str = Field(default="512MB", description="TAXI_MEMORY_LIMIT.")
    threads: int = Field(default=2, description="TAXI_THREADS.")

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["LakeResource"]:
        """Hold the locks of the run's months until the run ends.

        Resources are opened before a step claims its place in a pool, so that a run that waits for another run of its
        month keeps no third one from working.
        """
        run, instance = context.run, context.instance
        with ExitStack() as stack:
            if run and instance:
                instance.add_run_tags(run.run_id, process_tags(run.run_id))
                stack.enter_context(working_on(f"run {run.run_id[:8]}"))
                with waits_in(context.log):
                    for dataset_month in dataset_months_of(run):
                        stack.enter_context(self.open().lock(dataset_month))
            yield self

    def open(self) -> Lake:
        if not self.url.startswith("gs://"):
            return open_lake(self.url)
        from taxi_platform.lake.gcs import connect

        return connect(self.url, _storage_client(os.environ.get("STORAGE_EMULATOR_HOST")))

    @property
    def work_home(self) -> Path:
        return Path(self.home)

    @property
    def engine(self) -> Engine:
        return Engine(self.memory_limit, self.threads)


class WarehouseResource(dg.ConfigurableResource):
    """Where tables live. BigQuery's client is dagster-gcp's `BigQueryResource`."""

    url: str = Field(description="A URL: duckdb:///…, bigquery://… or postgresql://…")
    variable: str = Field(default="TAXI_WAREHOUSE_URL", description="The variable the URL came from, for messages.")

    def open(self) -> Warehouse:
        if not self.url.startswith("bigquery://"):
            return open_warehouse(self.url, self.variable)
        from taxi_platform.warehouse.bigquery import connect

        return connect(self.url, self.variable, _bigquery_client)


def process_tags(run_id: str) -> dict[str, str]:
    """The tags that tell whether the run's process, this one, still lives."""
    return {PROCESS_TAG: process_name(os.getpid()), PROCESS_RUN_TAG: run_id}


@cache
def _storage_client(emulator: str | None) -> Any:
    """One for the process: each signs in and opens connections of its own."""
    from dagster_gcp import GCSResource  # takes two seconds and 200 MB: imported only if it is used

    return GCSResource().get_client()


def _bigquery_client(project: str, location: str) -> Any:
    from dagster_gcp import BigQueryResource

    with BigQueryResource(project=project, location=location).get_client() as client:
        return client
