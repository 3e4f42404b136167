"""The resources a person configures: each is one URL, opened into what stands behind it."""

from pathlib import Path

import dagster as dg
from pydantic import Field

from taxi_platform.lake import open_lake
from taxi_platform.lake.base import Lake
from taxi_platform.sources import open_source
from taxi_platform.sources.base import Source
from taxi_platform.trips.cleaning import Engine
from taxi_platform.trips.months import Dataset
from taxi_platform.warehouse import open_warehouse
from taxi_platform.warehouse.base import Warehouse


class SourceResource(dg.ConfigurableResource):
    """Where files come from."""

    url: str = Field(description="TAXI_SOURCE_URL: sample://, tlc://, course://, or a template with {month}.")
    datasets: list[str] = Field(default_factory=lambda: [d.value for d in Dataset], description="TAXI_DATASETS.")

    def open(self) -> Source:
        return open_source(self.url, [Dataset.parse(name) for name in self.datasets])


class LakeResource(dg.ConfigurableResource):
    """Where files live, and the engine that cleans them."""

    url: str = Field(description="TAXI_LAKE_URL: file:///folder.")
    home: str = Field(description="TAXI_HOME: where work in progress is kept and spilled.")
    memory_limit: str = Field(default="512MB", description="TAXI_MEMORY_LIMIT.")
    threads: int = Field(default=2, description="TAXI_THREADS.")

    def open(self) -> Lake:
        return open_lake(self.url)

    @property
    def work_home(self) -> Path:
        return Path(self.home)

    @property
    def engine(self) -> Engine:
        return Engine(self.memory_limit, self.threads)


class WarehouseResource(dg.ConfigurableResource):
    """Where tables live."""

    url: str = Field(description="A warehouse URL: duckdb:///file.duckdb.")
    variable: str = Field(default="TAXI_WAREHOUSE_URL", description="The variable the URL came from, for messages.")

    def open(self) -> Warehouse:
        return open_warehouse(self.url, self.variable)
