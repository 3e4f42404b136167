"""The steps on the embedded default: what they publish, what they skip, and what a failure leaves unchanged."""

import gzip
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from taxi_platform.ingestion import steps
from taxi_platform.ingestion.survey import Survey
from taxi_platform.lake import open_lake
from taxi_platform.lake.months import LakeMonth
from taxi_platform.sources import open_source
from taxi_platform.trips.engine import Engine
from taxi_platform.trips.errors import (
    Conflict,
    ContractError,
    DamagedFile,
    IntegrityError,
    LakeError,
    NotData,
    NotPublished,
    SourceRefused,
    TooManyRejected,
)
from taxi_platform.trips.months import Dataset, DatasetMonth
from taxi_platform.warehouse import open_warehouse
from taxi_platform.warehouse.fingerprint import parquet_fingerprint
from taxi_platform_tests.support.system import shared_file, small_file_system
from taxi_platform_tests.support.web_server import Page, serving

GREEN = DatasetMonth.parse("green", "2020-04")
HEADER = "VendorID,lpep_pickup_datetime,lpep_dropoff_datetime,passenger_count,trip_distance,fare_amount"
ROW = "2,2020-04-{day:02d} 10:00:00,2020-04-{day:02d} 10:10:00,1,1.5,7.5"


class Place:
    """A folder that publishes files, a lake, a warehouse, and the steps between them."""

    def __init__(self, folder: Path):
        self.home = folder / "home"
        self.published = folder / "published"
        self.published.mkdir()
        self.source = open_source(f"file://{self.published}/{{dataset}}_tripdata_{{month}}.csv.gz")
        self.lake = open_lake((self.home / "lake").as_uri())
        self.database = self.home / "warehouse.duckdb"
        self.warehouse = open_warehouse(f"duckdb://{self.database}")

    def publish(self, *lines: str) -> None:
        path = self.published / "green_tripdata_2020-04.csv.gz"
        path.write_bytes(gzip.compress("\r\n".join((HEADER, *lines, "")).encode(), mtime=0))

    def ingest(self, force=False, reject=()):
        fetched = steps.fetch(self.source, self.lake, GREEN, self.home, force)
        cleaned = steps.clean(self.lake, GREEN, self.home, Engine(threads=1), reject, force)
        loaded = steps.load(self.lake, self.warehouse, GREEN, self.home, force)
        steps.check_accounted_for(self.lake, GREEN)
        steps.check_table(self.lake, self.warehouse, GREEN, self.home)
        return fetched, cleaned, loaded

    def files(self) -> dict[str, bytes]:
        root = self.home / "lake"
        return {
            str(path.relative_to(root)): path.read_bytes()
            for path in sorted(root.rglob("*"))
            if path.is_file() and ".locks" not in path.parts
        }

    def table(self) -> list[tuple]:
        with duckdb.connect(str(self.database), read_only=True) as con:
            return con.execute("SELECT * FROM green_trips ORDER BY ALL").fetchall()


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(tmp_path)


def test_a_month_lands_in_lake_and_table(place):
    place.publish(*(ROW.format(day=day) for day in (1, 2, 3)), "broken")
    fetched, cleaned, loaded = place.ingest()
    assert (fetched.raw.rows, cleaned.report.rows_clean, cleaned.report.rows_rejected) == (4, 3, 1)
    assert (loaded.result.rows, loaded.result.rejected_rows) == (3, 1)
    version = cleaned.footer.file_version
    assert sorted(place.files()) == [
        f"checksums/green/month=2020-04/{version}.json",
        "clean/green/month=2020-04/trips.parquet",
        f"raw/green/2020-04/{fetched.raw.sha256[:12]}/green_tripdata_2020-04.csv.gz",
        "raw/green/2020-04/manifest.json",
        f"rejected/green/month=2020-04/{version}.parquet",
        f"reports/green/month=2020-04/{version}.json",
    ]
    with duckdb.connect(str(place.database), read_only=True) as con:
        rejected = con.execute("SELECT reason, line, text, file_version FROM green_rejected_trips").fetchall()
    assert rejected == [("too_few_fields", 5, "broken", version)]


