"""docs/course.md: every query runs, and the answers hold where the real files are at hand."""

import re
from pathlib import Path

import duckdb
import pytest

from taxi_platform.ingestion import steps
from taxi_platform.ingestion.views import refresh_views, views_path
from taxi_platform.lake import open_lake
from taxi_platform.sources import open_source
from taxi_platform.trips.engine import Engine
from taxi_platform.trips.months import Dataset, DatasetMonth

PAGE = Path(__file__).parents[2] / "docs" / "course.md"
FILES = PAGE.parents[2] / "shared" / "tlc" / "files"
QUESTION = re.compile(
    r"^### ([^\n]+) Files: (course|TLC), ([^\n]+)\n[^#`]*```sql\n([^`]+)```\n\nAnswer: ([^\n]+)$", re.MULTILINE
)
QUESTIONS = [match.groups() for match in QUESTION.finditer(PAGE.read_text("utf-8"))]
REAL = {"green 2020-04": "csv.gz", "green 2020-11": "csv.gz", "green 2024-01": "parquet"}


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """`trips.duckdb` over a lake without months."""
    home = tmp_path_factory.mktemp("empty")
    refresh_views(open_lake((home / "lake").as_uri()), home)
    with duckdb.connect(str(views_path(home)), read_only=True) as con:
        yield con


@pytest.fixture(scope="module")
def trips(tmp_path_factory):
    """`trips.duckdb` over the real months."""
    if not FILES.is_dir():
        pytest.skip("needs the real files of ../shared/tlc")
    home = tmp_path_factory.mktemp("course")
    lake = open_lake((home / "lake").as_uri())
    for name, extension in REAL.items():
        source = open_source(f"{FILES.as_uri()}/{{dataset}}_tripdata_{{month}}.{extension}", [Dataset.GREEN])
        dataset_month = DatasetMonth.parse(*name.split())
        steps.fetch(source, lake, dataset_month, home)
        steps.clean(lake, dataset_month, home, Engine())
    refresh_views(lake, home)
    with duckdb.connect(str(views_path(home)), read_only=True) as con:
        yield con


def test_every_question_of_the_page_is_found():
    assert len(QUESTIONS) == PAGE.read_text("utf-8").count("```sql") == 20
    assert {months for _, _, months, _, _ in QUESTIONS} >= set(REAL)


@pytest.mark.parametrize("query", [query for *_, query, _ in QUESTIONS])
def test_every_query_runs_where_no_month_is_loaded(empty, query):
    assert len(empty.sql(query).fetchall()) <= 1


@pytest.mark.parametrize(
    ("months", "query", "answer"), [(months, q, answer) for _, _, months, q, answer in QUESTIONS if months in REAL]
)
def test_the_answers_hold_on_the_real_files(trips, months, query, answer):
    (row,) = trips.sql(query).fetchall()
    assert ", ".join(map(str, row)) == answer
