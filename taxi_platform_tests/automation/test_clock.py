"""A clock that was years ahead for a while, and is right again."""

import os
import time

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    ScheduleInstigatorData,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster._daemon.types import DaemonHeartbeat

from taxi_platform.assets.names import LOCATION
from taxi_platform.runs.clock import forget_times_ahead
from taxi_platform.runs.dagster_internals import remote_job_origin
from taxi_platform.runs.instance import open_instance
from taxi_platform.settings import load_settings
from taxi_platform.trips.processes import process_name
from taxi_platform.ui.database_watch import DatabaseWatch
from taxi_platform.ui.only_server import DatabaseHold
from taxi_platform_tests.support.notification_receivers import web_hook
from taxi_platform_tests.support.system import wait_for
from taxi_platform_tests.support.taxi_dev import taxi_dev

YEARS = 9 * 365 * 86400.0


def instigator(kind, data):
    origin = remote_job_origin("any").repository_origin.get_instigator_origin(f"{LOCATION}_{kind.value}")
    return InstigatorState(origin, kind, InstigatorStatus.RUNNING, data)


@pytest.mark.fault(83)
def test_the_ticks_of_sensors_and_schedules_are_never_ahead():
    now = time.time()
    ahead, before = now + YEARS, now - 30
    sensor = instigator(
        InstigatorType.SENSOR,
        SensorInstigatorData(last_tick_timestamp=ahead, last_tick_start_timestamp=before, cursor="here"),
    )
    schedule = instigator(InstigatorType.SCHEDULE, ScheduleInstigatorData("7 6 * * *", before, ahead))
    with open_instance(load_settings()) as instance:
        for state in (sensor, schedule):
            instance.add_instigator_state(state)
            for moment in (before, ahead):
                names = state.instigator_origin_id, state.instigator_name, state.instigator_type
                instance.create_tick(TickData(*names, TickStatus.SKIPPED, moment, selector_id=state.selector_id))
        assert forget_times_ahead(instance) == 4
        assert forget_times_ahead(instance) == 0
        for state in (sensor, schedule):
            ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id)
            assert sorted(tick.timestamp for tick in ticks) == [before, pytest.approx(now, abs=60)]
        states = {state.instigator_type: state.instigator_data for state in instance.all_instigator_state()}
    assert states[InstigatorType.SENSOR].last_tick_timestamp == pytest.approx(now, abs=60)
    assert states[InstigatorType.SENSOR].last_tick_start_timestamp == before
    assert states[InstigatorType.SENSOR].cursor == "here"
    assert states[InstigatorType.SCHEDULE].start_timestamp == before
    assert states[InstigatorType.SCHEDULE].last_iteration_timestamp == pytest.approx(now, abs=60)


@pytest.mark.fault(83)
def test_a_daemon_that_reported_from_the_future_starts_again_once():
    with open_instance(load_settings()) as instance:
        watch = DatabaseWatch(instance, "/no/socket", DatabaseHold(instance, process_name(os.getpid()), "now"))
        for daemon, ahead in (("first", YEARS), ("second", 0), ("third", YEARS)):
            instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() + ahead, "SENSOR", daemon))
            found = []
            for _ in range(2):
                watch._look()
                found.append(watch.clock_was_ahead)
                watch.clock_was_ahead = False
            assert found == [ahead > 0, False]


@pytest.mark.fault(83)
@pytest.mark.slow
@pytest.mark.soak
def test_a_running_daemon_looks_again_within_the_interval(tmp_path):
    home = tmp_path / "home"
    with web_hook() as hook, taxi_dev(home, TAXI_NOTIFY_URLS=f"json://{hook.address}/hook"):
        was = wait_for(lambda: sensor_state(home))
        ahead = time.time() + YEARS
        data = was.instigator_data._replace(last_tick_timestamp=ahead, last_tick_start_timestamp=ahead)
        with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
            instance.update_instigator_state(was.with_data(data))
        set_at = time.time()
        # The sensor's last tick is now, so the next one is due after its interval of 30 s.
        wait_for(lambda: set_at + 20 < sensor_state(home).instigator_data.last_tick_timestamp < ahead, 300)


def sensor_state(home):
    """What Dagster knows about the sensor of notifications once it has ticked."""
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        states = instance.all_instigator_state()
    named = [state for state in states if state.instigator_name == "notifications" and state.instigator_data]
    return next((state for state in named if state.instigator_data.last_tick_timestamp), None)
