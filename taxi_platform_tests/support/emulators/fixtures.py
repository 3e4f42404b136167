"""Fixtures over the emulators, and over real Google Cloud where two variables name what the tests may write to.

A `conftest` imports those its tests take. The emulators start once for a test process, when the first test asks.
"""

from __future__ import annotations

import os
import uuid

import pytest

from taxi_platform_tests.support.emulators.bigquery import NoEmulator, bigquery_emulator, python
from taxi_platform_tests.support.emulators.gcs import gcs_emulator

# Read here, because no test sees a TAXI_ variable of the machine.
REAL = {name: os.environ.get(name, "") for name in ("TAXI_TEST_LAKE_URL", "TAXI_TEST_WAREHOUSE_URL")}


@pytest.fixture(scope="session")
def storage_host(tmp_path_factory):
    with gcs_emulator(tmp_path_factory.mktemp("storage")) as url:
        yield url


@pytest.fixture(scope="session")
def bigquery_host(tmp_path_factory, storage_host):
    require_bigquery_emulator()
    with bigquery_emulator(tmp_path_factory.mktemp("bigquery"), storage_host) as url:
        yield url


def require_bigquery_emulator():
    """Skips where the emulator does not run; under CI it fails, unless the machine has no Python for it."""
    try:
        python()
    except NoEmulator as error:
        if os.environ.get("CI") and not error.lacks_python:
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture
def bucket(storage_host, monkeypatch):
    """A new bucket in the storage emulator, which Google's client finds by the environment."""
    from google.cloud import storage

    monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage_host)
    return storage.Client(project=None).create_bucket(f"lake-{uuid.uuid4().hex}", project="taxi-test").name


@pytest.fixture
def gcs_url(bucket):
    return f"gs://{bucket}/some/prefix"


@pytest.fixture
def bigquery_url(bigquery_host, monkeypatch):
    """A dataset that does not exist yet, in the BigQuery emulator."""
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bigquery_host)
    return f"bigquery://taxi-test/taxi_{uuid.uuid4().hex}?location=EU"


@pytest.fixture(scope="session")
def real_lake():
    """The lake of TAXI_TEST_LAKE_URL under a folder of this run's own. Session-wide: opened with the credentials of the
    machine, before a test's environment is cleared of them."""
    from taxi_platform.lake import open_lake

    lake = open_lake(f"{_real('TAXI_TEST_LAKE_URL').rstrip('/')}/test-{uuid.uuid4().hex}")
    yield lake
    for key in lake.list(""):
        lake.delete(key)


@pytest.fixture(scope="session")
def real_warehouse():
    """The warehouse of TAXI_TEST_WAREHOUSE_URL, whose project and location tests make their own datasets in."""
    from taxi_platform.warehouse import open_warehouse

    return open_warehouse(_real("TAXI_TEST_WAREHOUSE_URL"))


def _real(name: str) -> str:
    return REAL[name] or pytest.skip(f"real Google Cloud: {name} does not say where tests may write")
