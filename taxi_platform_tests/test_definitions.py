"""The graph as a person meets it: keys, groups, partitions, checks, and what one run of it tells."""

import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import dagster as dg
import duckdb
import pytest
import yaml

from taxi_platform.definitions import build_definitions
from taxi_platform.settings import load_settings

ROOT = Path(__file__).parents[1]
DATASETS = {"yellow": "2009-01", "green": "2013-08", "fhv": "2015-01", "fhvhv": "2019-02"}


@pytest.fixture
def definitions(monkeypatch):
    monkeypatch.setenv("TAXI_SOURCE_URL", "sample://?rows=3000")
    return build_definitions(load_settings())


def materialize(definitions, job, month, run_config=None):
    instance = dg.DagsterInstance.ephemeral()
    result = definitions.resolve_job_def(job).execute_in_process(
        partition_key=month, instance=instance, raise_on_error=False, run_config=run_config
    )
    return result, instance


def test_every_dataset_has_its_assets_in_its_group(definitions):
    graph = definitions.resolve_asset_graph()
    assert {key.to_user_string() for key in graph.get_all_asset_keys()} >= {
        f"{dataset}/{name}" for dataset in DATASETS for name in ("raw_file", "clean_trips", "rejected_trips", "trips")
    }
    for dataset, first in DATASETS.items():
        node = graph.get(dg.AssetKey([dataset, "trips"]))
        assert node.group_name == dataset
        assert {key.path[-1] for key in node.parent_keys} == {"clean_trips", "rejected_trips"}
        keys = node.partitions_def.get_partition_keys(current_time=datetime(2026, 11, 22))
        assert (keys[0], keys[-1]) == (first, "2026-09")


def test_every_asset_has_an_owner_a_kind_and_a_description(definitions):
    for key in definitions.resolve_asset_graph().get_all_asset_keys():
        spec = definitions.resolve_asset_graph().get(key)
        assert spec.owners, key
        assert spec.kinds, key
        assert len(spec.description) > 20, key


def test_what_starts_runs_by_itself_says_when_and_why(definitions):
    sensor = definitions.resolve_sensor_def("green_publication").description
    assert "every 6 hours" in sensor and "tick of each minute" in sensor and "other reject rules" in sensor
    assert "or other reject rules" in definitions.resolve_schedule_def("green_schedule").description


def test_a_variable_that_is_set_shows_only_its_name(definitions):
    by_variable = definitions.get_repository_def().get_env_vars_by_top_level_resource()
    assert by_variable == {"TAXI_SOURCE_URL": {"source"}}


def test_a_run_tells_counts_chart_preview_and_schema(definitions):
    result, _ = materialize(definitions, "green_ingest", "2020-04")
    assert result.success
    told = {
        event.asset_key.path[-1]: event.materialization.metadata for event in result.get_asset_materialization_events()
    }
    clean = told["clean_trips"]
    assert clean["rows_read"].value == 3000
    assert clean["rows_clean"].value + clean["rows_rejected"].value == 3000
    assert clean["trips_per_day"].value.startswith("![trips per day](data:image/svg+xml;base64,")
    assert len(clean["trips_per_day"].value) < 20_000
    assert "pickup_datetime" in clean["preview"].value
    columns = {column.name: column for column in clean["dagster/column_schema"].value.columns}
    assert columns["fare_amount"].type == "decimal(10,2)"
    assert "Dollars" in columns["fare_amount"].description
    assert clean["suspicious/zero_passengers"].value >= 0
    assert told["trips"]["rows"].value == clean["rows_clean"].value
    assert told["raw_file"]["source_url"].value.startswith("sample://green/2020-04")


