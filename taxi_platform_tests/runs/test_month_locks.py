"""A month that is held by a stuck process, while other months run."""

import os
import subprocess

import dagster as dg
import pytest

from taxi_platform.definitions import build_definitions
from taxi_platform.lake.local import LocalLake
from taxi_platform.runs.ingest import ingest_month
from taxi_platform.runs.instance import open_instance
from taxi_platform.settings import load_settings
from taxi_platform.trips.months import DatasetMonth
from taxi_platform_tests.support.system import TAXI, wait_for

STUCK = [DatasetMonth.parse("green", "2020-01"), DatasetMonth.parse("green", "2020-02")]
FREE = DatasetMonth.parse("green", "2020-03")


@pytest.mark.slow
@pytest.mark.fault(82)
def test_stuck_months_hold_up_no_other_and_runs_that_wait_say_for_whom(monkeypatch, tmp_path):
    monkeypatch.setenv("TAXI_SOURCE_URL", "sample://?rows=2000")
    settings = load_settings()
    lake = LocalLake(settings.home / "lake")
    holder = f"held by process {os.getpid()} ("
    with open_instance(settings) as instance:
        with lake.lock(STUCK[0]), lake.lock(STUCK[1]):
            command = [TAXI, "ingest", "green", "2020-01", "2020-02", "--jobs", "2"]
            waiting = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
            wait_for(lambda: len(waits(instance)) == len(STUCK))
            # A pool has two places: if the runs waited inside their steps, there would be none left.
            assert ingest_month(instance, build_definitions(settings), FREE).succeeded
        errors = waiting.communicate(timeout=300)[1]
        assert waiting.returncode == 0
        for message in waits(instance):
            assert holder in message
            assert message in errors
    assert sorted(message.split(",")[0] for message in waits(instance)) == [f"Waiting for {month}" for month in STUCK]


def waits(instance):
    """What the runs log about waits."""
    logs = [log for run in instance.get_runs() for log in instance.all_logs(run.run_id)]
    return [log.user_message for log in logs if isinstance(log, dg.EventLogEntry) and "Waiting" in log.user_message]
