"""What the operating system refuses in a lake's folder: an error that says which setting, and no other month stops."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from taxi_platform.ingestion import steps
from taxi_platform.ingestion.survey import Stage, Survey, ask_never
from taxi_platform.ingestion.work_folder import work_folder
from taxi_platform.lake import open_lake
from taxi_platform.sources import open_source
from taxi_platform.trips.engine import Engine
from taxi_platform.trips.errors import LakeError
from taxi_platform.trips.months import Dataset, DatasetMonth
from taxi_platform.warehouse import open_warehouse
from taxi_platform_tests.support.system import TAXI

GREEN = DatasetMonth.parse("green", "2020-04")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "lake"


@pytest.fixture
def lake(root):
    return open_lake(root.as_uri())


def uses(lake, key, folder):
    """Everything that a lake can do with a key."""

    def copy():
        with lake.local_copy(key, folder):
            pass

    return {
        "stat": lambda: lake.stat(key),
        "read": lambda: lake.read(key),
        "open": lambda: lake.open(key),
        "copy": copy,
        "list": lambda: lake.list(f"{key}/"),
        "names": lambda: lake.names(f"{key}/"),
        "delete": lambda: lake.delete(key),
        "write": lambda: lake.write(key, b"new"),
    }


@pytest.mark.fault(77)
@pytest.mark.parametrize(
    ("key", "make", "says", "spared"),
    [
        (
            "raw/green/2020-04/x",
            lambda root: file(root / "raw/green/2020-04"),
            "A file is in the place of a folder",
            (),
        ),
        ("raw/green", lambda root: (root / "raw/green/x").mkdir(parents=True), "A folder is in the", ("list", "names")),
        (f"raw/{'x' * 300}", lambda root: (root / "raw").mkdir(parents=True), "to a shorter path", ()),
        ("raw/loop", lambda root: loop(root / "raw/loop"), "link", ()),
    ],
    ids=["a file for a folder", "a folder for a file", "a name that is too long", "a link to itself"],
)
@pytest.mark.parametrize("setting", ["TAXI_LAKE_URL", "TAXI_HOME"])
def test_every_use_ends_in_the_lakes_own_error(lake, root, tmp_path, monkeypatch, key, make, says, spared, setting):
    if setting == "TAXI_LAKE_URL":
        monkeypatch.setenv(setting, root.as_uri())
    make(root)
    for name, use in uses(lake, key, tmp_path).items():
        if name in spared:
            use()
            continue
        with pytest.raises(LakeError) as caught:
            use()
        assert says in caught.value.remedy, (name, caught.value)
        assert ("TAXI_" not in caught.value.remedy) or setting in caught.value.remedy, name


def file(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b"a file")


def loop(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.symlink_to(path)


@pytest.mark.fault(77)
def test_a_file_in_the_place_of_a_months_folder_stops_no_other_month(lake, root, tmp_path):
    source, warehouse = open_source("sample://?rows=50"), open_warehouse(f"duckdb://{tmp_path}/w.duckdb")
    bad = DatasetMonth.parse("green", "2020-03")
    file(root / "raw" / "green" / "2020-03")
    for dataset_month in (bad, GREEN):
        try:
            steps.fetch(source, lake, dataset_month, tmp_path)
            steps.clean(lake, dataset_month, tmp_path, Engine(threads=1))
            steps.load(lake, warehouse, dataset_month, tmp_path)
            steps.build_marts(lake, warehouse, dataset_month, tmp_path)
        except LakeError as error:
            assert dataset_month == bad
            assert "A file is in the place of a folder" in error.remedy
    states = Survey(None, lake, warehouse, Dataset.GREEN).look([bad.month, GREEN.month], ask_never)
    assert [state.stage for state in states] == [Stage.FAILED, Stage.LOADED]


JUDGE = """
import sys
from pathlib import Path
from taxi_platform.ingestion import steps
from taxi_platform.ingestion.survey import Survey, ask_never
from taxi_platform.lake import open_lake
from taxi_platform.trips.engine import Engine
from taxi_platform.trips.errors import LakeError
from taxi_platform.trips.months import Dataset, DatasetMonth, Month
from taxi_platform.warehouse import open_warehouse
from taxi_platform_tests.support.system import TAXI
home = Path(sys.argv[1])
lake, warehouse = open_lake((home / "lake").as_uri()), open_warehouse(f"duckdb://{home}/w.duckdb")
survey = Survey(None, lake, warehouse, Dataset.GREEN)
print(sorted(str(month) for month in survey.months_in_lake))
print([state.stage.value for state in survey.look([Month(2020, 3), Month(2020, 4)], ask_never)])
for month in ("2020-04", "2020-03"):
    try:
        steps.clean(lake, DatasetMonth.parse("green", month), home, Engine(threads=1), force=True)
    except LakeError as error:
        print(error)
