"""What `/metrics` exports of a real home: months loaded, missing and failed, runs, checks, steps, disk and outbox."""

import asyncio
import json
import re
import shutil
import sqlite3
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import RemoteInstigatorOrigin
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, TickData, TickStatus
from dagster._daemon.types import DaemonHeartbeat
from dagster._utils.error import SerializableErrorInfo
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families

from taxi_platform.definitions import build_definitions
from taxi_platform.notifications.channels import Message, open_channels
from taxi_platform.notifications.outbox import Outbox
from taxi_platform.runs.agents.broker import BrokerDown
from taxi_platform.runs.dagster_internals import remote_job_origin
from taxi_platform.runs.ingest import ingest_month
from taxi_platform.runs.instance import open_instance
from taxi_platform.settings import load_settings
from taxi_platform.trips.errors import TaxiError
from taxi_platform.trips.months import Dataset, DatasetMonth, newest_month
from taxi_platform.ui.health import Health, check_daemon
from taxi_platform.ui.metric_names import METRICS, table
from taxi_platform.ui.metric_sources import agent_samples, history_samples
from taxi_platform.ui.metrics import Metrics
from taxi_platform_tests.support.agents import running_redis

OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
DOCS = Path(__file__).parents[2] / "docs" / "monitoring.md"
NEWEST = newest_month(datetime.now(UTC).date()).plus(-3)
EARLIER = NEWEST.plus(-1)
HEALTHY = Health({})


def scrape(metrics: Metrics, health: Health = HEALTHY, accept: str = "") -> str:
    asyncio.run(metrics.refresh())
    return metrics.exposition(health, accept)[0].decode()


def scrape_all(metrics: Metrics) -> dict[str, float]:
    """Every sample, as `name{label="value"}`, once what is read in the background has been read."""
    scrape(metrics)
    for thread in threading.enumerate():
        if thread.name in {"months", "history", "agents", "steps"}:
            thread.join(300)
    return samples(scrape(metrics))


def samples(text: str) -> dict[str, float]:
    return {
        sample.name + "".join(f' {name}="{value}"' for name, value in sample.labels.items()): sample.value
        for family in text_families(text)
        for sample in family.samples
    }


