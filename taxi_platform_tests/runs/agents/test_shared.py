"""What agents must share: compared by hashes, without secrets; local storage is refused to other machines."""

import dataclasses
import json

import pytest

from taxi_platform import __version__
from taxi_platform.runs.agents.shared import (
    Host,
    check_shareable,
    code_server_of,
    local_parts,
    publish,
    published,
    release_of,
    without_password,
)
from taxi_platform.settings import load_settings
from taxi_platform.trips.errors import UserError

HERE, THERE = Host("here", "1"), Host("there", "2")
SHARED = {
    "TAXI_LAKE_URL": "gs://bucket/taxi",
    "TAXI_WAREHOUSE_URL": "postgresql://loader:s3cret@db/taxi",
    "TAXI_BROKER_URL": "redis://broker:6379/0",
}


def test_two_processes_with_the_same_settings_have_one_release_and_another_setting_is_named():
    one = release_of(load_settings(SHARED))
    assert one == release_of(load_settings({**SHARED, "TAXI_THREADS": "3", "TAXI_HOME": "/elsewhere"}))
    other = release_of(load_settings({**SHARED, "TAXI_LAKE_URL": "gs://bucket/other", "TAXI_DATASETS": "green"}))
    assert one.name.startswith(f"{__version__}-")
    assert one.name != other.name
    contracts = "other contracts (taxi_platform/trips/contracts)"
    assert one.differences(other) == [contracts, "another TAXI_DATASETS", "another TAXI_LAKE_URL"]


def test_another_version_is_another_release():
    one = release_of(load_settings(SHARED))
    other = dataclasses.replace(one, version="99.0.0")
    assert one.differences(other) == [f"taxi_platform 99.0.0 instead of {__version__}"]
    assert one.name != other.name


def test_a_password_neither_counts_nor_shows():
    one, other = (
        release_of(load_settings({**SHARED, "TAXI_WAREHOUSE_URL": f"postgresql://loader:{password}@db/taxi"}))
        for password in ("s3cret", "0ther")
    )
    assert one == other
    assert "s3cret" not in json.dumps(dataclasses.asdict(one))
    assert without_password("postgresql://loader:s3cret@db:5432/taxi?x=1") == "postgresql://loader@db:5432/taxi?x=1"
    assert without_password("https://host/{dataset}/{month}") == "https://host/{dataset}/{month}"


@pytest.mark.parametrize(
    ("settings", "server", "is_refused"),
    [
        ({**SHARED}, THERE, False),
        ({**SHARED}, None, False),
        ({**SHARED, "TAXI_LAKE_URL": "file:///lake"}, THERE, True),
        ({**SHARED, "TAXI_LAKE_URL": "file:///lake"}, HERE, False),
        ({**SHARED, "TAXI_LAKE_URL": "file:///lake"}, None, True),
        ({**SHARED, "TAXI_LAKE_URL": "file:///lake", "TAXI_BROKER_URL": "redis://127.0.0.1/0"}, None, False),
        ({**SHARED, "TAXI_LAKE_URL": "file:///lake", "TAXI_BROKER_URL": "redis://127.0.0.1/0"}, THERE, True),
        ({**SHARED, "TAXI_SERVING_URL": "duckdb:///serving.duckdb"}, THERE, True),
    ],
)
@pytest.mark.fault(106)
def test_what_lies_on_one_machine_is_refused_to_agents_on_others(settings, server, is_refused):
    loaded = load_settings(settings)
    if not is_refused:
        check_shareable(loaded, False, server, HERE)
        return
    refusal = r"An agent on here cannot share the TAXI_(LAKE|SERVING)_URL .*gs://"
    with pytest.raises(UserError, match=refusal) as caught:
        check_shareable(loaded, False, server, HERE)
    assert ("the code server runs on there" if server else "the broker is on another machine") in str(caught.value)


@pytest.mark.fault(151)
def test_a_machine_with_the_name_of_the_code_servers_is_refused():
    with pytest.raises(UserError, match=r"This machine is called there, as that of the code server is\. Give it"):
        check_shareable(load_settings(SHARED), False, THERE, Host(THERE.name, "3"))


def test_dagsters_sqlite_counts_as_local():
    assert local_parts(load_settings(SHARED), True) == ["Dagster's storage in SQLite"]
    with pytest.raises(UserError, match="Dagster's storage in SQLite"):
        check_shareable(load_settings(SHARED), True, THERE, HERE)


def test_what_the_code_server_published_is_read_back_and_nothing_is_no_error():
    import dagster as dg

    with dg.DagsterInstance.ephemeral() as instance:
        assert published(instance) is None
        server = code_server_of(load_settings({**SHARED, "TAXI_QUEUES": "yellow=heavy,*=default"}))
        publish(instance, server)
        assert published(instance) == server
        assert server.queues == ["default", "heavy"]
        instance.daemon_cursor_storage.set_cursor_values({"taxi/code_server": '{"release": {}}'})
        assert published(instance) is None
