"""Raw files that turn out to be damaged when they are cleaned: fetched again once, and not by every tick."""

import gzip
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taxi_platform.ingestion import steps
from taxi_platform.ingestion.survey import Stage, Survey, ask_always
from taxi_platform.lake import open_lake
from taxi_platform.lake.months import LakeMonth
from taxi_platform.sources import open_source
from taxi_platform.trips.engine import Engine
from taxi_platform.trips.errors import DamagedRaw, SourceUnavailable
from taxi_platform.trips.months import Dataset
from taxi_platform.warehouse import open_warehouse
from taxi_platform_tests.ingestion.test_steps import GREEN, HEADER, ROW
from taxi_platform_tests.support.web_server import Page, serving

PATH = "/green_2020-04"
ENGINE = Engine(threads=1)


def parquet(days: int = 3) -> bytes:
    lines = "\n".join([HEADER, *(ROW.format(day=day) for day in range(1, days + 1))])
    names, *rows = [line.split(",") for line in lines.splitlines()]
    buffer = io.BytesIO()
    table = pa.table(dict(zip(names, zip(*rows, strict=True), strict=True)))
    pq.write_table(table, buffer, compression="zstd", use_dictionary=False)
    return buffer.getvalue()


GOOD = parquet()
DAMAGED = GOOD[:30] + bytes(60) + GOOD[90:]
"""The same size and footer, and a page that cannot be unpacked."""


class Place:
    def __init__(self, folder: Path, url: str):
        self.home = folder / "home"
        self.source = open_source(url, [Dataset.GREEN])
        self.lake = open_lake((self.home / "lake").as_uri())
        self.month = LakeMonth(self.lake, GREEN)
        self.said: list[str] = []

    def fetch(self, force=False):
        return steps.fetch(self.source, self.lake, GREEN, self.home, force)

    def clean(self, force=False):
        return steps.clean_or_fetch_again(
            self.source, self.lake, GREEN, self.home, ENGINE, (), force, say=self.said.append
        )

    def run(self, force=False):
        self.fetch(force)
        return self.clean(force)

    def state(self, ask=ask_always):
        warehouse = open_warehouse(f"duckdb://{self.home}/warehouse.duckdb")
        return next(Survey(self.source, self.lake, warehouse, Dataset.GREEN).look([GREEN.month], ask))

    def downloads(self, web):
        return web.methods().count("GET")


@pytest.fixture
def web():
    with serving() as web:
        yield web


@pytest.fixture
def place(tmp_path, web) -> Place:
    return Place(tmp_path, f"{web.url}/green_{{month}}")


@pytest.mark.fault(65)
def test_a_page_damaged_on_the_way_is_fetched_again_in_the_same_run(place, web):
    web.pages[PATH] = Page(GOOD, etag='"v"', first=[Page(DAMAGED, etag='"v"')] * 4)
    cleaned = place.run()
    assert (cleaned.report.rows_clean, cleaned.report.rows_rejected) == (3, 0)
    first, second = place.month.manifest().versions
    assert first.sha256 != second.sha256 == cleaned.raw.sha256
    assert first.source_version == second.source_version == '"v"'
    assert "It is fetched again." in place.said[0]
    requests = len(web.requests)
    assert place.fetch().unchanged and place.clean().unchanged
    assert len(web.requests) == requests + 1


@pytest.mark.fault(65)
def test_a_file_damaged_at_its_source_is_fetched_twice_and_then_left_until_it_changes(place, web):
    web.pages[PATH] = Page(DAMAGED, etag='"v"')
    with pytest.raises(DamagedRaw, match="same sha256: the published file itself is damaged"):
        place.run()
    assert place.downloads(web) == 2
    for ask in (ask_always, lambda month, raw: False):
        state = place.state(ask)
        assert (state.stage, state.reason) == (Stage.FAILED, None)
        assert "the published file itself is damaged. Seen on" in str(state.problem)
    with pytest.raises(DamagedRaw, match=r"not fetched again until .* taxi ingest green 2020-04 --force"):
        place.run()
    assert place.downloads(web) == 2
    with pytest.raises(DamagedRaw):
        place.run(force=True)
    assert place.downloads(web) == 4
    web.pages[PATH] = Page(GOOD, etag='"v2"')
    assert place.state().reason == "republished"
    assert place.run().report.rows_clean == 3
    assert place.state().problem is None


@pytest.mark.fault(65)
def test_a_published_file_that_never_becomes_a_raw_file_is_not_fetched_by_every_tick(place, web):
    web.pages[PATH] = Page(GOOD[:-9], etag='"v"')
    for _ in range(2):
        with pytest.raises(DamagedRaw, match="footer cannot be read"):
            place.run()
        assert place.downloads(web) == 2
        assert (place.state().stage, place.state().reason) == (Stage.FAILED, None)
    web.pages[PATH] = Page(GOOD, etag='"v"')
    assert place.run(force=True).report.rows_clean == 3
    assert place.state().problem is None


@pytest.mark.fault(65)
def test_a_raw_file_altered_in_the_lake_is_fetched_again_in_place(place, web):
    web.pages[PATH] = Page(GOOD, etag='"v"')
    raw = place.fetch().raw
    path = place.home / "lake" / raw.key
    path.chmod(0o644)
    path.write_bytes(DAMAGED)
    assert place.clean().report.rows_clean == 3
    assert path.read_bytes() == GOOD
    assert [version.sha256 for version in place.month.manifest().versions] == [raw.sha256]


def test_a_damaged_raw_file_whose_source_is_down_says_both(place, web):
    web.pages[PATH] = Page(DAMAGED, etag='"v"')
    place.fetch()
    path = place.home / "lake" / place.month.manifest().versions[0].key
    object.__setattr__(place.source, "backoff", 0.01)
    web.pages[PATH] = Page(b"", 503)
    with pytest.raises(SourceUnavailable, match=r"is damaged: .* It cannot be fetched again: .* answered 503"):
        place.clean()
    assert path.exists()


@pytest.mark.fault(65)
def test_a_restored_file_that_is_damaged_is_not_replaced_by_the_one_it_replaced(place, web):
    web.pages[PATH] = Page(DAMAGED, etag='"v1"')
    place.fetch()
    web.pages[PATH] = Page(GOOD, etag='"v2"')
    place.run()
    restored = place.month.restore()
    requests = len(web.requests)
    with pytest.raises(DamagedRaw):
        place.clean()
    assert len(web.requests) == requests
    assert place.month.manifest().current.sha256 == restored.sha256


@pytest.mark.fault(65)
def test_a_damaged_file_in_a_folder_is_read_again_once_it_is_another(tmp_path):
    place = Place(tmp_path, f"file://{tmp_path}/green_{{month}}")
    file = tmp_path / "green_2020-04"
    file.write_bytes(DAMAGED)
    for _ in range(2):
        with pytest.raises(DamagedRaw, match="published file itself is damaged"):
            place.run()
    assert place.state().reason is None
    file.write_bytes(gzip.compress("\n".join([HEADER, ROW.format(day=1)]).encode()))
    assert place.run().report.rows_clean == 1
