"""The states of checks by month are those that Dagster computes, only sooner."""

import dagster as dg
import pytest
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus as Status
from dagster._core.storage.asset_check_execution_record import AssetCheckPartitionInfo

from taxi_platform.runs.dagster_internals import check_state_module
from taxi_platform.ui.check_states import at_once

STATES = check_state_module()
CHECK = dg.AssetCheckKey(dg.AssetKey(["green", "trips"]), "any")
MONTHS = dg.MonthlyPartitionsDefinition("2020-01", fmt="%Y-%m", end_offset=-1)
OTHERS = dg.StaticPartitionsDefinition(["2020-01", "2020-02"])


def info(month, status, run="a run", newer=0):
    """What is stored of the check's last execution; `newer` than zero: the month was materialized again since."""
    return AssetCheckPartitionInfo(
        check_key=CHECK,
        partition_key=month,
        latest_execution_status=status,
        latest_planned_run_id=run,
        latest_check_event_storage_id=7,
        latest_materialization_storage_id=5 + newer,
        latest_target_materialization_storage_id=5,
    )


INFOS = [
    info("2020-01", Status.SUCCEEDED),
    info("2020-02", Status.SUCCEEDED),
    info("2020-03", Status.FAILED),
    info("2020-04", Status.SUCCEEDED, newer=1),
    info("2020-05", Status.PLANNED, "first"),
    info("2020-07", Status.PLANNED, "second"),
    info("2020-08", Status.PLANNED, "first"),
    info("2020-09", Status.SUCCEEDED),
    info("1999-12", Status.SUCCEEDED),
    info(None, Status.SUCCEEDED),
]


def state(partitions_def, infos, before=None, runs=()):
    empty = STATES.AssetCheckState.empty()
    return (before or empty).with_updates(CHECK, partitions_def, infos, dict(runs))


@pytest.mark.parametrize("partitions_def", [MONTHS, OTHERS, None])
@pytest.mark.parametrize("infos", [INFOS, INFOS[-1:], []])
def test_each_month_has_the_state_that_dagster_gives_it(partitions_def, infos, monkeypatch):
    runs = {"first": dg.DagsterRunStatus.FAILURE}
    expected = state(partitions_def, infos, runs=runs), state(partitions_def, INFOS[2:4], state(partitions_def, infos))
    monkeypatch.setattr(STATES, "_process_partition_records", at_once(STATES, STATES._process_partition_records))
    first = state(partitions_def, infos, runs=runs)
    assert (first, state(partitions_def, INFOS[2:4], state(partitions_def, infos))) == expected
    if (partitions_def, infos) == (MONTHS, INFOS):
        subsets = first.subsets.items()
        by_status = {status.value: sorted(months.subset_value.get_partition_keys()) for status, months in subsets}
        assert by_status == {
            "SUCCEEDED": ["2020-01", "2020-02", "2020-09"],
            "FAILED": ["2020-03"],
            "IN_PROGRESS": ["2020-07"],
            "EXECUTION_FAILED": ["2020-05", "2020-08"],
            "SKIPPED": [],
        }