"""


WITHOUT_RIGHTS = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
needs_root = pytest.mark.skipif(
    os.getuid() != 0 or not shutil.which("setpriv"), reason="giving up root's rights needs root"
)


@needs_root
@pytest.mark.fault(77, 103, 171)
def test_who_may_only_read_a_home_gets_the_overview_and_is_told_what_is_not_permitted(tmp_path):
    def taxi(*arguments, rights=(), **settings):
        environment = os.environ | {"TAXI_HOME": str(home), "TAXI_DATASETS": "green"} | settings
        done = subprocess.run([*rights, TAXI, *arguments], capture_output=True, text=True, env=environment, timeout=300)
        return done.returncode, done.stdout + done.stderr

    home, lake = tmp_path / "home", tmp_path / "home/lake"
    assert taxi("ingest", "green", "2020-04")[0] == 0
    for path in (home, *home.rglob("*")):
        path.chmod(path.stat().st_mode & 0o555)
    refused = f"Cannot write {lake.as_uri()}/.locks: Permission denied. Let this user read and write it"
    status, said = taxi("overview", rights=WITHOUT_RIGHTS)
    assert status == 0 and f"{home}/overview.html cannot be written" in said
    for command in (["status"], ["ingest", "green", "2020-04"]):
        status, said = taxi(*command, rights=WITHOUT_RIGHTS)
        assert status == 1 and "Give the user that runs the platform access to it, or set TAXI_HOME" in said
    status, said = taxi("audit", "green", "2020-04", rights=WITHOUT_RIGHTS)
    assert status == 1 and said.count(refused) == 1
    own = {"TAXI_HOME": str(tmp_path / "own"), "TAXI_LAKE_URL": lake.as_uri()}
    status, said = taxi("ingest", "green", "2020-04", rights=WITHOUT_RIGHTS, **own)
    assert status == 1 and f"green 2020-04: {refused}" in said


@needs_root
@pytest.mark.fault(77)
def test_files_that_may_not_be_read_are_named_and_stop_no_other_month(tmp_path):
    lake = open_lake((tmp_path / "lake").as_uri())
    for month in ("2020-03", "2020-04"):
        steps.fetch(open_source("sample://?rows=50"), lake, DatasetMonth.parse("green", month), tmp_path)
    raw = next((tmp_path / "lake/raw/green/2020-04").rglob("*.gz"))
    raw.chmod(0)
    (tmp_path / "lake/raw/green/2020-03").chmod(0)
    command = [*WITHOUT_RIGHTS, sys.executable, "-c", JUDGE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    listed, stages, unreadable, closed = done.stdout.splitlines()
    assert listed == "['2020-03', '2020-04']"
    assert stages == "['failed', 'raw']"
    assert unreadable.startswith(f"Cannot read {raw.as_uri()}: Permission denied. Let this user read")
    assert "2020-03/manifest.json: Permission denied" in closed


def test_an_error_about_a_file_elsewhere_does_not_blame_the_work_folder(tmp_path):
    elsewhere = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "lake" / "raw"))
    with pytest.raises(PermissionError), work_folder(tmp_path, GREEN):
        raise elsewhere
    with pytest.raises(LakeError, match=r"Cannot work in .*No space left.*disk is full"), work_folder(tmp_path, GREEN):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.fault(78)
def test_folders_that_were_made_are_synced_up_to_the_one_that_was_there(tmp_path, monkeypatch):
    """Each new folder is an entry of the one above it, which a power failure loses unless that one is synced."""
    synced, sync = set(), os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.add(Path(f"/proc/self/fd/{fd}").readlink()), sync(fd))[1])
    root = tmp_path / "a" / "lake"
    open_lake(root.as_uri()).write("reports/green/month=2020-04/x.json", b"{}")
    folder = root / "reports/green/month=2020-04"
    assert {folder, *folder.parents[:5]} <= synced
