"""The graph as the UI shows it: keys, groups, partitions, checks, and the metadata of one run."""

import logging
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import dagster as dg
import duckdb
import pytest
import yaml

from taxi_platform.assets.attributes import raw_file_kinds, table_kinds
from taxi_platform.assets.resources import LakeResource, SourceResource
from taxi_platform.definitions import build_definitions
from taxi_platform.marts.tables import mart_names
from taxi_platform.marts.views import VIEWS
from taxi_platform.runs.instance import open_instance
from taxi_platform.settings import load_settings
from taxi_platform.trips.contract import contract_of
from taxi_platform.trips.months import Dataset
from taxi_platform_tests.support.documents import read_page

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


def reasons(metadata):
    """Reason → rows, as the table in the metadata of clean_trips shows it."""
    return {row.data["reason"]: row.data["rows"] for row in metadata["clean_trips"]["reasons"].value.records}


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


def test_the_marts_follow_the_trips_and_all_of_them_and_the_zones_lead_to_the_views(definitions):
    graph = definitions.resolve_asset_graph()

    def parents(*path):
        return {key.to_user_string() for key in graph.get(dg.AssetKey(path)).parent_keys}

    for dataset in DATASETS:
        names = mart_names(Dataset(dataset))
        assert {key.path[-1] for key in graph.get_all_asset_keys() if key.path[0] == dataset} >= set(names)
        for name in names:
            assert graph.get(dg.AssetKey([dataset, name])).group_name == dataset
            expected = ("clean_trips", "rejected_trips") if name == "quality" else ("trips",)
            assert parents(dataset, name) == {f"{dataset}/{parent}" for parent in expected}
    assert parents("marts", "payments") == {"yellow/payments", "green/payments"}
    assert parents("marts", "daily_zones") == {"reference/taxi_zones", *(f"{d}/daily_zones" for d in DATASETS)}
    views = {key.path[-1] for key in graph.get_all_asset_keys() if key.path[0] == "marts"}
    assert views == {*VIEWS, "overview"}
    assert parents("marts", "overview") == {f"marts/{view}" for view in VIEWS}


def test_a_mart_reports_its_rows_columns_and_what_they_come_from(definitions):
    result, _ = materialize(definitions, "green_ingest", "2020-04")
    events = {event.asset_key.path[-1]: event.materialization for event in result.get_asset_materialization_events()}
    daily_zones, trips = events["daily_zones"].metadata, events["trips"].metadata
    assert daily_zones["dagster/table_name"].value == "green_daily_zones"
    assert daily_zones["dagster/partition_row_count"].value == daily_zones["rows"].value > 100
    columns = {column.name: column for column in daily_zones["dagster/column_schema"].value.columns}
    assert "From trip_distance." in columns["miles"].description
    lineage = daily_zones["dagster/column_lineage"].value.deps_by_column
    assert {(dep.asset_key.to_user_string(), dep.column_name) for dep in lineage["seconds"]} == {
        ("green/trips", "pickup_datetime"),
        ("green/trips", "dropoff_datetime"),
    }
    (dep,) = trips["dagster/column_lineage"].value.deps_by_column["tip_amount"]
    assert (dep.asset_key.to_user_string(), dep.column_name) == ("green/clean_trips", "tip_amount")
    counts = [int(row.data["trips"]) for row in daily_zones["preview"].value.records]
    assert counts == sorted(counts, reverse=True) and len(counts) == 8
    measured = {(row.data["measure"], row.data["name"]): row.data["rows"] for row in _preview(events, "quality")}
    assert measured["read", ""] == "3000"
    versions = {events[name].tags["dagster/data_version"] for name in mart_names(Dataset.GREEN)}
    assert versions == {f"{trips['file_version'].value}-{daily_zones['mart_version'].value}"}


