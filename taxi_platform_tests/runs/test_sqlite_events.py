"""Events are stored with less work than Dagster takes, as the same rows in the same files."""

import re
import sqlite3
from contextlib import closing, nullcontext
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy.exc import IntegrityError

from taxi_platform.runs.connections import held_connections

RUN = "00000000-0000-4000-8000-000000000000"
MONTHS = dg.MonthlyPartitionsDefinition("2024-01-01", "2024-06-01")
CHANGES_WITH_EACH_RUN = (
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|\d*\.\d+(m?s)?|\d+ms|[0-9a-f]{64}|/(dagster|ours)/|(file|log)_key\W+\w+"
)


@dg.multi_asset(
    specs=[dg.AssetSpec("first"), dg.AssetSpec("second", deps=["first"])],
    check_specs=[
        dg.AssetCheckSpec("is_good", asset="first", partitions_def=MONTHS),
        dg.AssetCheckSpec("is_well", asset="second", partitions_def=MONTHS),
    ],
    partitions_def=MONTHS,
)
def both():
    for name, check in (("first", "is_good"), ("second", "is_well")):
        text = dg.MetadataValue.md(f'*{name}* "quoted" \\ Straße')
        yield dg.MaterializeResult(name, metadata={"rows": 200, "text": text}, tags={"of": name})
        yield dg.AssetCheckResult(asset_key=name, check_name=check, passed=True, metadata={"rows": 1})


@dg.asset(deps=["second"], partitions_def=MONTHS)
def third(context: dg.AssetExecutionContext):
    context.log.info("a line of the log")


DEFINITIONS = dg.Definitions(
    [both, third], jobs=[dg.define_asset_job("all")], executor=dg.in_process_executor, loggers={}
)


def rows(file: Path, run_id: str) -> dict[str, list[tuple[str, ...]]]:
    """Table → its rows, without what changes with each run."""
    with closing(sqlite3.connect(file)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            table: [
                tuple(re.sub(CHANGES_WITH_EACH_RUN, "…", str(value).replace(run_id, "id")) for value in row)
                for row in connection.execute(f"SELECT * FROM {table}")
            ]
            for table in tables
        }


def stored(home: Path, way) -> list[dict[str, list[tuple]]]:
    """The rows of the index, and of the run's own file, of one run after another one of the same month."""
    home.mkdir()
    with way, dg.DagsterInstance.local_temp(str(home)) as instance:
        job = DEFINITIONS.resolve_job_def("all")
        first, latest = (job.execute_in_process(instance=instance, partition_key="2024-01-01") for _ in range(2))
        assert first.success and latest.success
        files = [Path(instance.event_log_storage.path_for_shard(name)) for name in ("index", latest.run_id)]
        return [
            {
                table: [tuple(v.replace(first.run_id, "first") for v in map(str, row)) for row in of]
                for table, of in each.items()
            }
            for each in (rows(file, latest.run_id) for file in files)
        ]


def test_the_rows_are_those_that_dagster_stores(tmp_path):
    dagsters = stored(tmp_path / "dagster", nullcontext())
    ours = stored(tmp_path / "ours", held_connections())
    for by_dagster, by_us in zip(dagsters, ours, strict=True):
        assert by_us.keys() == by_dagster.keys()
        for table in by_us:
            assert by_us[table] == by_dagster[table]
    index, own = ours
    assert len(own["event_logs"]) == 29
    assert len(index["asset_keys"]) == 3 and len(index["asset_check_executions"]) == 4


def test_planned_events_are_stored_together_or_not_at_all(tmp_path):
    with held_connections(), dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        index = Path(instance.event_log_storage.path_for_shard("index"))
        refuse = "BEFORE INSERT ON asset_check_executions BEGIN SELECT RAISE(ABORT, 'refused'); END"
        with closing(sqlite3.connect(index)) as connection:
            connection.execute(f"CREATE TRIGGER refuse {refuse}")
        with pytest.raises(IntegrityError, match="refused"):
            instance.create_run_for_job(
                DEFINITIONS.resolve_job_def("all"), run_id=RUN, tags={"dagster/partition": "2024-01-01"}
            )
        assert rows(index, RUN)["event_logs"] == rows(index, RUN)["asset_keys"] == []
        assert instance.all_logs(RUN) == []
        instance.report_engine_event("goes on", run_id=RUN, job_name="all")
        assert [entry.message for entry in instance.all_logs(RUN)] == ["goes on"]