def test_all_checks_are_evaluated_for_the_month_and_the_two_of_counts_block(definitions):
    result, _ = materialize(definitions, "green_ingest", "2020-04")
    found = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert set(found) == {
        "rows_accounted_for",
        "table_matches_clean_trips",
        "few_rows_rejected",
        "no_unknown_columns",
        "usual_shares",
        "published_count",
        "newest_month_is_loaded",
    }
    freshness = found.pop("newest_month_is_loaded")  # of the table as a whole, which lacks the newest months here
    assert (freshness.partition, freshness.passed, freshness.severity) == (None, False, dg.AssetCheckSeverity.WARN)
    assert {check.partition for check in found.values()} == {"2020-04"}
    assert all(check.passed for check in found.values())
    blocking = {name for name, check in found.items() if check.blocking}
    assert blocking == {"rows_accounted_for", "table_matches_clean_trips"}


@pytest.mark.fault(24)
def test_an_unpublished_month_stays_missing_without_a_failure(definitions, monkeypatch, tmp_path):
    monkeypatch.setenv("TAXI_SOURCE_URL", f"file://{tmp_path}/{{dataset}}_{{month}}.csv.gz")
    result, _ = materialize(definitions, "green_ingest", "2020-04")
    assert result.success
    assert result.get_asset_materialization_events() == []


def test_a_failure_says_what_where_and_what_to_do(definitions, monkeypatch, tmp_path):
    (tmp_path / "green_2020-04.csv.gz").write_bytes(b"<html>Too many requests</html>")
    monkeypatch.setenv("TAXI_SOURCE_URL", f"file://{tmp_path}/{{dataset}}_{{month}}.csv.gz")
    result, _ = materialize(definitions, "green_ingest", "2020-04")
    assert not result.success
    failure = result.failure_data_for_node("green__raw_file").user_failure_data
    assert "HTML" in failure.description
    assert failure.metadata["error"].value == "NotData"


def test_a_runs_config_can_reject_by_the_lines_that_the_readme_gives(definitions):
    (lines,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    result, _ = materialize(definitions, "green_ingest", "2020-04", yaml.safe_load(lines))
    told = {e.asset_key.path[-1]: e.materialization.metadata for e in result.get_asset_materialization_events()}
    assert "zero_passengers" in told["clean_trips"]["reasons"].value


def test_taxi_reject_promotes_a_rule_for_every_run(monkeypatch):
    monkeypatch.setenv("TAXI_SOURCE_URL", "sample://?rows=3000")
    monkeypatch.setenv("TAXI_REJECT", "zero_distance")
    result, _ = materialize(build_definitions(load_settings()), "green_ingest", "2020-04")
    told = {e.asset_key.path[-1]: e.materialization.metadata for e in result.get_asset_materialization_events()}
    assert "zero_distance" in told["clean_trips"]["reasons"].value
    assert "suspicious/zero_distance" not in told["clean_trips"]


def test_a_serving_warehouse_adds_a_copy(monkeypatch, tmp_path):
    monkeypatch.setenv("TAXI_SOURCE_URL", "sample://?rows=3000")
    monkeypatch.setenv("TAXI_SERVING_URL", f"duckdb://{tmp_path}/serving.duckdb")
    result, _ = materialize(build_definitions(load_settings()), "green_ingest", "2020-04")
    told = {e.asset_key.path[-1]: e.materialization.metadata for e in result.get_asset_materialization_events()}
    assert told["serving_trips"]["rows"].value == told["trips"]["rows"].value > 2000
    assert told["serving_trips"]["fingerprint"] == told["trips"]["fingerprint"]


def test_definitions_load_without_a_warning_of_ours():
    command = [sys.executable, "-W", "default", "-c", "import taxi_platform.definitions"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0
    assert "taxi_platform" not in done.stderr


def test_the_zones_become_a_table(definitions, tmp_path):
    asset = definitions.resolve_assets_def(dg.AssetKey(["reference", "taxi_zones"]))
    for _ in range(2):
        assert dg.materialize([asset]).success
    with duckdb.connect(str(tmp_path / "home/warehouse.duckdb"), read_only=True) as con:
        assert con.execute("SELECT count(*), count(service_zone) FROM taxi_zones").fetchone() == (265, 265)
        assert con.execute("SELECT zone FROM taxi_zones WHERE location_id = 265").fetchone() == ("Outside of NYC",)