def test_somebodys_own_taxi_zones_do_not_fail_a_month(place):
    place.publish(ROW.format(day=1))
    place.home.mkdir()
    with duckdb.connect(str(place.database)) as con:
        con.execute("CREATE VIEW taxi_zones AS SELECT 1 AS mine")
    messages: list[str] = []
    place.ingest()
    steps.load(place.lake, place.warehouse, GREEN, place.home, say=messages.append)
    assert len(place.table()) == 1
    assert any(message.startswith("The taxi zones were not loaded: ") for message in messages), messages
    with duckdb.connect(str(place.database), read_only=True) as con:
        assert con.execute("SELECT mine FROM taxi_zones").fetchall() == [(1,)]


def test_a_second_time_changes_no_byte_and_says_unchanged(place):
    place.publish(ROW.format(day=1))
    place.ingest()
    files, table = place.files(), place.table()
    again = place.ingest()
    assert [result.unchanged for result in again] == [True, True, True]
    assert (place.files(), place.table()) == (files, table)


def test_the_rows_of_a_clean_file_are_hashed_once_while_its_bytes_are_the_same(place, monkeypatch):
    hashed = []

    def noting(dialect, groups, path):
        hashed.append(path.name)
        return parquet_fingerprint(dialect, groups, path)

    monkeypatch.setattr("taxi_platform.warehouse.fingerprint.parquet_fingerprint", noting)
    place.publish(ROW.format(day=1))
    for _ in range(2):
        place.ingest()
    place.publish(ROW.format(day=2))
    place.ingest()
    assert hashed.count("trips.parquet") == 2


def test_force_does_the_work_again_with_the_same_result(place):
    place.publish(ROW.format(day=1))
    place.ingest()
    files, table = place.files(), place.table()
    again = place.ingest(force=True)
    assert [result.unchanged for result in again[1:]] == [False, False]
    clean = "clean/green/month=2020-04/trips.parquet"
    assert place.files()[clean] == files[clean]
    assert place.table() == table
    assert len(LakeMonth(place.lake, GREEN).versions()[0]) == 1


def test_a_changed_file_replaces_the_month_everywhere_and_keeps_the_old_raw_file(place):
    place.publish(ROW.format(day=1), ROW.format(day=2))
    place.ingest()
    place.publish(ROW.format(day=3))
    fetched, _, loaded = place.ingest()
    assert loaded.result.rows == 1
    assert [row[1].day for row in place.table()] == [3]
    assert fetched.previous.rows == 2
    versions, _ = LakeMonth(place.lake, GREEN).versions()
    assert [version.rows for version in versions] == [2, 1]
    assert all(place.lake.stat(version.key) for version in versions)
    assert len(place.lake.list("rejected/green/month=2020-04/")) == 1


def test_restoring_an_older_file_appends_a_version(place):
    for day in (1, 2, 1):
        place.publish(ROW.format(day=day))
        place.ingest()
    versions, _ = LakeMonth(place.lake, GREEN).versions()
    assert [version.sha256 for version in versions] == [versions[0].sha256, versions[1].sha256, versions[0].sha256]
    assert versions[0].sha256 != versions[1].sha256
    assert [row[1].day for row in place.table()] == [1]


def test_a_touched_file_with_the_same_content_is_one_version_and_fetched_once_more_only(place):
    place.publish(ROW.format(day=1))
    place.ingest()
    path = place.published / "green_tripdata_2020-04.csv.gz"
    path.touch()
    fetched, cleaned, loaded = place.ingest()
    assert (fetched.unchanged, cleaned.unchanged, loaded.unchanged) == (True, True, True)
    versions, _ = LakeMonth(place.lake, GREEN).versions()
    assert len(versions) == 1
    assert versions[0].source_version.startswith(str(path.stat().st_mtime_ns))


