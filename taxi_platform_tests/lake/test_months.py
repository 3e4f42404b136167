"""LakeMonth: what is published in which order, with and without locks, while another run works on the month."""

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from itertools import count

import pytest

from taxi_platform.ingestion import steps
from taxi_platform.ingestion.survey import Survey
from taxi_platform.lake.months import LakeMonth
from taxi_platform.sources.sample.source import SampleSource
from taxi_platform.trips.cleaning import Cleaner, CleaningInput
from taxi_platform.trips.engine import Engine
from taxi_platform.trips.errors import Conflict, DamagedFile, LakeError, UserError
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.warehouse import open_warehouse

GREEN = DatasetMonth.parse("green", "2021-01")
ENGINE = Engine(threads=1)
SUSPICIOUS = ("zero_distance", "exact_duplicate", "zero_passengers")
"""What the sample's green months hold some of, so that rejecting it gives other rows."""


class Publisher:
    """A run that fetches and cleans the sample month; `rows` decides on its content."""

    def __init__(self, lake, folder):
        self.month = LakeMonth(lake, GREEN)
        self.folders = (folder / f"run {number}" for number in count())

    def fetched(self, rows):
        return SampleSource(rows).fetch(GREEN, next(self.folders))

    def cleaned(self, fetched, reject=()):
        folder = next(self.folders)
        folder.mkdir(parents=True)
        raw = CleaningInput(GREEN, self.fetched(fetched.rows).path, fetched.sha256, fetched.rows)
        return Cleaner(raw, folder, reject, ENGINE).clean()


@pytest.fixture
def run(lake, tmp_path):
    return Publisher(lake, tmp_path / "a")


@pytest.fixture
def other_run(lake, tmp_path):
    return Publisher(lake, tmp_path / "b")


def before(monkeypatch, lake, method, key, happens):
    """Let something happen once, just before the lake's `method` is called with that key."""
    original, waiting = getattr(lake, method), [happens]

    def with_interference(asked, *arguments):
        if asked == key and waiting:
            waiting.pop()()
        return original(asked, *arguments)

    monkeypatch.setattr(lake, method, with_interference)


@pytest.mark.fault(18)
def test_a_raw_file_published_twice_is_one_version(lake, run):
    first = run.month.publish_raw(run.fetched(50))
    again = run.month.publish_raw(run.fetched(50))
    assert (first.sha256, first.key) == (again.sha256, again.key)
    versions, manifest_version = run.month.versions()
    assert [version.sha256 for version in versions] == [first.sha256]
    assert manifest_version == lake.stat("raw/green/2021-01/manifest.json").version
    assert lake.list("raw/green/2021-01/") == sorted([first.key, "raw/green/2021-01/manifest.json"])
    assert lake.stat(first.key).size == first.size


def test_going_back_to_an_older_file_appends_and_keeps_every_file(lake, run):
    old = run.month.publish_raw(run.fetched(50))
    new = run.month.publish_raw(run.fetched(60))
    stored = lake.stat(old.key)
    back = run.month.publish_raw(run.fetched(50))
    versions, _ = run.month.versions()
    assert [version.sha256 for version in versions] == [old.sha256, new.sha256, old.sha256]
    assert run.month.current_raw() == back
    assert lake.stat(old.key) == stored  # not stored again
    assert {old.key, new.key} <= set(lake.list("raw/green/2021-01/"))


@pytest.mark.fault(34, 35)
def test_of_two_runs_that_publish_a_raw_file_at_once_one_must_start_over(lake, run, other_run, monkeypatch):
    theirs = []
    before(
        monkeypatch,
        lake,
        "write",
        run.month.manifest_key,
        lambda: theirs.append(other_run.month.publish_raw(other_run.fetched(60))),
    )
    with pytest.raises(Conflict, match=r"manifest\.json was replaced by another run"):
        run.month.publish_raw(run.fetched(50))
    assert run.month.current_raw() == theirs[0]
    mine = run.month.publish_raw(run.fetched(50))
    assert [version.sha256 for version in run.month.versions()[0]] == [theirs[0].sha256, mine.sha256]


