"""Files in the lake that were lost, cut or altered: noticed before they are used, and made again by the next run."""

import json
import os
import re
import shutil
import subprocess
from datetime import date
from pathlib import Path

import duckdb
import pytest

from taxi_platform.ingestion import steps
from taxi_platform.ingestion.survey import Stage, Survey, ask_never
from taxi_platform.lake import open_lake
from taxi_platform.lake.months import LakeMonth
from taxi_platform.sources import open_source
from taxi_platform.trips.engine import Engine
from taxi_platform.trips.errors import DamagedFile, LakeError, NewerFormat
from taxi_platform.trips.months import Dataset, DatasetMonth, newest_month
from taxi_platform.warehouse import open_warehouse
from taxi_platform_tests.support.system import TAXI

GREEN = DatasetMonth.parse("green", "2020-04")
ROWS = 300


class Place:
    """A lake and a warehouse in `home`, into which a synthetic month goes."""

    def __init__(self, home: Path):
        self.home = home
        self.source = open_source(f"sample://?rows={ROWS}")
        self.lake = open_lake((home / "lake").as_uri())
        self.warehouse = open_warehouse(f"duckdb://{home}/warehouse.duckdb")
        self.month = LakeMonth(self.lake, GREEN)

    def fetch(self):
        return steps.fetch(self.source, self.lake, GREEN, self.home)

    def clean(self):
        return steps.clean(self.lake, GREEN, self.home, Engine(threads=1))

    def load(self):
        return steps.load(self.lake, self.warehouse, GREEN, self.home)

    def ingest(self):
        """One run; whether each of its steps up to the table changed nothing."""
        unchanged = [step().unchanged for step in (self.fetch, self.clean, self.load)]
        steps.build_marts(self.lake, self.warehouse, GREEN, self.home)
        steps.check_accounted_for(self.lake, GREEN)
        steps.check_table(self.lake, self.warehouse, GREEN, self.home)
        return unchanged

    def path(self, kind: str) -> Path:
        version = self.month.footer().file_version
        keys = {
            "clean": self.month.clean_key,
            "rejected": self.month.rejected_key(version),
            "report": self.month.report_key(version),
            "checksums": self.month.checksums_key(version),
            "manifest": self.month.manifest_key,
            "raw": self.month.current_raw().key,
        }
        return self.home / "lake" / keys[kind]

    def state(self):
        (state,) = Survey(None, self.lake, self.warehouse, Dataset.GREEN).look([GREEN.month], ask_never)
        return state

    def files(self):
        root = self.home / "lake"
        paths = [path for path in root.rglob("*") if path.is_file() and ".locks" not in path.parts]
        return {path.relative_to(root): path.read_bytes() for path in paths}

    def table(self):
        with duckdb.connect(str(self.home / "warehouse.duckdb"), read_only=True) as con:
            return [
                con.sql(f"SELECT * FROM green_{name} ORDER BY ALL").fetchall() for name in ("trips", "rejected_trips")
            ]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """A home with the month loaded, for copies."""
    home = tmp_path_factory.mktemp("loaded")
    Place(home).ingest()
    return home


@pytest.fixture
def place(loaded, tmp_path):
    shutil.copytree(loaded, tmp_path / "home")
    return Place(tmp_path / "home")


