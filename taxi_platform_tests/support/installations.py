"""A lake and a warehouse whose runs are killed, and what readers see in them."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from taxi_platform.ingestion import steps
from taxi_platform.lake import open_lake
from taxi_platform.lake.base import Lake
from taxi_platform.lake.mart_month import MartMonth
from taxi_platform.lake.months import LakeMonth
from taxi_platform.marts.tables import mart_names, mart_tables, mart_version
from taxi_platform.marts.views import VIEWS
from taxi_platform.trips.months import Dataset, DatasetMonth
from taxi_platform.warehouse import open_warehouse
from taxi_platform.warehouse.base import StoredRows, Warehouse, rejected_table, trips_table, zones_table
from taxi_platform_tests.support.worker_process import Order

MONTH = "2020-04"
TABLES = (trips_table(Dataset.GREEN), rejected_table(Dataset.GREEN))
MARTS = [table.name for dataset in Dataset for table in mart_tables(dataset)]
TABLE_NAMES = [*(table.name for table in (*TABLES, zones_table())), *MARTS]
PUBLISHED = ("clean/", "rejected/", "reports/", "checksums/")


@dataclass(frozen=True)
class Version:
    """One version of a month as an undisturbed run publishes it: every object by its hash, every table by its rows.

    `raw` is the raw file's key. The manifest is left out: it holds earlier versions and times of day.
    """

    objects: dict[str, str]
    raw: str
    tables: tuple[StoredRows | None, ...]

    @property
    def file_version(self) -> str:
        """The version that the tables' rows carry."""
        (version,) = {version for stored in self.tables if stored for version in stored.file_versions}
        return version