def test_the_views_report_their_rows_also_where_datasets_are_left_out(monkeypatch):
    monkeypatch.setenv("TAXI_SOURCE_URL", "sample://?rows=300")
    monkeypatch.setenv("TAXI_DATASETS", "fhv")
    definitions = build_definitions(load_settings())
    graph = definitions.resolve_asset_graph()
    assert {key.to_user_string() for key in graph.get(dg.AssetKey(["marts", "market_share"])).parent_keys} == {
        "fhv/hours"
    }
    fhv, _ = materialize(definitions, "fhv_ingest", "2020-04")
    hours = {event.asset_key.path[-1]: event for event in fhv.get_asset_materialization_events()}["hours"]
    result = definitions.resolve_job_def("marts").execute_in_process(instance=dg.DagsterInstance.ephemeral())
    views = {e.asset_key.path[-1]: e.materialization.metadata for e in result.get_asset_materialization_events()}
    rows = {name: views[name]["dagster/row_count"].value for name in VIEWS}
    assert rows["hours"] == hours.materialization.metadata["rows"].value > 100
    assert (rows["market_share"], rows["payments"]) == (1, 0)
    columns = {column.name: column for column in views["hours"]["dagster/column_schema"].value.columns}
    assert columns["trips"].description.endswith("From hours.trips.")
    (dep,) = views["hours"]["dagster/column_lineage"].value.deps_by_column["trips"]
    assert (dep.asset_key.to_user_string(), dep.column_name) == ("fhv/hours", "trips")


def test_the_views_show_their_charts_and_the_overview_is_a_page(definitions):
    _, instance = materialize(definitions, "green_ingest", "2020-04")
    result = definitions.resolve_job_def("marts").execute_in_process(instance=instance)
    events = {event.asset_key.path[-1]: event.materialization for event in result.get_asset_materialization_events()}
    charts = {name for name, event in events.items() if "chart" in event.metadata}
    assert charts == set(VIEWS) - {"zone_pairs", "market_share"}  # of 2020-04 three datasets are missing
    assert all(len(events[name].metadata["chart"].value) < 41_000 for name in charts)
    page = Path(events["overview"].metadata["page"].value)
    assert events["overview"].metadata["bytes"].value == page.stat().st_size
    rows = events["trips_by_day"].metadata["dagster/row_count"].value
    assert page.name == "overview.html" and rows > 1
    assert "green 2020-04 (synthetic)" in page.read_text("utf-8")


def _preview(events, name):
    return events[name].metadata["preview"].value.records


def test_what_starts_runs_by_itself_says_when_and_why(definitions):
    sensor = definitions.resolve_sensor_def("green_publication").description
    assert "every 6 hours" in sensor and "ticks in between" in sensor and "other reject rules" in sensor
    assert "or other reject rules" in definitions.resolve_schedule_def("green_schedule").description


def test_everything_is_audited_on_sunday_night_once_that_is_turned_on(definitions):
    schedules = {schedule.name: schedule for schedule in definitions.schedules}
    others = {"freshness_schedule", "audit_schedule", "marts_schedule"}
    assert set(schedules) == {*others, *(f"{dataset}_schedule" for dataset in Dataset)}
    audit = schedules["audit_schedule"]
    assert (audit.job_name, audit.cron_schedule, audit.execution_timezone) == ("audit", "0 3 * * 0", "America/New_York")
    assert {schedule.default_status for schedule in schedules.values()} == {dg.DefaultScheduleStatus.STOPPED}


def test_a_variable_that_is_set_shows_only_its_name(definitions):
    by_variable = definitions.get_repository_def().get_env_vars_by_top_level_resource()
    assert by_variable == {"TAXI_SOURCE_URL": {"source"}}


def test_a_run_reports_counts_chart_preview_and_schema(definitions):
    result, _ = materialize(definitions, "green_ingest", "2020-04")
    assert result.success
    metadata = {
        event.asset_key.path[-1]: event.materialization.metadata for event in result.get_asset_materialization_events()
    }
    clean = metadata["clean_trips"]
    assert clean["rows_read"].value == 3000
    assert clean["rows_clean"].value + clean["rows_rejected"].value == 3000
    assert clean["trips_per_day"].value.startswith("![trips per day](data:image/svg+xml;base64,")
    assert len(clean["trips_per_day"].value) < 20_000
    preview = clean["preview"].value
    assert len(preview.records) == 8
    assert preview.records[0].data["pickup_datetime"].startswith("2020-04-")
    assert [column.name for column in preview.schema.columns] == list(preview.records[0].data)
    columns = {column.name: column for column in clean["dagster/column_schema"].value.columns}
    assert columns["fare_amount"].type == "decimal(10,2)"
    assert "Dollars" in columns["fare_amount"].description
    assert clean["suspicious/zero_passengers"].value > 0
    assert metadata["trips"]["rows"].value == clean["rows_clean"].value
    assert metadata["raw_file"]["source_url"].value.startswith("sample://green/2020-04")


