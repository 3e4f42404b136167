"""Two versions of the platform over one lake, in turn: today's, and an earlier one (a rollback, a mixed rollout)."""

import json
import uuid

import pytest

from taxi_platform.lake import open_lake
from taxi_platform.lake.months import LakeMonth
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.warehouse import open_warehouse
from taxi_platform_tests.support.earlier_versions import BEFORE, TODAY, WITHOUT_MARTS, unpack

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

home, rows, url = Path(sys.argv[1]), *sys.argv[2:]
source, month = open_source(f"sample://?rows={rows}"), DatasetMonth.parse("green", "2020-04")
lake, warehouse = open_lake((home / "lake").as_uri()), open_warehouse(url)

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


@pytest.fixture(
    scope="module", params=[BEFORE, pytest.param(WITHOUT_MARTS, marks=[pytest.mark.slow, pytest.mark.soak])]
)
def before(request, tmp_path_factory):
    """An earlier version."""
    return unpack(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(params=["duckdb", pytest.param("postgres", marks=pytest.mark.slow)])
def url(request, tmp_path):
    """The warehouse's."""
    if request.param == "duckdb":
        return f"duckdb://{tmp_path}/warehouse.duckdb"
    separator = "&" if "?" in (uri := request.getfixturevalue("server_uri")) else "?"
    return f"{uri}{separator}schema=versions_{uuid.uuid4().hex[:8]}"


def run(version, home, url, rows=300):
    answer = json.loads(version.python(RUN, str(home), str(rows), url, cwd=home.parent))
    assert answer.pop("from") == str(version.folder)
    assert "refused" not in answer, answer
    return answer


def rows_in_tables(url):
    warehouse = open_warehouse(url)
    loaded = [warehouse.loaded_month(f"green_{name}", GREEN) for name in ("trips", "rejected_trips")]
    return sum(stored.rows for stored in loaded if stored)


@pytest.mark.fault(76)
def test_versions_that_take_turns_over_one_lake_each_find_a_month_that_they_can_read(tmp_path, before, url):
    home = tmp_path / "home"
    for turn, version in enumerate([TODAY, before, TODAY]):
        rows = 300 if turn < 2 else 350
        answer = run(version, home, url, rows)
        assert answer["found"] == "unknown" if turn == 0 else answer["found"] in ("loaded", "outdated"), answer
        assert (answer["second"], answer["left"]) == ([True, True, True], "loaded")
        assert rows_in_tables(url) == rows
    # The version before reads what today's wrote over its own files, and keeps every raw file in the manifest.
    run(before, home, url, 350)
    versions, _ = LakeMonth(open_lake((home / "lake").as_uri()), GREEN).versions()
    assert [raw.rows for raw in versions] == [300, 350]


@pytest.mark.fault(76)
def test_a_month_of_the_version_before_is_read_unchanged(tmp_path, before, url):
    home = tmp_path / "home"
    assert run(before, home, url)["left"] == "loaded"
    answer = run(TODAY, home, url)
    assert answer["found"] in ("loaded", "marts due", "outdated")  # outdated, where today's contract gives other rows
    assert answer["first"] == [True, *[answer["found"] != "outdated"] * 2]
    assert rows_in_tables(url) == 300