@dataclass(frozen=True)
class Installation:
    """An installation: its work folder, lake and warehouse, and the variables that its processes need to reach them."""

    home: Path
    lake_url: str
    warehouse_url: str
    environment: dict[str, str] = field(default_factory=dict)

    @cached_property
    def lake(self) -> Lake:
        return open_lake(self.lake_url)

    @cached_property
    def warehouse(self) -> Warehouse:
        return open_warehouse(self.warehouse_url)

    def order(self, *rows: int, fault: str = "", **options: Any) -> Order:
        """An order to ingest here, in a process that is killed at the fault point if one is named."""
        environment = {**self.environment, **options.pop("settings", {}), "TAXI_FAULT_POINT": fault}
        home = str(options.pop("home", self.home))
        return Order(home, self.lake_url, self.warehouse_url, rows, environment=environment, **options)

    def settings(self, rows: int) -> dict[str, str]:
        """The variables with which the command `taxi` uses this installation."""
        return {
            "TAXI_HOME": str(self.home),
            "TAXI_SOURCE_URL": f"sample://?rows={rows}",
            "TAXI_LAKE_URL": self.lake_url,
            "TAXI_WAREHOUSE_URL": self.warehouse_url,
        }

    def version(self, month: str = MONTH) -> Version:
        """What is published now, once both tables have been compared with their files by every value."""
        dataset_month = DatasetMonth.parse("green", month)
        keys = [key for prefix in PUBLISHED for key in self.lake.list(f"{prefix}green/month={month}/")]
        raw = LakeMonth(self.lake, dataset_month).current_raw()
        assert raw is not None
        steps.check_table(self.lake, self.warehouse, dataset_month, self.home)
        return Version(
            {key: self.sha256(key) for key in keys},
            raw.key,
            self.loaded(month),
        )

    def sha256(self, key: str) -> str:
        with self.lake.open(key) as file:
            return hashlib.sha256(file.read()).hexdigest()

    def loaded(self, month: str = MONTH) -> tuple[StoredRows | None, ...]:
        dataset_month = DatasetMonth.parse("green", month)
        return tuple(self.warehouse.loaded_month(table.name, dataset_month) for table in TABLES)

    def marts(self, month: str = MONTH) -> list[tuple[str, ...] | None]:
        """The file versions that each mart's table holds of the month."""
        dataset_month = DatasetMonth.parse("green", month)
        stored = [self.warehouse.loaded_month(table.name, dataset_month) for table in mart_tables(Dataset.GREEN)]
        return [rows.file_versions if rows else None for rows in stored]

    def clean(self) -> dict[str, str]:
        """The clean file, and those that its footer names, by their hashes; empty where there is no clean file."""
        dataset_month = DatasetMonth.parse("green", MONTH)
        month = LakeMonth(self.lake, dataset_month)
        if self.lake.stat(month.clean_key) is None:
            return {}
        footer, _ = steps.published(self.lake, dataset_month)
        keys = {month.clean_key, *month.side_keys_of(footer.file_version)}
        return {key: self.sha256(key) for key in sorted(keys)}

    def raw_files(self, month: str = MONTH) -> list[str]:
        """The raw files that the manifest lists, in order; fails where one is missing or has another hash."""
        versions, _ = LakeMonth(self.lake, DatasetMonth.parse("green", month)).versions()
        assert all(self.sha256(key) == sha256 for key, sha256 in {(each.key, each.sha256) for each in versions})
        return [version.key for version in versions]

    def litter(self) -> list[str]:
        """All objects, files and tables that belong to no published month."""
        objects = [key for key in self.lake.list("") if not key.startswith(".locks/")]
        known = {"manifest.json", "trips.parquet"}
        for month in {key.split("/")[-2].removeprefix("month=") for key in objects if key.startswith("clean/")}:
            dataset_month = DatasetMonth.parse("green", month)
            in_lake = LakeMonth(self.lake, dataset_month)
            footer, _ = steps.published(self.lake, dataset_month)
            known |= in_lake.side_keys_of(footer.file_version)
            known |= set(self.raw_files(month))
            marts = MartMonth(
                self.lake, dataset_month, mart_names(Dataset.GREEN), footer.file_version, mart_version(Dataset.GREEN)
            )
            known |= {marts.key(name) for name in marts.names}
        left = [key for key in objects if not known & {key, key.rpartition("/")[2]}]
        return left + self._left_at_work() + self._left_in_warehouse()

    def _left_at_work(self) -> list[str]:
        return [str(path) for home in (self.home, *self.home.glob("machine*")) for path in home.glob("tmp/*")]

    def _left_in_warehouse(self) -> list[str]:
        if self.warehouse_url.startswith("postgres"):
            return _unknown_tables(self.warehouse_url)
        if self.warehouse_url.startswith("bigquery"):
            names = {table.table_id for table in self.warehouse.client.list_tables(self.warehouse.dataset)}
            return sorted(names.difference(TABLE_NAMES, VIEWS))
        path = self.warehouse.path
        # The log holds committed rows: the next writer merges it, and readers read it.
        own = {path.name + ending for ending in ("", ".lock", ".wal")}
        return [str(file) for file in path.parent.glob(f"{path.name}*") if file.name not in own]


def _unknown_tables(url: str) -> list[str]:
    """Tables of a PostgreSQL schema that are neither ours by name nor a month of one of ours."""
    import psycopg

    address, _, schema = url.partition("&schema=")
    query = (
        "SELECT relname::text FROM pg_class WHERE relnamespace = to_regnamespace(%s) AND relkind IN ('r', 'p') "
        "AND NOT relispartition AND relname <> ALL (%s)"
    )
    with psycopg.connect(address, autocommit=True) as con:
        return [name for (name,) in con.execute(query, [schema, TABLE_NAMES]).fetchall()]


def new_installation(folder: Path, lake: str, warehouse: str, hosts: dict[str, str]) -> Installation:
    """An empty installation.

    `lake` is `local` or `gcs`; `warehouse` is `duckdb`, `bigquery` or a PostgreSQL server's URI.
    `hosts` are the variables that name the emulators, which must be set in this process as well.
    """
    name = f"kill_{uuid.uuid4().hex[:8]}"
    home = folder / name
    home.mkdir(parents=True)
    if warehouse == "duckdb":
        warehouse = f"duckdb://{home}/warehouse.duckdb"
    elif warehouse == "bigquery":
        warehouse = f"bigquery://taxi-test/{name}?location=EU"
    else:
        warehouse = f"{warehouse}&schema={name}"
    if lake == "gcs":
        from google.cloud import storage

        storage.Client(project=None).create_bucket(name, project="taxi-test")
    return Installation(
        home, f"gs://{name}/some/prefix" if lake == "gcs" else (home / "lake").as_uri(), warehouse, hosts
    )