def test_a_new_month_and_the_same_unchanged_show_the_same_first_rows(definitions):
    """A new month's are read before they are stored, an unchanged month's in the lake."""
    shown = []
    for _ in ("new", "unchanged"):
        result, _ = materialize(definitions, "green_ingest", "2020-04")
        events = {e.asset_key.path[-1]: e.materialization for e in result.get_asset_materialization_events()}
        rows = [[row.data for row in _preview(events, name)] for name in ("clean_trips", "rejected_trips")]
        shown.append((rows, events["clean_trips"].metadata["unchanged"].value))
    assert shown == [(rows, False), (rows, True)]
    assert len(rows[0]) == 8
    assert len(rows[1]) == min(8, events["rejected_trips"].metadata["rows_rejected"].value) > 0


def test_all_checks_are_evaluated_for_the_month_and_the_two_of_counts_block(definitions):
    result, _ = materialize(definitions, "green_ingest", "2020-04")
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert set(checks) == {
        "no_version_set_aside",
        "rows_accounted_for",
        "table_matches_clean_trips",
        "marts_match_trips",
        "few_rows_rejected",
        "no_unknown_columns",
        "usual_shares",
        "published_count",
        "newest_month_is_loaded",
    }
    freshness = checks.pop("newest_month_is_loaded")  # of the whole table, which lacks the newest months here
    assert (freshness.partition, freshness.passed, freshness.severity) == (None, False, dg.AssetCheckSeverity.WARN)
    assert {check.partition for check in checks.values()} == {"2020-04"}
    assert all(check.passed for check in checks.values())
    blocking = {name for name, check in checks.items() if check.blocking}
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


def test_a_runs_config_can_reject_by_the_lines_that_the_page_of_automation_gives(definitions):
    (lines,) = read_page(ROOT / "docs" / "automation.md").code("yaml")
    result, _ = materialize(definitions, "green_ingest", "2020-04", yaml.safe_load(lines))
    metadata = {e.asset_key.path[-1]: e.materialization.metadata for e in result.get_asset_materialization_events()}
    assert "zero_passengers" in reasons(metadata)


@pytest.mark.fault(86)
def test_a_runs_config_that_rejects_by_a_rule_of_another_dataset_fails_and_names_the_rules(definitions):
    config = {"ops": {"fhv_cleaning": {"config": {"reject": ["zero_passengers"]}}}}
    result, _ = materialize(definitions, "fhv_ingest", "2020-04", config)
    (failure,) = [e.event_specific_data.user_failure_data for e in result.all_events if e.is_step_failure]
    assert failure.description.startswith(
        "'zero_passengers' is not a suspicious rule of fhv. Choose from dropoff_before_pickup, "
    )


def test_taxi_reject_promotes_a_rule_for_every_run(monkeypatch):
    monkeypatch.setenv("TAXI_SOURCE_URL", "sample://?rows=3000")
    monkeypatch.setenv("TAXI_REJECT", "zero_distance")
    result, _ = materialize(build_definitions(load_settings()), "green_ingest", "2020-04")
    metadata = {e.asset_key.path[-1]: e.materialization.metadata for e in result.get_asset_materialization_events()}
    assert "zero_distance" in reasons(metadata)
    assert "suspicious/zero_distance" not in metadata["clean_trips"]


def test_a_serving_warehouse_adds_a_copy(monkeypatch, tmp_path):
    monkeypatch.setenv("TAXI_SOURCE_URL", "sample://?rows=3000")
    monkeypatch.setenv("TAXI_SERVING_URL", f"duckdb://{tmp_path}/serving.duckdb")
    result, _ = materialize(build_definitions(load_settings()), "green_ingest", "2020-04")
    metadata = {e.asset_key.path[-1]: e.materialization.metadata for e in result.get_asset_materialization_events()}
    assert metadata["serving_trips"]["rows"].value == metadata["trips"]["rows"].value > 2000
    assert metadata["serving_trips"]["fingerprint"] == metadata["trips"]["fingerprint"]


def test_definitions_load_without_a_warning_of_ours():
    command = [sys.executable, "-W", "default", "-c", "import taxi_platform.definitions as d; d.defs()"]
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