def test_an_older_raw_file_is_restored_and_what_the_source_offers_then_is_set_aside(lake, run):
    old, new = (run.fetched(rows) for rows in (50, 60))
    first = run.month.publish_raw(old)
    run.month.publish_raw(new)
    restored = run.month.restore()
    assert (restored.sha256, restored.key, restored.rows) == (first.sha256, first.key, 50)
    assert run.month.current_raw() == restored
    assert restored.is_of(new.publication)
    assert not restored.is_of(SampleSource(70).stat(GREEN))
    with pytest.raises(UserError, match="was already restored to version"):
        run.month.restore()  # repeated after a failure, it must not undo itself
    assert run.month.restore(new.sha256[:12]).sha256 == new.sha256  # and forward again
    versions, _ = run.month.versions()
    assert [version.rows for version in versions] == [50, 60, 50, 60]
    for wrong, problem in (("ffffff", "no raw version ffffff"), (new.sha256[:12], "is already the current one")):
        with pytest.raises(UserError, match=problem):
            run.month.restore(wrong)


def test_what_was_set_aside_stays_so_under_any_name_and_new_content_takes_over(lake, run):
    old, new = (run.month.publish_raw(run.fetched(rows)) for rows in (50, 60))
    run.month.restore()
    touched = run.fetched(60)
    touched = replace(touched, publication=replace(touched.publication, version="touched"))
    assert run.month.publish_raw(touched).sha256 == old.sha256
    assert run.month.current_raw().is_of(touched.publication)
    again = run.fetched(50)
    again = replace(again, publication=replace(again.publication, version="touched too"))
    assert run.month.publish_raw(again).source_version == "touched too"
    assert run.month.publish_raw(touched).sha256 == old.sha256
    assert run.month.publish_raw(run.fetched(70)).rows == 70
    assert run.month.publish_raw(run.fetched(60)).sha256 == new.sha256  # the restore no longer holds
    versions, _ = run.month.versions()
    assert [version.rows for version in versions] == [50, 60, 50, 70, 60]


def test_a_restored_file_that_is_published_under_another_name_is_stored_under_it(lake, run):
    for rows in (50, 60):
        run.month.publish_raw(run.fetched(rows))
    run.month.restore()
    again = run.fetched(50)
    renamed = replace(again, path=again.path.rename(again.path.with_name("renamed.csv.gz")))
    published = run.month.publish_raw(renamed)
    assert published.key.endswith("/renamed.csv.gz")
    assert lake.stat(published.key).size == published.size


def test_a_month_that_was_never_republished_cannot_be_restored(lake, run):
    with pytest.raises(UserError, match="no earlier raw version"):
        run.month.restore()
    run.month.publish_raw(run.fetched(50))
    with pytest.raises(UserError, match="no earlier raw version"):
        run.month.restore()


@pytest.mark.fault(61)
def test_a_file_set_aside_is_stored_and_listed_and_becomes_current_when_it_is_accepted(lake, run):
    good = run.month.publish_raw(run.fetched(50))
    stale = run.month.manifest()
    entries = [run.month.set_aside(run.fetched(rows), run.month.manifest(), ["It looks odd."]) for rows in (3, 4)]
    assert run.month.current_raw() == good
    assert all(lake.stat(entry.raw.key).size == entry.raw.size for entry in entries)
    manifest = run.month.manifest()
    assert [(entry.raw.rows, entry.reasons, entry.pending) for entry in manifest.set_aside] == [
        (3, ("It looks odd.",), False),
        (4, ("It looks odd.",), True),
    ]
    with pytest.raises(Conflict):
        run.month.set_aside(run.fetched(5), stale, ["Another run was first."])
    with pytest.raises(UserError, match="is not set aside"):
        run.month.accept(good.sha256[:12])
    assert run.month.accept().rows == 4
    first = run.month.accept(entries[0].raw.sha256[:12])  # which the source does not offer any more
    assert (first.rows, first.is_of(entries[1].raw.publication)) == (3, True)
    manifest = run.month.manifest()
    assert ([raw.rows for raw in manifest.versions], manifest.set_aside) == ([50, 4, 3], ())
    assert manifest.accepted == (entries[1].raw.sha256, entries[0].raw.sha256)


@pytest.mark.fault(87)
def test_a_prefix_of_several_versions_restores_none_and_names_them(run):
    published = [run.month.publish_raw(run.fetched(rows)).sha256 for rows in range(50, 67)]  # of 17, two begin alike
    prefix = next(sha256[0] for sha256 in published if sum(other[0] == sha256[0] for other in published) > 1)
    matching = [sha256 for sha256 in published if sha256[0] == prefix]
    before = run.month.manifest()
    with pytest.raises(UserError) as error:
        run.month.restore(prefix)
    assert str(error.value) == (
        f"{prefix} is the beginning of {len(matching)} versions of green 2021-01: "
        f"{', '.join(sha256[:12] for sha256 in matching)}. Give more digits of the one to restore."
    )
    assert run.month.manifest() == before
    older = next(sha256 for sha256 in matching if sha256 != published[-1])
    assert run.month.restore(older[:12]).sha256 == older