def test_reject_rules_make_another_version_and_going_without_them_the_first_again(place):
    place.publish(ROW.format(day=1), ROW.format(day=2).replace(",1,1.5", ",0,1.5"))
    _, plain, _ = place.ingest()
    _, strict, loaded = place.ingest(reject=["zero_passengers"])
    assert (strict.report.rows_clean, strict.report.rejected_by_reason) == (1, {"zero_passengers": 1})
    assert loaded.result.rows == 1
    assert strict.footer.file_version != plain.footer.file_version
    _, again, _ = place.ingest()
    assert again.footer.file_version == plain.footer.file_version


def test_a_month_that_is_not_published_says_so(place):
    with pytest.raises(NotPublished, match="green 2020-04 is not published"):
        place.ingest()


@pytest.mark.fault(1, 5, 6, 8)
@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", NotData),
        (b"<html><body>busy</body></html>", NotData),
        (gzip.compress(f"{HEADER}\n{ROW.format(day=1)}\n".encode() * 50)[:-20], NotData),
        (gzip.compress(b"a,b,c\n1,2,3\n"), ContractError),
        (gzip.compress(f"{HEADER}\n".encode()), NotData),
        (gzip.compress(f"{HEADER}\nx\ny\n{ROW.format(day=1)}\n".encode()), TooManyRejected),
    ],
    ids=["empty", "html", "cut gzip", "wrong header", "header only", "mostly unreadable"],
)
def test_bad_input_publishes_nothing_and_keeps_the_last_good_month(place, content, error):
    place.publish(ROW.format(day=1))
    place.ingest()
    clean = place.files()["clean/green/month=2020-04/trips.parquet"]
    table = place.table()
    (place.published / "green_tripdata_2020-04.csv.gz").write_bytes(content)
    with pytest.raises(error) as caught:
        place.ingest()
    assert caught.value.remedy
    assert place.files()["clean/green/month=2020-04/trips.parquet"] == clean
    assert place.table() == table
    assert not list((place.home / "tmp").glob("*"))
    assert not list((place.home / "lake" / ".tmp").glob("*"))


def test_the_lakes_own_file_is_used_without_asking_and_a_missing_one_is_reported(place):
    with pytest.raises(LakeError, match="has no raw file of green 2020-04"):
        steps.fetch(place.source, place.lake, GREEN, place.home, use_lake_copy=True)
    place.publish(ROW.format(day=1))
    first = place.ingest()[0].raw
    place.publish(*(ROW.format(day=day) for day in (1, 2)))
    fetched = steps.fetch(place.source, place.lake, GREEN, place.home, use_lake_copy=True)
    assert (fetched.raw, fetched.unchanged) == (first, True)
    (place.home / "lake" / first.key).unlink()
    with pytest.raises(LakeError, match=r"is missing\..* taxi versions green 2020-04"):
        steps.fetch(place.source, place.lake, GREEN, place.home, use_lake_copy=True)


def test_a_synthetic_month_replaces_a_published_one_only_by_force(place):
    place.publish(ROW.format(day=1))
    place.ingest()
    steps.build_marts(place.lake, place.warehouse, GREEN, place.home)
    published, table = place.files(), place.table()
    place.source = open_source("sample://?rows=50")
    fetched, cleaned, loaded = place.ingest()
    assert "would replace it with a synthetic one" in fetched.warning
    assert (fetched.unchanged, cleaned.unchanged, loaded.unchanged) == (True, True, True)
    assert (place.files(), place.table()) == (published, table)
    state = next(Survey(place.source, place.lake, place.warehouse, Dataset.GREEN).look([GREEN.month]))
    assert state.reason is None
    (place.home / "lake" / fetched.raw.key).unlink()
    with pytest.raises(SourceRefused, match="would replace it with a synthetic one"):
        place.ingest()
    assert place.ingest(force=True)[0].raw.rows == 50
    place.source = open_source(f"file://{place.published}/{{dataset}}_tripdata_{{month}}.csv.gz")
    assert place.ingest()[0].raw.rows == 1  # and a published month replaces a synthetic one


