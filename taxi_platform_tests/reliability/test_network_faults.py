"""Whole months over a network that fails: a run succeeds or says why it did not, and the next one succeeds."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import pairwise, repeat
from pathlib import Path
from typing import Any

import pytest
from google.cloud import storage
from google.cloud.bigquery.retry import DEFAULT_JOB_RETRY, DEFAULT_RETRY

from taxi_platform.lake import open_lake
from taxi_platform.lake.base import Lake
from taxi_platform.lake.gcs import CHUNK_BYTES, GCSLake
from taxi_platform.sources import open_source
from taxi_platform.sources.base import Source
from taxi_platform.sources.sample.writing import write_sample
from taxi_platform.trips.errors import LakeBusy, SourceUnavailable, TransientError, WarehouseBusy
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.warehouse import bigquery_jobs, open_warehouse
from taxi_platform.warehouse.base import Warehouse
from taxi_platform.warehouse.bigquery_schema import described
from taxi_platform_tests.reliability.conftest import OpenInstallation, Undisturbed
from taxi_platform_tests.reliability.test_kills import NEW, OLD, check_readable, run_again
from taxi_platform_tests.support.emulators.fault_proxy import (
    FAULTS,
    FaultProxy,
    Plan,
    every_other,
    fault_proxy,
    scripted,
    seeded,
)
from taxi_platform_tests.support.installations import MONTH, TABLES, Installation
from taxi_platform_tests.support.web_server import Page, Web, serving
from taxi_platform_tests.support.worker_process import WorkerServer, ingest_by

pytestmark = pytest.mark.slow
PARTS = {"source": ("local", "duckdb"), "storage": ("gcs", "duckdb"), "bigquery": ("gcs", "bigquery")}
"""The service behind the proxy → the lake and the warehouse of the month."""

FAILING_REQUESTS = {
    "all of storage": ("storage", b"", LakeBusy),
    "reading objects": ("storage", b"alt=media", LakeBusy),
    "listing objects": ("storage", b"?projection=noAcl&prefix=", LakeBusy),
    "writing raw files": ("storage", b'"some/prefix/raw/green/2020-04/', LakeBusy),
    "writing manifests": ("storage", b'/manifest.json"', LakeBusy),
    "writing reports": ("storage", b'"some/prefix/reports/', LakeBusy),
    "writing clean files": ("storage", b'"some/prefix/clean/', LakeBusy),
    "all of BigQuery": ("bigquery", b"", WarehouseBusy),
    "loading rejected rows": ("bigquery", b"green_rejected_trips$202004", WarehouseBusy),
    "loading trips": ("bigquery", b"green_trips$202004", WarehouseBusy),
    "queries": ("bigquery", b"/queries?", WarehouseBusy),
}
"""Requests that fail for as long as the run tries → their service, bytes by which they are recognised, the outcome."""


def _pairs_of_request_and_fault() -> Iterator[Any]:
    """Every request with every fault; of each request two faults run in the gate, and the other two only in a soak."""
    for number, (name, (service, *_)) in enumerate(FAILING_REQUESTS.items()):
        for place, fault in enumerate(("reset", "503", "lost", "cut")):
            marks = [pytest.mark.bigquery] if service == "bigquery" else []
            marks += [pytest.mark.soak] if (place + number) % 2 else []
            yield pytest.param(name, fault, marks=marks)


PATH = "/green_tripdata_2020-04.csv.gz"
PATH_TEMPLATE = "/{dataset}_tripdata_{month}.csv.gz"


@dataclass(frozen=True)
class Route:
    """How a run reaches its source, lake and warehouse, and the proxies in between."""

    source: Source
    lake: Lake
    warehouse: Warehouse
    home: Path
    proxies: list[FaultProxy]

    def ingest(self) -> str:
        return ingest_by(self.source, self.lake, self.warehouse, MONTH, self.home)

    @property
    def injected(self) -> Counter[str]:
        return sum((proxy.injected for proxy in self.proxies), Counter())


OpenRoute = Callable[..., AbstractContextManager[Route]]


@pytest.fixture(scope="module")
def web(tmp_path_factory) -> Iterator[Web]:
    with serving() as web:
        web.samples = {}
        for rows in (OLD, NEW):
            path = tmp_path_factory.mktemp("published") / f"{rows}.csv.gz"
            write_sample(DatasetMonth.parse("green", MONTH), rows, path)
            web.samples[rows] = Page(path.read_bytes(), etag=f'"{rows}"')
        yield web


@pytest.fixture
def open_route(web: Web, monkeypatch) -> OpenRoute:
    """Opens a route to an installation. Requests to `parts` meet the plan; the source publishes `rows` rows.

    Google's clients wait a hundredth of a second before the first retry, and give up after `patience` seconds.
    """

    @contextmanager
    def make(installation: Installation, rows: int, plan: Plan, *parts: str, patience: float = 1) -> Iterator[Route]:
        assert installation.lake and installation.warehouse  # opened here, before the variables name a proxy
        web.pages[PATH] = web.samples[rows]
        with ExitStack() as stack, monkeypatch.context() as patch:
            proxies = []

            def through(part: str, url: str) -> str:
                if part not in parts:
                    return url
                proxies.append(stack.enter_context(fault_proxy(url, plan)))
                return proxies[-1].url

            for part, name in (("storage", "STORAGE_EMULATOR_HOST"), ("bigquery", "BIGQUERY_EMULATOR_HOST")):
                if part in parts:
                    patch.setenv(name, through(part, installation.environment[name]))
            quick = [
                retry.with_delay(initial=0.01).with_timeout(patience)
                for retry in (storage.retry.DEFAULT_RETRY, DEFAULT_RETRY, DEFAULT_JOB_RETRY)
            ]
            patch.setattr(bigquery_jobs, "CALL", {"timeout": 1, "retry": quick[1]})
            patch.setattr(bigquery_jobs, "JOB_RETRY", quick[2])
            patch.setattr(bigquery_jobs, "BACK_OFF_SECONDS", 0.01)
            source = open_source(through("source", web.url) + PATH_TEMPLATE)
            source = replace(source, backoff=0.01, max_wait=0.05, read_timeout=0.5)
            lake = open_lake(installation.lake_url)
            if isinstance(lake, GCSLake):
                lake._options = {"timeout": (10, 0.3), "retry": quick[0]}
            yield Route(source, lake, open_warehouse(installation.warehouse_url), installation.home, proxies)

    return make


@pytest.mark.fault(25, 26, 27, 28, 29, 36, 38)
@pytest.mark.parametrize(
    ("part", "fault"),
    [
        # Google's clients wait for a silent service in steps that no setting shortens: 40 s and more.
        pytest.param(part, fault, marks=pytest.mark.soak if part != "source" and fault == "silent" else ())
        for part in PARTS
        for fault in FAULTS
    ],
)
def test_runs_succeed_when_every_request_fails_at_first(
    open_installation: OpenInstallation, open_route: OpenRoute, undisturbed: Undisturbed, part, fault
):
    installation = open_installation(*PARTS[part])
    for rows in (OLD, NEW):
        with open_route(installation, rows, every_other(fault), part, patience=60) as route:
            assert route.ingest() == "done done done"
        assert route.injected.keys() == {fault}
        assert installation.version() == undisturbed(rows)
    assert installation.raw_files() == [undisturbed(OLD).raw, undisturbed(NEW).raw]
    assert installation.litter() == []


@pytest.mark.fault(36, 38)
@pytest.mark.parametrize(("requests", "fault"), list(_pairs_of_request_and_fault()))
def test_a_run_that_cannot_finish_says_why_and_the_next_one_succeeds(
    open_installation: OpenInstallation,
    open_route: OpenRoute,
    workers: WorkerServer,
    undisturbed: Undisturbed,
    requests,
    fault,
):
    part, matching, error = FAILING_REQUESTS[requests]
    installation = open_installation(*PARTS[part])
    run_again(workers, installation, OLD, undisturbed(OLD))
    plan = scripted(repeat(fault), lambda asked: matching in f"{asked.method} {asked.path} ".encode() + asked.body)
    with open_route(installation, NEW, plan, part) as route, pytest.raises(error, match="Try again later") as caught:
        route.ingest()
    assert isinstance(caught.value, TransientError)
    assert route.injected[fault] > 1
    check_readable(installation, undisturbed(OLD), undisturbed(NEW))
    run_again(workers, installation, NEW, undisturbed(NEW))
    assert installation.raw_files() == [undisturbed(OLD).raw, undisturbed(NEW).raw]


@pytest.mark.fault(24, 25, 26)
@pytest.mark.parametrize("fault", ["reset", "429", "lost", "silent", "cut"])
def test_an_unreachable_source_adds_no_month_and_leaves_a_loaded_one_unchanged(
    open_installation: OpenInstallation, open_route: OpenRoute, workers: WorkerServer, undisturbed: Undisturbed, fault
):
    installation = open_installation("local", "duckdb")
    gets = scripted(repeat(fault), lambda asked: asked.method == "GET")
    with (
        open_route(installation, NEW, gets, "source") as route,
        pytest.raises(SourceUnavailable, match="Try again later"),
    ):
        route.ingest()
    assert route.injected == {fault: 5}
    assert (installation.clean(), installation.loaded(), installation.litter()) == ({}, (None, None), [])
    run_again(workers, installation, OLD, undisturbed(OLD))
    with open_route(installation, NEW, scripted(repeat(fault), lambda asked: asked.method == "GET"), "source") as route:
        assert route.ingest() == "unchanged unchanged unchanged"
    assert route.injected == {fault: 5}
    run_again(workers, installation, OLD, undisturbed(OLD))
    assert installation.raw_files() == [undisturbed(OLD).raw]


@pytest.mark.fault(36, 38)
@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.soak) for seed in (2, 3))])
@pytest.mark.parametrize("part", ["storage", "bigquery"])
def test_random_faults_everywhere_never_show(
    web: Web,
    open_installation: OpenInstallation,
    open_route: OpenRoute,
    workers: WorkerServer,
    undisturbed: Undisturbed,
    part,
    seed,
):
    installation = open_installation(*PARTS[part])
    parts = list(PARTS)[: list(PARTS).index(part) + 1]
    plan = seeded(f"{part} {seed}", share=0.3)
    run_again(workers, installation, OLD, undisturbed(OLD))
    for rows in (NEW, OLD, NEW):
        with open_route(installation, rows, plan, *parts) as route, suppress(TransientError):
            route.ingest()
        assert route.injected
        check_readable(installation, undisturbed(OLD), undisturbed(NEW))
    for rows in (OLD, NEW):  # both, because the first leaves a raw file of the other that no manifest may list yet
        web.pages[PATH] = web.samples[rows]
        ingest_by(
            open_source(f"{web.url}{PATH_TEMPLATE}"),
            installation.lake,
            installation.warehouse,
            MONTH,
            installation.home,
        )
        assert installation.version() == undisturbed(rows)
    assert installation.litter() == []
    assert all(former != latter for former, latter in pairwise(installation.raw_files()))


# Not "lost": what the service has already, it passes over when it comes again, and its emulator refuses.
@pytest.mark.fault(36)
@pytest.mark.parametrize("fault", ["reset", "429", "503"])
def test_an_upload_in_chunks_survives_a_fault_in_each_chunk(
    open_installation: OpenInstallation, open_route: OpenRoute, fault
):
    installation, data = open_installation("gcs", "duckdb"), random.Random(fault).randbytes(2 * CHUNK_BYTES + 5)
    with open_route(installation, NEW, every_other(fault), "storage", patience=60) as route:
        stored = route.lake.write("key", data, "")
    assert installation.lake.read("key") == (data, stored)
    assert [met for asked, met in route.proxies[0].log if asked.method == "PUT"] == [fault, None] * 3


@pytest.mark.fault(38)
@pytest.mark.bigquery
def test_a_column_added_twice_because_the_answer_was_lost_is_a_transient_error(
    open_installation: OpenInstallation, open_route: OpenRoute
):
    installation = open_installation("gcs", "bigquery")
    for change in installation.warehouse.plan(TABLES):
        change.apply()
    client, name = installation.warehouse.client, installation.warehouse.dataset.table("green_trips")
    whole = client.get_table(name)
    client.delete_table(name)
    lacking = described(TABLES[0], installation.warehouse.dataset)
    lacking.schema = [field for field in lacking.schema if field.name != "trip_type"]
    client.create_table(lacking)
    with open_route(installation, NEW, scripted(["lost"], lambda asked: asked.method == "PATCH"), "bigquery") as route:
        change = list(route.warehouse.plan(TABLES))[1]
        with pytest.raises(WarehouseBusy, match="Try again later"):
            change.apply()
    assert route.injected == {"lost": 1}
    assert {field.name for field in client.get_table(name).schema} == {field.name for field in whole.schema}
    assert [change.needed for change in installation.warehouse.plan(TABLES)] == [False, False, False]
