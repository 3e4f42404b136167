"""The warm process, places of every kind, and what undisturbed runs publish."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from taxi_platform_tests.support.emulators.fixtures import bigquery_host, storage_host  # noqa: F401
from taxi_platform_tests.support.installations import Installation, Version, new_installation
from taxi_platform_tests.support.worker_process import DONE, WorkerServer, worker_server
from taxi_platform_tests.warehouse.conftest import server_uri  # noqa: F401

OpenInstallation = Callable[[str, str], Installation]
Undisturbed = Callable[[int], Version]


@pytest.fixture(scope="session")
def workers():
    with worker_server() as workers:
        yield workers


@pytest.fixture(scope="session")
def command_workers():
    """The same for the whole of `taxi ingest`, Dagster included."""
    with worker_server(
        "dagster", "dagster_gcp", "dagster._core.execution.api", "taxi_platform.definitions", "taxi_platform.cli"
    ) as workers:
        yield workers


@pytest.fixture
def open_installation(request, monkeypatch, tmp_path_factory) -> OpenInstallation:
    """Makes an empty place; `lake` is local or gcs, `warehouse` duckdb, postgres or bigquery."""

    def make(lake: str, warehouse: str) -> Installation:
        hosts = {}
        if lake == "gcs":
            hosts["STORAGE_EMULATOR_HOST"] = request.getfixturevalue("storage_host")
        if warehouse == "bigquery":
            hosts["BIGQUERY_EMULATOR_HOST"] = request.getfixturevalue("bigquery_host")
        for name, value in hosts.items():
            monkeypatch.setenv(name, value)
        server = request.getfixturevalue("server_uri") if warehouse == "postgres" else warehouse
        return new_installation(tmp_path_factory.mktemp("place"), lake, server, hosts)

    return make


@pytest.fixture(scope="session")
def survivors() -> dict[tuple[str, str], Installation]:
    """Places with a month in them that have outlived earlier kills, by lake and warehouse, for the next one."""
    return {}


@pytest.fixture(scope="session")
def undisturbed(workers: WorkerServer, tmp_path_factory) -> Undisturbed:
    """What one undisturbed run of the sample of so many rows publishes, on the embedded default."""
    known: dict[int, Version] = {}

    def version(rows: int) -> Version:
        if rows not in known:
            installation = new_installation(tmp_path_factory.mktemp("undisturbed"), "local", "duckdb", {})
            (ending,) = workers.run(installation.order(rows))
            assert ending.status == DONE, ending.told
            assert installation.litter() == []
            known[rows] = installation.version()
        return known[rows]

    return version
