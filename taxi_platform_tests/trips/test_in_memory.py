"""The DuckDB that writes files is used again, and what one piece of work does to it does not reach the next."""

import os
from pathlib import Path

import duckdb
import pytest

from taxi_platform.trips.engine import Engine
from taxi_platform.trips.in_memory import writing_files
from taxi_platform_tests.support.cleaning_cases import TRIP, clean, green

MARK = "CREATE TABLE IF NOT EXISTS memory.main.mark (of_this_duckdb INTEGER)"
MARKED = "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'mark'"
LARGE = "CREATE TEMP TABLE large AS SELECT uuid()::VARCHAR || uuid()::VARCHAR AS text FROM range(1_000_000)"


def is_marked(engine: Engine, folder: Path) -> bool:
    with writing_files(engine, folder / "spill") as con:
        return con.execute(MARKED).fetchall() == [(1,)]


def marked(engine: Engine, folder: Path) -> Engine:
    with writing_files(engine, folder / "spill") as con:
        con.execute(MARK)
    assert is_marked(engine, folder)
    return engine


def test_one_that_failed_is_not_used_again(tmp_path):
    engine = marked(Engine("61MB"), tmp_path)
    with pytest.raises(duckdb.CatalogException), writing_files(engine, tmp_path / "spill") as con:
        con.execute("FROM no_such_table")
    assert not is_marked(engine, tmp_path)


def test_one_that_spilled_is_not_used_again_and_the_next_spills_into_its_own_folder(tmp_path):
    engine = marked(Engine("62MB"), tmp_path)
    for name in ("first", "second"):
        with writing_files(engine, tmp_path / name) as con:
            con.execute(LARGE)
            assert list((tmp_path / name).iterdir())
    assert not is_marked(engine, tmp_path)


def test_two_at_once_have_one_each(tmp_path):
    engine = marked(Engine("63MB"), tmp_path)
    with writing_files(engine, tmp_path / "spill"):
        assert not is_marked(engine, tmp_path)


def test_a_forked_process_opens_its_own(tmp_path):
    engine = marked(Engine("64MB"), tmp_path)
    if (child := os.fork()) == 0:
        os._exit(is_marked(engine, tmp_path))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("reject", [(), ("exact_duplicate",)])
def test_cleaning_leaves_nothing_in_it(tmp_path, reject):
    engine = marked(Engine("512MB", 3), tmp_path)
    made = clean(green(TRIP, TRIP, "trip_distance=x") + b"too few\n", reject=reject, threads=3)
    assert made.report.rows_read == 4 and len(made.rejected) == 2 + len(reject)
    with writing_files(engine, tmp_path / "spill") as con:
        assert con.execute("SELECT table_name FROM duckdb_tables()").fetchall() == [("mark",)]
        assert con.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall() == []
