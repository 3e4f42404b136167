"""`taxi serve` under a process manager, with its parts killed at random in the middle of a backfill."""

import random
import time
from collections import Counter
from contextlib import suppress
from itertools import chain

import dagster as dg
import duckdb
import psutil
import pytest

from taxi_platform.trips.months import Month
from taxi_platform_tests.support.system import wait_for
from taxi_platform_tests.support.taxi_dev import Platform
from taxi_platform_tests.support.taxi_serve import Manager

SETTINGS = {"TAXI_DATASETS": "green", "TAXI_SET_ASIDE": "no", "TAXI_SINCE": "2014-01"}
DONE_SECONDS = 1800
PARTS = ("serve", "code server", "api grpc", "fork server", "run", "daemon", "webserver")
UNFINISHED = ("QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING")


@pytest.mark.slow
@pytest.mark.fault(121)
def test_every_month_of_a_backfill_is_loaded_once_although_parts_are_killed(tmp_path):
    kill_parts(tmp_path, months=10, kills=8, seconds=(1.0, 3.0), rows=20_000)


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.fault(121)
def test_every_month_of_sixty_is_loaded_once_although_parts_are_killed_a_hundred_times(tmp_path):
    # Two runs at a time, most of them killed with something: a month needs three attempts on average, some over ten.
    kill_parts(tmp_path, months=60, kills=100, seconds=(1.0, 4.0), rows=100_000)


def kill_parts(folder, months, kills, seconds, rows):
    """Backfill that many months while parts of the service are killed, and compare what is there afterwards.

    A fast machine has loaded them before all parts are killed: then it loads the next ones.
    """
    home, chosen, begun = folder / "home", random.Random(kills), time.monotonic()
    first, backfills = Month.parse("2014-01"), {}
    with Manager(home, folder / "serve.log", TAXI_SOURCE_URL=f"sample://?rows={rows}", **SETTINGS) as service:
        platform = Platform(service.url)
        for number, part in enumerate(deck(chosen, kills), start=1):
            while not has_killed(service, part, chosen, seconds):
                if all(has_ended(platform, backfill) for backfill in backfills):
                    names = [str(first.plus(len(backfills) * months + more)) for more in range(months)]
                    backfills[wait_for(lambda names=names: launched(platform, names), 600)] = names
            print(f"{time.monotonic() - begun:6.0f} s: {part} killed, {number} in all", flush=True)
        for backfill in backfills:
            wait_for(lambda backfill=backfill: has_ended(platform, backfill), DONE_SECONDS)
            print(f"{time.monotonic() - begun:6.0f} s: a backfill ended", flush=True)
            assert platform.backfill_status(backfill) == "COMPLETED_SUCCESS"
            assert platform.backfill_months(backfill)["green/trips"]["materialized"] == months
    print(f"starts of the service: {service.starts}", flush=True)
    check_loaded_once(home, backfills)


def has_killed(service, part, chosen, seconds):
    """Kill one of its processes after a while; false if it has none, as runs that wait or that have ended."""
    time.sleep(chosen.uniform(*seconds))
    with suppress(psutil.NoSuchProcess, IndexError):
        chosen.choice(service.processes().get(part, [])).kill()
        return True
    return False


def launched(platform, months):
    """The id of a new backfill; none while the webserver or the code server is starting again."""
    with suppress(OSError, AssertionError, KeyError):
        return platform.launch_backfill("green", months)


def deck(chosen, kills):
    """The parts to kill in random order, each as often as the others."""
    parts = [PARTS[number % len(PARTS)] for number in range(kills)]
    chosen.shuffle(parts)
    return parts


def has_ended(platform, backfill):
    with suppress(OSError, AssertionError):  # the webserver may be starting again
        return platform.backfill_status(backfill) not in ("REQUESTED", "FAILING", "CANCELING")


def check_loaded_once(home, backfills):
    """Each month of each backfill has one successful run and is in the table once, with the rows of its clean file."""
    months, runs = sorted(chain(*backfills.values())), []
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        for backfill in backfills:
            runs += instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill}))
        assert not instance.event_log_storage.get_concurrency_run_ids()
    assert not [run.run_id for run in runs if run.status.value in UNFINISHED]
    successes = Counter(run.tags["dagster/partition"] for run in runs if run.status.value == "SUCCESS")
    assert successes == dict.fromkeys(months, 1)
    print(f"runs: {dict(Counter(run.status.value for run in runs))}", flush=True)
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as con:
        query = """SELECT strftime(file_month, '%Y-%m'), count(DISTINCT file_version), count(*)
                   FROM green_trips GROUP BY 1 ORDER BY 1"""
        loaded = con.execute(query).fetchall()
        clean = [
            con.execute("SELECT count(*) FROM read_parquet(?)", [str(clean_file(home, month))]).fetchone()[0]
            for month in months
        ]
    assert loaded == [(month, 1, rows) for month, rows in zip(months, clean, strict=True)]


def clean_file(home, month):
    return home / "lake" / "clean" / "green" / f"month={month}" / "trips.parquet"