@pytest.mark.fault(49)
def test_every_month_of_a_range_becomes_a_run_of_its_own(monkeypatch):
    """The daemon's own pass over a backfill, which the UI starts for a range; it queues the runs."""
    from dagster._core.execution.backfill import PartitionBackfill
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import WorkspaceFileTarget
    from dagster._daemon.backfill import execute_backfill_iteration

    months = ["2020-04", "2020-05", "2020-06"]
    assets = [dg.AssetKey(["green", name]) for name in ("raw_file", "clean_trips", "rejected_trips", "trips")]
    workspace = WorkspaceFileTarget([str(ROOT / "workspace.yaml")])
    with open_instance(load_settings()) as instance, WorkspaceProcessContext(instance, workspace) as process:
        backfill = PartitionBackfill.from_asset_partitions(
            backfill_id="a_range",
            asset_graph=process.create_request_context().asset_graph,
            partition_names=months,
            asset_selection=assets,
            backfill_timestamp=datetime(2026, 11, 22).timestamp(),
            tags={},
            dynamic_partitions_store=instance,
            all_partitions=False,
            title=None,
            description=None,
            run_config=None,
        )
        instance.add_backfill(backfill)
        errors = list(execute_backfill_iteration(process, logging.getLogger("dagster")))
        runs = instance.get_runs()
    assert [error for error in errors if error] == []
    assert sorted(run.tags["dagster/partition"] for run in runs) == months
    assert all(run.asset_selection == set(assets) for run in runs)


def test_kinds_name_the_backends_in_use(monkeypatch, tmp_path):
    monkeypatch.setenv("TAXI_SOURCE_URL", "tlc://")
    monkeypatch.setenv("TAXI_SERVING_URL", "postgresql://somebody@host/db")
    graph = build_definitions(load_settings()).resolve_asset_graph()
    kinds = {name: graph.get(dg.AssetKey(["green", name])).kinds for name in ("raw_file", "trips", "serving_trips")}
    assert kinds == {
        "raw_file": {"file", "parquet"},
        "trips": {"table", "duckdb"},
        "serving_trips": {"table", "postgres"},
    }
    assert raw_file_kinds("gs://bucket/prefix", "course://") == {"gcs", "csv"}
    assert table_kinds("bigquery://project/dataset") == {"table", "bigquery"}


def test_cleaning_carries_the_contract_as_its_code_version(definitions):
    asset = definitions.resolve_assets_def(dg.AssetKey(["green", "clean_trips"]))
    assert set(asset.code_versions_by_key.values()) == {contract_of(Dataset.GREEN).version}


def test_assets_lead_to_their_source_code(definitions):
    def links(asset):
        return {spec.key: spec.metadata["dagster/code_references"].code_references for spec in asset.specs}

    assets = [asset for asset in definitions.assets if isinstance(asset, dg.AssetsDefinition)]
    for asset in assets:
        bare = asset.map_asset_specs(lambda spec: spec.replace_attributes(metadata={}))
        assert links(asset) == links(dg.with_source_code_references([bare])[0])
    files = {
        key.path[-1]: Path(links_of_key[0].file_path).name
        for asset in assets
        for key, links_of_key in links(asset).items()
        if key.path[0] == "green"
    }
    assert files == {
        "raw_file": "raw_file.py",
        "clean_trips": "cleaning.py",
        "rejected_trips": "cleaning.py",
        "trips": "tables.py",
        **dict.fromkeys(mart_names(Dataset.GREEN), "marts.py"),
    }


def test_a_resource_can_be_replaced(tmp_path):
    folder = (tmp_path / "another lake").as_uri()
    source = SourceResource(url="sample://?rows=300")
    lake = LakeResource(url=folder, home=str(tmp_path / "home"))
    result, _ = materialize(
        build_definitions(load_settings(), {"source": source, "lake": lake}), "green_ingest", "2020-04"
    )
    assert result.success
    metadata = {e.asset_key.path[-1]: e.materialization.metadata for e in result.get_asset_materialization_events()}
    assert metadata["raw_file"]["rows_read"].value == 300
    assert metadata["raw_file"]["dagster/uri"].value.startswith(folder)


def test_loading_the_graph_imports_no_library_that_only_runs_need():
    """Every run, tick and command loads the graph; pyarrow and numpy alone would take half as long as Dagster."""
    code = (
        "import sys, taxi_platform.definitions as d; d.build_definitions(d.load_settings())\n"
        "print(*{'numpy', 'pandas', 'pyarrow', 'sqlglot', 'psycopg', 'google', 'apprise', 'psutil'} & set(sys.modules))"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.split() == []
