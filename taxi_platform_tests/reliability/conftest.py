"""The worker servers, installations of every kind, and what undisturbed runs publish."""

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
    """The same for whole `taxi` commands, Dagster included."""
    with worker_server(
        "dagster", "dagster_gcp", "dagster._core.execution.api", "taxi_platform.definitions", "taxi_platform.cli"
    ) as workers:
        yield workers


@pytest.fixture
def open_installation(request, monkeypatch, tmp_path_factory) -> OpenInstallation:
    """Makes an empty installation; `lake` is local or gcs, `warehouse` duckdb, postgres or bigquery."""

    def make(lake: str, warehouse: str) -> Installation:
        hosts = {}
        if lake == "gcs":
            hosts["STORAGE_EMULATOR_HOST"] = request.getfixturevalue("storage_host")
        if warehouse == "bigquery":
            hosts["BIGQUERY_EMULATOR_HOST"] = request.getfixturevalue("bigquery_host")
        for name, value in hosts.items():
            monkeypatch.setenv(name, value)
        server = request.getfixturevalue("server_uri") if warehouse == "postgres" else warehouse
        return new_installation(tmp_path_factory.mktemp("installation"), lake, server, hosts)

    return make


@pytest.fixture(scope="session")
def survivors() -> dict[tuple[str, str], Installation]:
    """Lake and warehouse → an installation with a month that survived earlier kills, for the next test to use."""
    return {}


@pytest.fixture(scope="session")
def survivors_with_marts() -> dict[tuple[str, str], Installation]:
    """The same, of installations whose month has its marts too."""
    return {}


@pytest.fixture(scope="session")
def undisturbed(workers: WorkerServer, tmp_path_factory) -> Undisturbed:
    """What one undisturbed run of a sample with so many rows publishes, on the embedded default."""
    versions: dict[int, Version] = {}

    def version(rows: int) -> Version:
        if rows not in versions:
            installation = new_installation(tmp_path_factory.mktemp("undisturbed"), "local", "duckdb", {})
            (outcome,) = workers.run(installation.order(rows))
            assert outcome.status == DONE, outcome.output
            assert installation.litter() == []
            versions[rows] = installation.version()
        return versions[rows]

    return version
