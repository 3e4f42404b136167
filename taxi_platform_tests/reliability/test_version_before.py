"""Two versions of the platform over one lake, in turn: today's, and the one before it (a rollback, a mixed rollout).

`scripts/make_kept_version.sh` packed the version before.
"""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import duckdb
import pytest

from taxi_platform.lake import open_lake
from taxi_platform.lake.months import LakeMonth
from taxi_platform.trips.months import DatasetMonth

ARCHIVE = Path(__file__).parents[1] / "kept" / "version_before.tar.gz"
TODAY = Path(__file__).parents[2]
GREEN = DatasetMonth.parse("green", "2020-04")

RUN = """
import json, sys
from pathlib import Path
import taxi_platform
from taxi_platform.ingestion import steps
from taxi_platform.ingestion.survey import Survey, ask_never
from taxi_platform.lake import open_lake
from taxi_platform.sources import open_source
from taxi_platform.trips.cleaning import Engine
from taxi_platform.trips.errors import TaxiError
from taxi_platform.trips.months import Dataset, DatasetMonth
from taxi_platform.warehouse import open_warehouse

home, rows = Path(sys.argv[1]), sys.argv[2]
source, month = open_source(f"sample://?rows={rows}"), DatasetMonth.parse("green", "2020-04")
lake, warehouse = open_lake((home / "lake").as_uri()), open_warehouse(f"duckdb://{home}/warehouse.duckdb")

def stage():
    (state,) = Survey(None, lake, warehouse, Dataset.GREEN).look([month.month], ask_never)
    return state.stage.value

def run():
    unchanged = [
        steps.fetch(source, lake, month, home).unchanged,
        steps.clean(lake, month, home, Engine(threads=1)).unchanged,
        steps.load(lake, warehouse, month, home).unchanged,
    ]
    if hasattr(steps, "build_marts"):  # the version before had none
        steps.build_marts(lake, warehouse, month, home)
    return unchanged

answer = {"from": str(Path(taxi_platform.__file__).parents[1]), "found": stage()}
try:
    answer |= {"first": run(), "second": run(), "left": stage()}
    steps.check_accounted_for(lake, month)
    steps.check_table(lake, warehouse, month, home)
except TaxiError as error:
    answer["refused"] = str(error)
print(json.dumps(answer))
"""


@pytest.fixture
def before(tmp_path):
    """The folder with the package of the version before."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path / "before", filter="data")
    return tmp_path / "before"


def run(version, home, rows=300):
    command = [sys.executable, "-c", RUN, str(home), str(rows)]
    environment = {**os.environ, "PYTHONPATH": str(version)}
    ended = subprocess.run(command, env=environment, cwd=home.parent, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    answer = json.loads(ended.stdout)
    assert answer.pop("from") == str(version)
    return answer


def rows_in_tables(home):
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as con:
        query = "SELECT (SELECT count(*) FROM green_trips) + (SELECT count(*) FROM green_rejected_trips)"
        return con.sql(query).fetchall()[0][0]


@pytest.mark.fault(76)
def test_versions_that_take_turns_over_one_lake_each_find_a_month_that_they_can_read(tmp_path, before):
    home = tmp_path / "home"
    for turn, version in enumerate([TODAY, before, TODAY]):
        rows = 300 if turn < 2 else 350
        answer = run(version, home, rows)
        assert answer["found"] == "unknown" if turn == 0 else answer["found"] in ("loaded", "outdated"), answer
        assert "refused" not in answer, answer
        assert (answer["second"], answer["left"]) == ([True, True, True], "loaded")
        assert rows_in_tables(home) == rows
    # The version before reads what today's wrote over its own files, and keeps every raw file in the manifest.
    assert "refused" not in run(before, home, 350)
    versions, _ = LakeMonth(open_lake((home / "lake").as_uri()), GREEN).versions()
    assert [raw.rows for raw in versions] == [300, 350]


@pytest.mark.fault(76)
def test_a_month_of_the_version_before_is_read_unchanged(tmp_path, before):
    home = tmp_path / "home"
    assert run(before, home)["left"] == "loaded"
    answer = run(TODAY, home)
    assert answer["found"] in ("marts due", "outdated")  # outdated, where today's contract gives other rows
    assert answer["first"] == [True, *[answer["found"] == "marts due"] * 2]
    assert rows_in_tables(home) == 300
