"""Eight processes at once: in any order one version remains, complete, and every loser says why it lost."""

from __future__ import annotations

from random import Random

import pytest

from taxi_platform.ingestion import steps
from taxi_platform.trips.months import DatasetMonth, Month
from taxi_platform_tests.reliability.conftest import OpenInstallation, Undisturbed
from taxi_platform_tests.reliability.test_kills import NEW, OLD
from taxi_platform_tests.support.installations import TABLES, Installation, Version
from taxi_platform_tests.support.worker_process import DONE, REFUSED, Order, Outcome, WorkerServer

PROCESSES = 8
pytestmark = pytest.mark.slow
MONTHS = [str(Month(2020, 1).plus(number)) for number in range(PROCESSES)]
EVERYWHERE = pytest.mark.parametrize(
    ("lake", "warehouse"),
    [("local", "duckdb"), ("local", "postgres"), ("gcs", "duckdb"), ("gcs", "postgres"), ("gcs", "bigquery")],
)


def at_once(installation: Installation, month: str, rows: int, number: int) -> Order:
    """One of many orders. Over a bucket each process is a machine of its own, with its own work folder."""
    home = installation.home / f"machine{number}" if installation.lake_url.startswith("gs:") else installation.home
    return installation.order(rows, month=month, home=home)


def make_tables(installation: Installation) -> None:
    """Create BigQuery's tables beforehand: its emulator shows a table that is only half created."""
    if installation.warehouse_url.startswith("bigquery:"):
        for change in installation.warehouse.plan(TABLES):
            change.apply()


def check_outcomes(outcomes: list[Outcome], locked: bool) -> None:
    """Every process loaded the month, or, where no lock makes them wait, may have ended with a conflict."""
    for outcome in outcomes:
        assert outcome.status in ([DONE] if locked else [DONE, REFUSED]), outcome.output
        assert outcome.status == DONE or outcome.output.startswith("Conflict: "), outcome.output
    assert any(outcome.status == DONE for outcome in outcomes)


@pytest.mark.fault(34, 35)
@EVERYWHERE
def test_of_eight_runs_of_a_month_from_two_versions_of_its_file_one_version_remains(
    open_installation: OpenInstallation, workers: WorkerServer, undisturbed: Undisturbed, lake, warehouse
):
    installation = open_installation(lake, warehouse)
    make_tables(installation)
    possible: dict[str, Version] = {undisturbed(rows).raw: undisturbed(rows) for rows in (OLD, NEW)}
    sources = Random(f"{lake} {warehouse}").sample([OLD, NEW] * (PROCESSES // 2), PROCESSES)
    outcomes = workers.run(*(at_once(installation, "2020-04", rows, number) for number, rows in enumerate(sources)))
    check_outcomes(outcomes, locked=lake == "local")
    remaining = installation.raw_files()[-1]
    assert installation.version() == possible[remaining]
    if any(outcome.status == REFUSED for outcome in outcomes):  # it may have left files that the next run sweeps
        workers.run(installation.order(OLD if possible[remaining] == undisturbed(OLD) else NEW))
    assert installation.litter() == []


@pytest.mark.fault(35)
def test_a_month_that_is_cleaned_again_while_it_is_loaded_is_loaded_in_the_new_version(
    open_installation: OpenInstallation, workers: WorkerServer, undisturbed: Undisturbed, monkeypatch
):
    installation = open_installation("gcs", "duckdb")
    (outcome,) = workers.run(installation.order(OLD))
    assert outcome.status == DONE, outcome.output
    # Between a load's look at the clean file and its look at the report, another run replaces and sweeps both.
    others = [lambda: workers.run(at_once(installation, "2020-04", NEW, 1))]
    read = installation.lake.read
    monkeypatch.setattr(installation.lake, "read", lambda key: (others and others.pop()(), read(key))[1])
    loaded = steps.load(
        installation.lake, installation.warehouse, DatasetMonth.parse("green", "2020-04"), installation.home
    )
    assert not others
    assert (loaded.result.rows, loaded.file_version) == (NEW - 1, undisturbed(NEW).tables[0].file_versions[0])
    assert installation.version() == undisturbed(NEW)


@pytest.mark.fault(35)
@EVERYWHERE
def test_eight_months_at_once_do_not_touch_each_other(
    open_installation: OpenInstallation, workers: WorkerServer, lake, warehouse
):
    installation = open_installation(lake, warehouse)
    make_tables(installation)
    for rows in (OLD, NEW):
        orders = [at_once(installation, month, rows + number, number) for number, month in enumerate(MONTHS)]
        assert [outcome.output for outcome in workers.run(*orders)] == ["done done done"] * PROCESSES
    loaded = installation.warehouse.loaded_months("green_trips")
    assert {month: stored.rows for month, stored in loaded.items()} == {
        month: NEW + number - 1 for number, month in enumerate(MONTHS)
    }
    for number, month in enumerate(MONTHS):
        dataset_month = DatasetMonth.parse("green", month)
        footer, _ = steps.published(installation.lake, dataset_month)
        assert loaded[month].file_versions == (footer.file_version,)
        assert steps.check_accounted_for(installation.lake, dataset_month) == (NEW + number, NEW + number - 1, 1)
        steps.check_table(installation.lake, installation.warehouse, dataset_month, installation.home)
    assert installation.litter() == []