@pytest.fixture(scope="module")
def platform(tmp_path_factory):
    """A home with two months of green, one of them failed when it was run again, and a notification that waits."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in ("DAGSTER_HOME", "TAXI_LAKE_URL", "TAXI_WAREHOUSE_URL"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("TAXI_HOME", str(tmp_path_factory.mktemp("home")))
        monkeypatch.setenv("TAXI_SOURCE_URL", "sample://?rows=300")
        monkeypatch.setenv("TAXI_DATASETS", "yellow,green")
        monkeypatch.setenv("TAXI_SET_ASIDE", "no")
        settings = load_settings()
        with open_instance(settings) as instance:
            metrics = Metrics(settings, instance)
            before = scrape_all(metrics)
            for month in (EARLIER, NEWEST):
                ingest_month(instance, build_definitions(settings), DatasetMonth(Dataset.GREEN, month))
            channels = open_channels(["json://127.0.0.1:9/"])
            Outbox(settings.home).add(Message("one", "title", "body", False), channels, time.time() - 100)
            yield settings, instance, metrics, before


@pytest.fixture(scope="module")
def exported(platform):
    make_due(platform[2])
    return scrape_all(platform[2])


def make_due(metrics):
    """As if everything had been read long ago."""
    for known in [*metrics.awaited, *metrics.background]:
        known._ended = float("-inf")


def test_months_are_counted_by_state(exported):
    months = {name: value for name, value in exported.items() if name.startswith("taxi_months ")}
    assert months['taxi_months dataset="green" state="loaded"'] == 2
    assert months['taxi_months dataset="green" state="failed"'] == 0
    # Twelve months are caught up on; the newest of them is overdue a month after the newest that can be published.
    assert months['taxi_months dataset="green" state="missing"'] == 10
    assert months['taxi_months dataset="yellow" state="missing"'] == 12
    assert sum(months.values()) == 24


def test_rows_bytes_and_ages_are_those_of_the_lake(exported, platform):
    settings = platform[0]
    clean, rejected = (exported[f'taxi_lake_rows dataset="green" kind="{kind}"'] for kind in ("clean", "rejected"))
    assert (clean + rejected, rejected > 0) == (600, True)
    assert exported['taxi_rejected_ratio dataset="green"'] == pytest.approx(rejected / 600)
    files = [path for path in (settings.home / "lake").rglob("*") if path.is_file()]
    counted = {"raw", "clean", "rejected", "reports", "checksums"}
    held = sum(path.stat().st_size for path in files if counted & set(path.parts) and path.name != "manifest.json")
    assert exported['taxi_lake_bytes dataset="green"'] == held
    end = datetime.combine(NEWEST.plus(1).first_day, datetime.min.time(), UTC).timestamp()
    assert exported['taxi_newest_month_age_seconds dataset="green"'] == pytest.approx(time.time() - end, abs=300)
    assert 'taxi_newest_month_age_seconds dataset="yellow"' not in exported


def test_runs_queue_and_checks_are_those_of_dagster(exported):
    assert exported['taxi_runs dagster_job="green_ingest" status="success"'] == 2
    assert exported['taxi_runs dagster_job="green_ingest" status="failure"'] == 0
    assert (exported["taxi_run_queue_length"], exported["taxi_runs_in_progress"]) == (0, 0)
    assert exported["taxi_run_queue_oldest_age_seconds"] == 0
    assert exported['taxi_failed_checks check="rows_accounted_for" dataset="green"'] == 0


def test_steps_are_counted_from_the_start_of_the_process(exported, platform):
    before = platform[3]
    for step, rows in {"raw_file": 600, "clean_trips": 600, "trips": 600}.items():
        labels, ended = f'dataset="green" step="{step}"', f'dataset="green" result="changed" step="{step}"'
        assert before[f"taxi_step_rows_total {labels}"] == 0
        assert before[f"taxi_step_materializations_total {ended}"] == 0
        assert exported[f"taxi_step_materializations_total {ended}"] == 2
        rejected = exported['taxi_lake_rows dataset="green" kind="rejected"']
        assert exported[f"taxi_step_rows_total {labels}"] == (rows if step == "raw_file" else rows - rejected)
        assert exported[f"taxi_step_seconds_total {labels}"] > 0
        assert exported[f"taxi_step_lock_wait_seconds_total {labels}"] >= 0
    assert exported['taxi_step_materializations_total dataset="green" result="changed" step="marts"'] == 2
    assert exported['taxi_step_bytes_total dataset="green" step="raw_file"'] > 1000


def test_the_disk_and_the_outbox_are_those_of_the_home(exported, platform):
    settings = platform[0]
    disk = shutil.disk_usage(settings.home)
    assert exported['taxi_disk_size_bytes place="home"'] == disk.total
    assert exported['taxi_disk_free_bytes place="home"'] == pytest.approx(disk.free, rel=0.2)
    assert exported["taxi_outbox_pending"] == 1
    assert 100 <= exported["taxi_outbox_oldest_age_seconds"] < 400


def test_every_declared_metric_is_exported_but_for_what_needs_a_daemon_or_agents(exported):
    names = {name.partition(" ")[0] for name in exported}
    need_a_daemon = {"taxi_ticks", "taxi_tick_last_failed", "taxi_daemon_heartbeat_age_seconds"}
    need_agents = {"taxi_agents", "taxi_agent_queue_length", "taxi_agent_queue_agents"}
    assert {metric.name for metric in METRICS} - names == need_a_daemon | need_agents
    assert len(exported) < 400


def test_both_formats_say_the_same(platform):
    text = scrape(platform[2])
    open_text, content_type = platform[2].exposition(HEALTHY, OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name for family in openmetrics_families(open_text.decode())}
    assert {f"{family.name}" for family in text_families(text)} == families


def test_a_part_that_does_not_answer_is_0(platform):
    text = scrape(platform[2], Health({"database": "gone"}))
    assert 'taxi_up{part="database"} 0.0' in text
    assert 'taxi_up{part="lake"} 1.0' in text


@pytest.mark.fault(127)
def test_with_the_database_away_what_is_known_is_exported(platform, exported, monkeypatch):
    _, instance, metrics, _ = platform
    make_due(metrics)

    def away(*_):
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr(type(instance.run_storage), "connect", away)
    after = scrape_all(metrics)
    assert after['taxi_metrics_refresh_failed part="runs"'] == 1
    assert after['taxi_metrics_refresh_failed part="history"'] == 1
    assert after['taxi_runs dagster_job="green_ingest" status="success"'] == 2
    assert after['taxi_months dataset="green" state="loaded"'] == 2


def test_ticks_are_those_of_the_last_day_and_the_last_one_decides(platform):
    instance = platform[1]
    origin = RemoteInstigatorOrigin(remote_job_origin("green_ingest").repository_origin, "green_publication")
    state = InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.RUNNING)
    instance.add_instigator_state(state)

    def tick(status, age):
        data = (origin.get_id(), "green_publication", InstigatorType.SENSOR, status, time.time() - age)
        error = SerializableErrorInfo("no", [], None) if status == TickStatus.FAILURE else None
        instance.create_tick(TickData(*data, error=error, run_ids=[], selector_id=state.selector_id))

    def exported():
        return {(sample.name, *sample.labels): sample.value for sample in history_samples(instance, [])}

    tick(TickStatus.FAILURE, 90_000)
    tick(TickStatus.SKIPPED, 200)
    tick(TickStatus.FAILURE, 100)
    name = ("green_publication", "sensor")
    counts = [exported()["ticks", *name, status] for status in ("failure", "skipped", "success")]
    assert (counts, exported()["tick_last_failed", *name]) == ([1, 1, 0], 1)
    tick(TickStatus.SUCCESS, 50)
    tick(TickStatus.STARTED, 0)
    assert (exported()["ticks", *name, "started"], exported()["tick_last_failed", *name]) == (1, 0)


def test_the_page_has_the_table_of_all_metrics():
    assert table() in DOCS.read_text("utf-8"), "run python -m taxi_platform.ui.metric_names, and paste"


def test_names_follow_prometheus_conventions():
    for metric in METRICS:
        assert re.fullmatch(r"taxi_[a-z_]+", metric.name)
        assert metric.help.endswith(".") and len(metric.help) < 100
        assert not set(metric.labels) & {"job", "instance"}, "Prometheus sets these itself"
        if "seconds" in metric.name or "bytes" in metric.name or "ratio" in metric.name:
            assert re.search(r"_(seconds|bytes|ratio)(_total)?$", metric.name)
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_agents_and_their_queues_are_those_that_the_broker_knows(tmp_path, monkeypatch):
    with running_redis(tmp_path / "redis") as broker:
        home = tmp_path / "home" / "dagster"
        home.mkdir(parents=True)
        launcher = {"module": "taxi_platform.runs.agents.launcher", "class": "AgentRunLauncher"}
        settings = {"run_launcher": launcher | {"config": {"broker": broker.url}}, "telemetry": {"enabled": False}}
        (home / "dagster.yaml").write_text(json.dumps(settings))
        monkeypatch.setenv("TAXI_QUEUES", "yellow=heavy,*=default")
        with dg.DagsterInstance.from_config(str(home)) as instance:
            found = {(sample.name, *sample.labels): sample.value for sample in agent_samples(load_settings(), instance)}
            assert found == {
                ("agents",): 0,
                ("agent_queue_length", "default"): 0,
                ("agent_queue_length", "heavy"): 0,
                ("agent_queue_agents", "default"): 0,
                ("agent_queue_agents", "heavy"): 0,
            }
            broker.stop()
            with pytest.raises(BrokerDown):
                agent_samples(load_settings(), instance)


@pytest.mark.fault(129)
@pytest.mark.parametrize(("age", "problem"), [(10, None), (200, "200 s ago"), (-4000, "4000 s ahead of the clock")])
def test_a_daemon_is_alive_by_heartbeats_that_are_neither_old_nor_ahead_of_the_clock(platform, age, problem):
    instance = platform[1]
    names = instance.get_required_daemon_types()
    for name in names:
        instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - (age if name == names[0] else 0), name, "id"))
    if problem is None:
        check_daemon(instance)
    else:
        with pytest.raises(TaxiError, match=f"missing or old: {names[0]}: {problem}"):
            check_daemon(instance)
