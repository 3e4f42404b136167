"""Messages that `taxi ingest` itself delivers: real commands, no daemon, and a real web hook."""

import sqlite3
from contextlib import closing

import pytest

from taxi_platform.sources.sample.writing import write_sample
from taxi_platform.trips.months import DatasetMonth
from taxi_platform_tests.support.notification_receivers import web_hook
from taxi_platform_tests.test_cli import taxi

pytestmark = pytest.mark.slow


@pytest.fixture
def hook():
    with web_hook() as hook:
        yield hook


@pytest.fixture
def ingest(tmp_path, hook):
    """`taxi ingest` of green months, one process, with `hook` as the only channel; 2020-04 is good, 2020-05 is not."""
    write_sample(DatasetMonth.parse("green", "2020-04"), 300, tmp_path / "green_2020-04.csv.gz")
    (tmp_path / "green_2020-05.csv.gz").write_bytes(b"<html>Too many requests</html>")

    def ingest(*arguments, **environment):
        settings = {
            "TAXI_DATASETS": "green",
            "TAXI_SOURCE_URL": f"file://{tmp_path}/{{dataset}}_{{month}}.csv.gz",
            "TAXI_NOTIFY_URLS": f"json://{hook.address}/hook",
        }
        return taxi("ingest", "--jobs", "1", "green", *arguments, **{**settings, **environment})

    return ingest


def make_due(home):
    """Let the wait before the next attempt have passed."""
    with closing(sqlite3.connect(home / "notifications/outbox.db")) as con, con:
        con.execute("UPDATE deliveries SET at = at - 3600")


@pytest.mark.fault(55)
def test_ingest_delivers_success_and_failure_once_each_naming_dataset_and_month(ingest, hook):
    status, _, err = ingest("2020-04", "2020-05")
    assert status == 1, err
    assert [body["title"] for _, _, body in hook.requests] == [
        "taxi: green 2020-04 loaded",
        "taxi: green 2020-05 failed",
    ]
    assert [message.splitlines()[0] for message in hook.messages()] == [
        "green 2020-04 was loaded.",
        "green 2020-05 failed.",
    ]
    assert ingest("2020-04")[0] == 0  # unchanged, of which there is nothing to say
    assert len(hook.requests) == 2


@pytest.mark.fault(55)
def test_months_that_several_processes_ingest_are_delivered_once_each(ingest, hook):
    assert ingest("2020-04", "2020-05", "--jobs", "2")[0] == 1
    assert sorted(message.splitlines()[0] for message in hook.messages()) == [
        "green 2020-04 was loaded.",
        "green 2020-05 failed.",
    ]


def test_without_channels_nothing_is_written_and_apprise_is_not_imported(ingest, hook, tmp_path):
    imports = {"PYTHONPROFILEIMPORTTIME": "1"}
    status, _, err = ingest("2020-04", TAXI_NOTIFY_URLS="", **imports)
    assert (status, "dagster" in err, "apprise" in err) == (0, True, False)
    assert not (tmp_path / "home/notifications").exists()
    assert hook.requests == []
    _, _, err = ingest("2020-04", **imports)
    assert "apprise" in err  # so that the list of imports shows it where it is needed
    assert (tmp_path / "home/notifications").exists()


@pytest.mark.fault(46, 55)
def test_a_failed_delivery_changes_no_exit_status_and_the_next_ingest_delivers_it(ingest, hook, tmp_path):
    hook.broken = True
    status, _, err = ingest("2020-04")
    assert status == 0
    assert "Channel 1 json did not receive" in err and "503 (Service Unavailable)" in err
    hook.broken = False
    make_due(tmp_path / "home")
    assert ingest("2020-04")[0] == 0
    (_, refused_headers, refused), (_, headers, accepted) = hook.requests
    assert refused == accepted
    assert accepted["title"] == "taxi: green 2020-04 loaded"
    assert headers["X-Taxi-Message-Id"] == refused_headers["X-Taxi-Message-Id"]
    make_due(tmp_path / "home")
    assert ingest("2020-04")[0] == 0
    assert len(hook.requests) == 2


@pytest.mark.fault(55)
def test_an_outbox_that_cannot_be_written_changes_no_exit_status(ingest, hook, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home/notifications").write_text("in the way")
    status, _, err = ingest("2020-04")
    assert status == 0, err
    assert f"{tmp_path}/home/notifications" in err and "Messages were not delivered" in err
