"""The whole archive, an empty lake and a real daemon: ticks end in time and runs start."""

from datetime import date

import dagster as dg
import pytest
from dagster._core.scheduler.instigation import TickStatus

from taxi_platform.runs.instance import open_instance
from taxi_platform.settings import load_settings
from taxi_platform_tests.support.archive import archive_environment, daemon, publish_archive, ticks_of
from taxi_platform_tests.support.system import wait_for
from taxi_platform_tests.support.web_server import serving


@pytest.mark.slow
@pytest.mark.fault(50)
@pytest.mark.parametrize("ticks_each", [1, pytest.param(2, marks=pytest.mark.soak)])  # the second sees the first's runs
def test_with_an_empty_lake_every_tick_ends_in_time_and_months_get_loaded(monkeypatch, tmp_path, ticks_each):
    home = tmp_path / "home"
    monkeypatch.setenv("DAGSTER_HOME", str(home / "dagster"))
    with serving() as web, open_instance(load_settings()) as instance:
        counts = publish_archive(web, date.today(), seconds=0.1)
        assert sum(counts.values()) > 600
        with daemon(archive_environment(web, home)):

            def all_have_ticked():
                ticks = ticks_of(instance)
                return ticks if len(ticks) == 4 and min(map(len, ticks.values())) >= ticks_each else None

            ticks = wait_for(all_have_ticked, 1200)
            loaded = dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS])
            wait_for(lambda: len(instance.get_runs(loaded)) >= 4, 600)
        for name, ended in ticks.items():
            failed = [tick.error for tick in ended if tick.status == TickStatus.FAILURE]
            assert not failed, (name, failed)
            assert len(ended[-1].run_ids) > 30, name  # the first tick fills the queue
        assert not instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