def alter(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


@pytest.mark.fault(73)
@pytest.mark.parametrize("kind", ["clean", "rejected", "report", "checksums"])
@pytest.mark.parametrize("harm", [alter, cut, empty, Path.unlink])
def test_a_damaged_file_is_noticed_and_the_next_run_makes_it_again(place, kind, harm):
    files, table, path = place.files(), place.table(), place.path(kind)
    harm(path)
    if kind == "checksums" and harm is Path.unlink:  # as in months that an earlier version published
        assert place.state().stage == Stage.LOADED
        assert place.ingest() == [True, True, True]
        assert place.files() == files  # from now on it has them
        return
    state = place.state()
    if kind in ("report", "checksums") or harm is not alter:  # a cheap look reads small files, and sizes of large ones
        lost = kind == "clean" and harm is Path.unlink
        assert (state.stage, state.reason) == ((Stage.RAW, "outdated") if lost else (Stage.DAMAGED, "damaged"))
    assert place.ingest()[:2] == [True, False]
    assert (place.files(), place.table()) == (files, table)
    assert place.state().stage == Stage.LOADED


@pytest.mark.fault(73)
@pytest.mark.parametrize("kind", ["clean", "rejected", "report"])
@pytest.mark.parametrize(
    ("harm", "with_checksums"),  # an altered file of an earlier version has nothing to be compared with
    [(alter, True), (cut, True), (cut, False)],
)
def test_what_was_damaged_after_cleaning_is_not_loaded(place, kind, harm, with_checksums):
    (place.home / "warehouse.duckdb").unlink()
    if not with_checksums:
        place.path("checksums").unlink()
    path = place.path(kind)
    harm(path)
    with pytest.raises(LakeError, match=r"green 2020-04") as caught:
        place.load()
    assert caught.value.remedy
    assert place.warehouse.loaded_months("green_trips") == {}
    place.ingest()
    assert len(place.table()[0]) + len(place.table()[1]) == ROWS


@pytest.mark.fault(73)
def test_a_clean_file_of_another_month_is_not_taken_for_this_months(place):
    other = DatasetMonth.parse("green", "2020-05")
    steps.fetch(place.source, place.lake, other, place.home)
    steps.clean(place.lake, other, place.home, Engine(threads=1))
    shutil.copy(place.home / "lake" / LakeMonth(place.lake, other).clean_key, path := place.path("clean"))
    assert place.month.footer() is None
    assert place.state().stage == Stage.DAMAGED
    place.ingest()
    assert path.exists() and place.month.footer()


@pytest.mark.fault(74)
@pytest.mark.parametrize("harm", [alter, cut, empty, lambda path: path.write_text('{"versions": 5}')])
def test_a_damaged_manifest_is_an_error_that_says_what_to_do(place, harm):
    before = place.table()
    harm(place.path("manifest"))
    state = place.state()
    assert (state.stage, state.reason) == (Stage.DAMAGED, None)  # a run would meet the same
    for step in (place.fetch, place.clean):
        with pytest.raises(DamagedFile, match=r"manifest\.json is not a manifest: .* Restore it from a backup"):
            step()
    assert place.table() == before
    (place.home / "lake" / place.month.manifest_key).unlink()  # what the error says
    assert place.ingest() == [False, True, True]


def test_a_manifest_edited_on_purpose_is_read_without_its_digest(place):
    path = place.path("manifest")
    content = json.loads(path.read_bytes())
    content["versions"][0]["rows"] += 1
    path.write_text(json.dumps(content))
    with pytest.raises(DamagedFile, match=r"was altered since it was written.* delete its field 'digest'"):
        place.month.versions()
    del content["digest"]
    path.write_text(json.dumps(content))
    assert place.month.versions()[0][0].rows == ROWS + 1


@pytest.mark.fault(74)
def test_a_damaged_manifest_never_ends_in_nothing_to_do(tmp_path):
    newest = newest_month(date.today())
    open_lake((tmp_path / "home" / "lake").as_uri()).write(f"raw/green/{newest}/manifest.json", b"{")
    environment = {
        **os.environ,
        "TAXI_SINCE": str(newest),
        "TAXI_DATASETS": "green",
        "TAXI_HOME": str(tmp_path / "home"),
    }
    done = subprocess.run([TAXI, "prune"], env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (1, "Nothing to remove.\n")
    assert f"green {newest} is skipped" in done.stderr
    done = subprocess.run([TAXI, "ingest", "green"], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "Nothing to do" not in done.stdout
    assert re.search(rf"green {newest} is skipped\. .*is not a manifest.*Restore it", done.stderr)


@pytest.mark.fault(37, 73)
@pytest.mark.parametrize("harm", [alter, cut, Path.unlink])
def test_a_raw_file_that_is_damaged_is_fetched_again(place, harm):
    path = place.path("raw")
    before = path.read_bytes()
    harm(path)
    if harm is not alter:  # a cheap look sees sizes
        state = place.state()
        assert (state.stage, state.reason) == (Stage.DAMAGED, "damaged")
        assert re.search("which fetches it again", str(state.damage))
    assert place.ingest() == [True, True, True]
    assert path.read_bytes() == before
    assert (place.state().stage, len(place.month.versions()[0])) == (Stage.LOADED, 1)


def rewrite(path, **fields):
    content = json.loads(path.read_bytes())
    content.pop("digest", None)
    path.write_text(json.dumps({**content, **fields}))


@pytest.mark.fault(75)
@pytest.mark.parametrize("kind", ["manifest", "report", "checksums"])
def test_a_file_of_a_newer_version_is_refused_and_left_alone(place, kind):
    path = place.path(kind)
    rewrite(path, format_version=2)
    files = place.files()
    state = place.state()
    assert (state.stage, state.reason) == (Stage.FAILED, None)
    with pytest.raises(NewerFormat, match=r"was written by a newer version of taxi_platform\. Upgrade taxi_platform\."):
        place.clean()
    assert place.files() == files


@pytest.mark.fault(75)
def test_a_clean_file_of_a_newer_format_is_refused_and_left_alone(place):
    import pyarrow.parquet as pq

    path = place.path("clean")
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"format_version": b"2"}), path)
    files = place.files()
    for step in (place.clean, place.load):
        with pytest.raises(NewerFormat, match="Upgrade taxi_platform"):
            step()
    assert place.files() == files


@pytest.mark.fault(75)
def test_fields_that_this_version_does_not_know_are_ignored(place):
    manifest = place.path("manifest")
    entries = [{**entry, "weather": "fine"} for entry in json.loads(manifest.read_bytes())["versions"]]
    rewrite(manifest, versions=entries, mood={"good": True})
    checksums = place.path("checksums")
    rewrite(checksums, drivers=5)
    assert place.ingest() == [True, True, True]
    checksums.unlink()
    rewrite(place.path("report"), weather="fine")
    assert place.ingest() == [True, True, True]