@pytest.mark.fault(37)
def test_a_dropped_table_and_lost_clean_files_are_rebuilt_without_the_source(place):
    place.publish(ROW.format(day=1))
    place.ingest()
    table = place.table()
    with duckdb.connect(str(place.database)) as con:
        con.execute("DROP TABLE green_trips")
    (place.published / "green_tripdata_2020-04.csv.gz").unlink()
    (place.home / "lake/clean/green/month=2020-04/trips.parquet").unlink()
    fetched, cleaned, loaded = place.ingest()
    assert "not published" in fetched.warning
    assert (cleaned.unchanged, loaded.unchanged) == (False, False)
    assert place.table() == table


@pytest.fixture
def small_disk(tmp_path):
    with small_file_system(tmp_path / "small", 3) as folder:
        yield folder


@pytest.mark.fault(69)
def test_an_altered_table_is_seen_by_the_check_and_loaded_again_by_the_next_run(place):
    place.publish(*(ROW.format(day=day) for day in (1, 2, 3)), "broken")
    place.ingest()
    before = place.table()
    for table, column in (("green_trips", "fare_amount"), ("green_rejected_trips", "line")):
        with duckdb.connect(str(place.database)) as con:
            con.execute(f"UPDATE {table} SET {column} = {column} + 1 WHERE rowid = 0")
        with pytest.raises(IntegrityError, match=rf"{table} differs .*\(in {column}\)\. Run taxi ingest green 2020-04"):
            steps.check_table(place.lake, place.warehouse, GREEN, place.home)
        sentences: list[str] = []
        assert not steps.load(place.lake, place.warehouse, GREEN, place.home, say=sentences.append).unchanged
        assert any(f"{table} differs" in sentence and "loaded again" in sentence for sentence in sentences)
        assert place.table() == before
    assert place.ingest()[2].unchanged


@pytest.mark.fault(70)
def test_a_table_in_another_version_than_the_lake_is_a_conflict_not_damage(place):
    place.publish(ROW.format(day=1), ROW.format(day=2))
    place.ingest()
    place.publish(ROW.format(day=1), ROW.format(day=3))
    steps.fetch(place.source, place.lake, GREEN, place.home)
    steps.clean(place.lake, GREEN, place.home, Engine(threads=1))
    with pytest.raises(Conflict, match=r"green_trips holds version .* otherwise run taxi ingest green 2020-04"):
        steps.check_table(place.lake, place.warehouse, GREEN, place.home)


@pytest.mark.fault(32)
def test_a_full_disk_is_reported_and_leaves_the_last_good_month(small_disk):
    place = Place(small_disk)
    place.publish(ROW.format(day=1))
    place.ingest()
    good = place.files()
    source = open_source("sample://?rows=200000")
    with pytest.raises(LakeError, match=r"disk is full|ran out of room") as caught:
        steps.fetch(source, place.lake, GREEN, place.home, force=True)
        steps.clean(place.lake, GREEN, place.home, Engine(threads=1))
    assert "free" in caught.value.remedy.lower()
    assert place.files()["clean/green/month=2020-04/trips.parquet"] == good["clean/green/month=2020-04/trips.parquet"]
    assert not list((place.home / "tmp").glob("*"))
    assert [row[1].day for row in place.table()] == [1]


INGEST = """
import sys
from pathlib import Path
from taxi_platform_tests.ingestion.test_steps import GREEN, Place, steps, Engine, DatasetMonth
from taxi_platform.lake import open_lake
from taxi_platform.sources import open_source
from taxi_platform.warehouse import open_warehouse
from taxi_platform.warehouse.fingerprint import parquet_fingerprint
home, month = Path(sys.argv[1]), sys.argv[2]
dataset_month = DatasetMonth.parse("green", month)
lake, warehouse = open_lake((home / "lake").as_uri()), open_warehouse(f"duckdb://{home}/warehouse.duckdb")
steps.fetch(open_source("sample://?rows=2000"), lake, dataset_month, home)
steps.clean(lake, dataset_month, home, Engine(threads=1))
loaded = steps.load(lake, warehouse, dataset_month, home)
print(loaded.unchanged)
"""