def test_of_two_restores_at_once_one_has_to_start_again(lake, run, other_run, monkeypatch):
    for rows in (50, 60, 70):
        run.month.publish_raw(run.fetched(rows))
    first = run.month.versions()[0][0].sha256
    monkeypatch.setattr(lake, "lock", lambda dataset_month: nullcontext())  # as over a bucket
    before(monkeypatch, lake, "write", run.month.manifest_key, lambda: other_run.month.restore(first))
    with pytest.raises(Conflict):
        run.month.restore()
    assert run.month.current_raw().sha256 == first


def test_old_raw_files_go_and_those_that_matter_stay(lake, run):
    published = [run.month.publish_raw(run.fetched(rows)) for rows in (50, 60, 70)]
    run.month.publish_clean(run.cleaned(run.fetched(70)))
    lake.write(stray := f"{run.month.raw_prefix}0123456789ab/killed.csv.gz", b"whole")
    assert [file.key for file in run.month.prune(1, apply=False)] == sorted([stray, published[0].key, published[1].key])
    assert len(lake.list(run.month.raw_prefix)) == 5
    run.month.restore(published[0].sha256)
    assert [file.key for file in run.month.prune(1, apply=True)] == sorted([stray, published[1].key])
    versions, _ = run.month.versions()  # 50 is current, the clean file is of 70
    assert [version.rows for version in versions] == [50, 70, 50]
    assert run.month.prune(1, apply=True) == []
    lake.write(f"{run.month.raw_prefix}NOTES.txt", b"hands off")
    lake.delete(run.month.manifest_key)
    assert run.month.prune(1, apply=True) == []  # nothing says any more which files are abandoned


@pytest.mark.parametrize("wrong", ["{", '{"versions": [5]}', '{"versions": [{"key": null}]}', "SHA", "ROWS"])
def test_a_malformed_manifest_is_reported_and_holds_up_no_other_month(lake, run, wrong, tmp_path):
    run.month.publish_raw(run.fetched(50))
    data = lake.read(run.month.manifest_key)[0].decode()
    damaged = {
        "SHA": re.sub(r'"sha256": "\w+"', '"sha256": 5', data),
        "ROWS": data.replace('"rows": 50', '"rows": "x"'),
    }
    lake.write(run.month.manifest_key, damaged.get(wrong, wrong).encode())
    with pytest.raises(LakeError, match="is not a manifest"):
        run.month.versions()
    warehouse = open_warehouse(f"duckdb://{tmp_path}/warehouse.duckdb")
    survey = Survey(SampleSource(50), lake, warehouse, GREEN.dataset)
    bad, good = survey.look([GREEN.month, GREEN.month.plus(1)])
    assert (bad.reason, str(bad.problem).count("is not a manifest")) == (None, 1)
    assert good.reason == "missing"


def test_a_clean_month_is_published_whole_and_its_footer_names_it(lake, run):
    fetched = run.fetched(200)
    run.month.publish_raw(fetched)
    clean = run.cleaned(fetched)
    run.month.publish_clean(clean)
    footer = run.month.footer()
    assert (footer.raw_sha256, footer.rows) == (fetched.sha256, clean.report.rows_clean)
    assert footer.object_version == lake.stat(run.month.clean_key).version
    assert run.month.is_complete(footer, clean.report.file_version)
    assert run.month.report(footer.file_version) == clean.report


def test_a_newer_clean_file_sweeps_what_belongs_to_the_older_one(lake, run):
    fetched = run.fetched(200)
    run.month.publish_raw(fetched)
    run.month.publish_clean(run.cleaned(fetched))
    newer = run.cleaned(fetched, SUSPICIOUS)
    run.month.publish_clean(newer, run.month.footer().object_version)
    version = newer.report.file_version
    assert lake.list("rejected/green/") == [f"rejected/green/month=2021-01/{version}.parquet"]
    assert lake.list("reports/green/") == [f"reports/green/month=2021-01/{version}.json"]
    assert run.month.is_complete(run.month.footer(), version)


