"""The warm process, places of every kind, and what undisturbed runs publish."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from taxi_platform_tests.support.emulators.fixtures import bigquery_host, storage_host  # noqa: F401
from taxi_platform_tests.support.places import Place, Version, new_place
from taxi_platform_tests.support.warm import DONE, Warm, warm_process
from taxi_platform_tests.warehouse.conftest import server_uri  # noqa: F401

OpenPlace = Callable[[str, str], Place]
Undisturbed = Callable[[int], Version]


@pytest.fixture(scope="session")
def warm():
    with warm_process() as warm:
        yield warm


@pytest.fixture(scope="session")
def warm_command():
    """The same for the whole of `taxi ingest`, Dagster included."""
    with warm_process(
        "dagster", "dagster_gcp", "dagster._core.execution.api", "taxi_platform.definitions", "taxi_platform.cli"
    ) as warm:
        yield warm


@pytest.fixture
def open_place(request, monkeypatch, tmp_path_factory) -> OpenPlace:
    """Makes an empty place; `lake` is local or gcs, `warehouse` duckdb, postgres or bigquery."""

    def make(lake: str, warehouse: str) -> Place:
        hosts = {}
        if lake == "gcs":
            hosts["STORAGE_EMULATOR_HOST"] = request.getfixturevalue("storage_host")
        if warehouse == "bigquery":
            hosts["BIGQUERY_EMULATOR_HOST"] = request.getfixturevalue("bigquery_host")
        for name, value in hosts.items():
            monkeypatch.setenv(name, value)
        server = request.getfixturevalue("server_uri") if warehouse == "postgres" else warehouse
        return new_place(tmp_path_factory.mktemp("place"), lake, server, hosts)

    return make


@pytest.fixture(scope="session")
def survivors() -> dict[tuple[str, str], Place]:
    """Places with a month in them that have outlived earlier kills, by lake and warehouse, for the next one."""
    return {}


@pytest.fixture(scope="session")
def undisturbed(warm: Warm, tmp_path_factory) -> Undisturbed:
    """What one undisturbed run of the sample of so many rows publishes, on the embedded default."""
    known: dict[int, Version] = {}

    def version(rows: int) -> Version:
        if rows not in known:
            place = new_place(tmp_path_factory.mktemp("undisturbed"), "local", "duckdb", {})
            (ending,) = warm.run(place.order(rows))
            assert ending.status == DONE, ending.told
            assert place.litter() == []
            known[rows] = place.version()
        return known[rows]

    return version