@pytest.mark.parametrize(
    "months", [["2020-04"] * 4, ["2020-01", "2020-02", "2020-03", "2020-04"]], ids=["same", "others"]
)
def test_four_processes_at_once_all_succeed(tmp_path, months):
    children = [
        subprocess.Popen([sys.executable, "-c", INGEST, str(tmp_path), month], stdout=subprocess.PIPE, text=True)
        for month in months
    ]
    answers = [child.communicate(timeout=300)[0].strip() for child in children]
    assert [child.returncode for child in children] == [0] * 4
    assert answers.count("False") == len(set(months))
    with duckdb.connect(str(tmp_path / "warehouse.duckdb"), read_only=True) as con:
        rows = con.execute("SELECT count(*), count(DISTINCT file_version) FROM green_trips").fetchone()
        rejected = con.execute("SELECT count(*) FROM green_rejected_trips").fetchone()
    assert rows[0] + rejected[0] == 2000 * len(set(months))
    assert rows[1] == len(set(months))
    assert not list((tmp_path / "tmp").glob("*"))


@pytest.mark.parametrize(
    ("name", "rows", "clean"),
    [
        ("green_tripdata_2020-04.csv.gz", 35_612, 35_612),
        ("green_tripdata_2020-11.csv.gz", 88_605, 88_605),
        ("green_tripdata_2024-01.parquet", 56_551, 56_551),
    ],
)
@pytest.mark.parametrize("served", ["by file", "by http without an ETag"])
def test_real_months_lose_and_double_no_trip(tmp_path, name, rows, clean, served):
    path = shared_file(f"files/{name}")
    dataset_month = DatasetMonth.parse("green", name[len("green_tripdata_") :][:7])
    template = f"{{dataset}}_tripdata_{{month}}{path.name[22:]}"
    lake, warehouse = open_lake((tmp_path / "lake").as_uri()), open_warehouse(f"duckdb://{tmp_path}/w.duckdb")
    with serving() as web:
        web.pages[f"/{name}"] = Page(path.read_bytes(), modified="Mon, 05 Jul 2021 10:00:00 GMT")
        source = open_source(f"file://{path.parent}/{template}" if served == "by file" else f"{web.url}/{template}")
        for expected in (False, True):
            fetched = steps.fetch(source, lake, dataset_month, tmp_path, judge=True)
            cleaned = steps.clean(lake, dataset_month, tmp_path, Engine(), judge=True)
            loaded = steps.load(lake, warehouse, dataset_month, tmp_path)
            assert (fetched.raw.rows, cleaned.report.rows_clean, loaded.result.rows) == (rows, clean, clean)
            assert (fetched.unchanged, cleaned.unchanged, loaded.unchanged) == (expected,) * 3
        assert web.methods().count("GET") == (served != "by file")
    assert steps.check_accounted_for(lake, dataset_month) == (rows, clean, 0)


def test_a_run_reads_again_what_it_cleaned_only_if_another_file_is_there(place):
    place.publish(*(ROW.format(day=day) for day in range(1, 10)))
    _, cleaned, _ = place.ingest()
    steps.note_cleaned("first", cleaned.month, cleaned.footer, cleaned.report)
    report = place.home / "lake" / cleaned.month.report_key(cleaned.footer.file_version)
    report.rename(report.with_suffix(".away"))
    there = (place.lake, place.warehouse, GREEN, place.home)
    assert steps.load(*there, run="first").unchanged
    with pytest.raises(LakeError, match="no clean file"):
        steps.load(*there, run="second")
    report.with_suffix(".away").rename(report)
    rejected = place.home / "lake" / cleaned.rejected_key
    rejected.rename(rejected.with_suffix(".away"))
    with pytest.raises(DamagedFile, match="is missing"):  # a check reads what is stored
        steps.check_accounted_for(place.lake, GREEN)
    rejected.with_suffix(".away").rename(rejected)
    place.publish(*(ROW.format(day=day) for day in range(1, 9)))
    steps.fetch(place.source, place.lake, GREEN, place.home)
    steps.clean(place.lake, GREEN, place.home, Engine(threads=1))
    assert steps.load(*there, run="first").result.rows == 8