def test_a_month_cleaned_from_a_file_that_is_no_longer_current_is_not_published(lake, run):
    old = run.fetched(200)
    run.month.publish_raw(old)
    clean = run.cleaned(old)
    run.month.publish_raw(run.fetched(210))
    with pytest.raises(Conflict, match="newer raw file of green 2021-01"):
        run.month.publish_clean(clean)
    assert lake.stat(run.month.clean_key) is None


@pytest.mark.fault(34, 35)
@pytest.mark.parametrize("first", [True, False], ids=["the first time", "over an older one"])
@pytest.mark.parametrize("moment", ["read", "upload"])
def test_of_two_runs_that_publish_a_clean_month_at_once_one_must_start_over(
    lake, run, other_run, monkeypatch, first, moment
):
    fetched = run.fetched(200)
    run.month.publish_raw(fetched)
    if not first:
        run.month.publish_clean(run.cleaned(fetched, SUSPICIOUS[:1]))
    _, seen = run.month.read_clean()
    mine, theirs = run.cleaned(fetched), other_run.cleaned(fetched, SUSPICIOUS)
    before(
        monkeypatch,
        lake,
        moment,
        run.month.manifest_key if moment == "read" else run.month.clean_key,
        lambda: other_run.month.publish_clean(theirs, seen),
    )
    with pytest.raises(Conflict, match="another run"):
        run.month.publish_clean(mine, seen)
    assert run.month.is_complete(run.month.footer(), theirs.report.file_version)


def test_the_sweep_spares_what_another_run_publishes_at_the_same_time(lake, run, monkeypatch):
    fetched = run.fetched(200)
    run.month.publish_raw(fetched)
    theirs, mine = run.cleaned(fetched), run.cleaned(fetched, SUSPICIOUS)
    rejected = run.month.rejected_key(theirs.report.file_version)
    report = run.month.report_key(theirs.report.file_version)
    lake.write(rejected, b"of a run that was killed")
    lake.write(report, b"of a run that was killed")
    before(monkeypatch, lake, "delete", rejected, lambda: lake.write(rejected, b"of a run that is at work"))
    run.month.publish_clean(mine)
    assert lake.read(rejected)[0] == b"of a run that is at work"
    assert lake.stat(report) is None


def test_two_whole_runs_at_once_end_in_one_whole_month(lake, tmp_path):
    def ingest(home):
        fetched = steps.fetch(SampleSource(300), lake, GREEN, home)
        return fetched.raw.sha256, steps.clean(lake, GREEN, home, ENGINE).footer.file_version

    with ThreadPoolExecutor(2) as pool:
        (one, version), (other, _) = pool.map(ingest, (tmp_path / "a", tmp_path / "b"))
    month = LakeMonth(lake, GREEN)
    assert [raw.sha256 for raw in month.versions()[0]] == [one] == [other]
    assert month.is_complete(month.footer(), version)
    assert lake.list("rejected/green/") == [month.rejected_key(version)]
    assert {key.rpartition("/")[2] for key in [*lake.list("raw/"), *lake.list("clean/"), *lake.list("reports/")]} == {
        "green_tripdata_2021-01.csv.gz",
        "manifest.json",
        "trips.parquet",
        f"{version}.json",
    }


@pytest.mark.fault(73)
def test_an_altered_file_of_a_month_is_noticed_and_a_cut_one_by_a_cheap_look(lake, run):
    fetched = run.fetched(200)
    raw = run.month.publish_raw(fetched)
    version = run.month.publish_clean(run.cleaned(fetched)).file_version
    assert run.month.check_files(run.month.footer()).rows_read == 200
    for key in (run.month.clean_key, *run.month.side_keys_of(version)):
        whole = lake.read(key)[0]
        middle = len(whole) // 2
        lake.write(key, whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
        with pytest.raises(DamagedFile, match=r"Run taxi ingest green 2021-01, which cleans the month again"):
            run.month.check_files(run.month.footer())
        lake.write(key, whole[:middle])
        assert run.month.find_damage(raw, run.month.footer())
        lake.write(key, whole)
        assert run.month.find_damage(raw, run.month.footer()) is None
    lake.write(raw.key, lake.read(raw.key)[0][:-1])
    assert not run.month.has_raw(raw)
    assert "fetches it again" in run.month.find_damage(raw, run.month.footer()).remedy
