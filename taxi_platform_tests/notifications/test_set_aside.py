"""A version that looks wrong, as people see it: the command, the check in Dagster, the message, and `taxi accept`."""

import json

import dagster as dg
import pytest

from taxi_platform.definitions import build_definitions
from taxi_platform.runs.ingest import ingest_month
from taxi_platform.runs.instance import open_instance
from taxi_platform.runs.result import IngestStatus
from taxi_platform.settings import load_settings
from taxi_platform.sources.sample.writing import write_sample
from taxi_platform.trips.months import DatasetMonth
from taxi_platform_tests.support.notification_receivers import web_hook
from taxi_platform_tests.test_cli import taxi

GREEN = DatasetMonth.parse("green", "2026-09")
"""No count of it is known."""
LOST = "It has 3 rows; the version that it would replace has 500."


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """Publish so many rows of the month; the platform is set to load it, and to set aside what looks wrong."""
    monkeypatch.setenv("TAXI_SET_ASIDE", "yes")
    monkeypatch.setenv("TAXI_DATASETS", "green")
    monkeypatch.setenv("TAXI_SOURCE_URL", f"file://{tmp_path}/{{dataset}}_{{month}}.csv.gz")
    return lambda rows, of=GREEN: write_sample(of, rows, tmp_path / "green_2026-09.csv.gz")


@pytest.mark.fault(58)
def test_a_check_of_the_raw_file_warns_and_says_why(publish):
    definitions = build_definitions(load_settings())
    with open_instance(load_settings()) as instance:

        def ingest():
            result = ingest_month(instance, definitions, GREEN)
            logs = instance.all_logs(result.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
            checks = [log.dagster_event.asset_check_evaluation_data for log in logs]
            (check,) = [check for check in checks if check.check_name == "no_version_set_aside"]
            return result, check

        publish(500)
        result, check = ingest()
        assert (result.status, check.passed, check.asset_key.path) == (IngestStatus.LOADED, True, ["green", "raw_file"])
        publish(3)
        for _ in range(2):
            result, check = ingest()
            assert (result.status, result.rows_read) == (IngestStatus.UNCHANGED, 500)
            assert (check.passed, check.severity, check.partition) == (False, dg.AssetCheckSeverity.WARN, "2026-09")
            assert LOST in check.description and LOST in result.problem
            assert check.metadata["remedy"].value.startswith("taxi accept green 2026-09 ")
        publish(500, of=DatasetMonth.parse("green", "2026-01"))  # noticed only when it is cleaned
        result, check = ingest()
        assert (result.status, check.passed) == (IngestStatus.UNCHANGED, False)
        assert "are more than a day outside of 2026-09." in check.description


@pytest.mark.slow
@pytest.mark.fault(58, 61)
def test_the_command_the_message_status_and_versions_say_why_and_accept_loads_it(publish):
    with web_hook() as hook:
        notify = {"TAXI_NOTIFY_URLS": f"json://{hook.address}/hook"}
        source = {"TAXI_SOURCE_URL": load_settings().source_url, "TAXI_SINCE": "2026-09"}
        publish(500)
        assert taxi("ingest", "green", "2026-09", **source, **notify)[0] == 0
        publish(3)
        status, out, err = taxi("ingest", "green", "2026-09", **source, **notify)
        assert (status, "unchanged" in out, LOST in err) == (0, True, True)
        titles = [body["title"] for _, _, body in hook.requests]
        assert titles == ["taxi: green 2026-09 loaded", "taxi: green 2026-09 set aside"]
        _, message = hook.messages()
    version = err.partition("taxi accept green 2026-09 ")[2][:12]
    assert f"What to do: look at the file. If it is right: taxi accept green 2026-09 {version}\n" in message
    assert "Check failed: no_version_set_aside: A new version looks wrong and is set aside; the month stays" in message
    assert LOST in message

    status, out, err = taxi("ingest", **source)
    assert (status, out) == (0, "Nothing to do: no published month needs a run.\n")
    assert "green 2026-09 has a version that is set aside; see taxi status." in err
    months = json.loads(taxi("status", "--json", **source)[1])
    (month,) = [month for month in months if month["month"] == "2026-09"]
    assert month["stage"] == "set aside"
    assert month["set_aside"] == f"{LOST} If it is right: taxi accept green 2026-09 {version}"
    assert f"green 2026-09: a new version looks wrong and is set aside. {LOST}" in taxi("status", **source)[1]
    assert f"Set aside: {version}, " in taxi("versions", "green", "2026-09")[1]

    status, out, err = taxi("accept", "green", "2026-09", version, **source)
    assert status == 0, err
    assert f"Version {version} with 3 rows is accepted." in out
    assert "loaded" in out.splitlines()[-1]
    status, _, err = taxi("accept", "green", "2026-09", **source)
    assert (status, err.partition(". ")[0]) == (2, "No version of green 2026-09 is set aside")


@pytest.mark.slow
@pytest.mark.fault(59)
def test_a_first_version_that_looks_wrong_fails_the_run_with_the_command_that_accepts_it(publish, tmp_path):
    write_sample(DatasetMonth.parse("fhv", "2020-04"), 50, tmp_path / "green_2026-09.csv.gz")
    with web_hook() as hook:
        source = {"TAXI_SOURCE_URL": load_settings().source_url, "TAXI_NOTIFY_URLS": f"json://{hook.address}/hook"}
        status, _, err = taxi("ingest", "green", "2026-09", **source)
        (message,) = hook.messages()
    assert status == 1
    assert "It has columns that only files of fhv and fhvhv have: dispatching_base_num." in err
    assert "taxi accept green 2026-09 " in err and "What to do: The file is kept in the lake, set aside." in message


@pytest.mark.slow
@pytest.mark.fault(33, 58)
@pytest.mark.parametrize("point", ["raw_uploaded", "manifest_written"])
def test_a_run_killed_while_it_sets_a_version_aside_leaves_the_month_and_the_next_one_completes_it(publish, point):
    source = {"TAXI_SOURCE_URL": load_settings().source_url}
    publish(500)
    assert taxi("ingest", "green", "2026-09", **source)[0] == 0
    publish(3)
    killed, _, _ = taxi("ingest", "green", "2026-09", "--jobs", "1", TAXI_FAULT_POINT=point, **source)
    status, out, err = taxi("ingest", "green", "2026-09", "--json", **source)
    (result,) = json.loads(out)
    assert (killed, status, result["status"], result["rows_read"]) == (-9, 0, "unchanged", 500), err
    assert taxi("versions", "green", "2026-09")[1].count("Set aside: ") == 1
