"""People who read while months are loaded: through `trips.duckdb` beside every load, or in the warehouse's own file."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from taxi_platform_tests.support.system import TAXI, wait_for
from taxi_platform_tests.test_cli import taxi

pytestmark = pytest.mark.slow

NOTEBOOK = """
import sys
from pathlib import Path

import duckdb

path, done = sys.argv[1], Path(sys.argv[2])
query = "SELECT file_month, count(*), count(DISTINCT file_version) FROM green_trips GROUP BY 1"
open_since_start = duckdb.connect(path, read_only=True)
print("open", flush=True)
connects, months = 0, set()
while not done.exists():
    with duckdb.connect(path, read_only=True) as con:
        rows = con.execute(query).fetchall()
    connects += 1
    months.add(len(rows))
    assert {(count, versions) for _, count, versions in rows} == {(999, 1)}, rows
    assert {(count, versions) for _, count, versions in open_since_start.execute(query).fetchall()} == {(999, 1)}
print(connects, *sorted(months))
"""

HOLDER = """
import sys

import duckdb

con = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == "reads")
print("open", flush=True)
sys.stdin.readline()
con.close()
print("closed", flush=True)
"""


@contextmanager
def program(code: str, *arguments: object):
    """Another program that has opened its file."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], **pipes) as process:
        try:
            assert process.stdout.readline() == "open\n"
            yield process
        finally:
            process.kill()


def close(holder: subprocess.Popen) -> None:
    """Let the holder close its file, and wait until it has."""
    assert holder.poll() is None
    holder.stdin.write("\n")
    holder.stdin.flush()
    assert holder.stdout.readline() == "closed\n"


@pytest.fixture
def home(tmp_path) -> Path:
    """A home with green 2020-01."""
    assert taxi("ingest", "green", "2020-01", TAXI_DATASETS="green")[0] == 0
    return tmp_path / "home"


@pytest.mark.fault(56)
def test_a_notebook_that_keeps_the_views_open_and_months_that_are_loaded_do_not_notice_each_other(home, tmp_path):
    done = tmp_path / "done"
    with program(NOTEBOOK, home / "trips.duckdb", done) as notebook:
        status, out, err = taxi("ingest", "green", "2020-02", "2020-05", "--json", TAXI_DATASETS="green")
        done.touch()
        connects, *months = map(int, notebook.stdout.readline().split())
        assert notebook.wait(300) == 0
    assert (status, [month["status"] for month in json.loads(out)]) == (0, ["loaded"] * 4), err
    assert connects >= 2
    assert months[0] < 5  # it read while months were still to come
    with duckdb.connect(str(home / "trips.duckdb"), read_only=True) as con:
        assert con.execute("SELECT count(DISTINCT file_month) FROM green_trips").fetchone() == (5,)


@pytest.mark.fault(42, 56)
def test_a_reader_of_the_warehouse_makes_a_load_wait_and_then_fail_with_the_readers_process_id(home):
    with program(HOLDER, home / "warehouse.duckdb", "reads") as reader:
        status, _, err = taxi("ingest", "green", "2020-02", "--no-patient", TAXI_DATASETS="green")
        assert reader.poll() is None
        assert status == 1
        assert f"(PID {reader.pid})" in err and "open trips.duckdb in TAXI_HOME instead" in err
    assert taxi("ingest", "green", "2020-02", TAXI_DATASETS="green")[0] == 0


@pytest.mark.fault(56)
def test_a_load_that_nobody_watches_waits_for_a_reader_of_the_warehouse_beyond_its_first_try(home):
    environment = {**os.environ, "TAXI_SOURCE_URL": "sample://?rows=1000", "TAXI_DATASETS": "green"}
    command = [TAXI, "ingest", "green", "2020-02", "--jobs", "1"]
    with (
        program(HOLDER, home / "warehouse.duckdb", "reads") as reader,
        dg.DagsterInstance.from_config(str(home / "dagster")) as instance,
        subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as load,
    ):

        def waits_for_another_try():
            (run, *_) = instance.get_runs(limit=1)
            return instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_UP_FOR_RETRY)

        (waiting, *_) = wait_for(waits_for_another_try)
        assert waiting.dagster_event.step_key == "green__trips"
        close(reader)
        _, err = load.communicate(timeout=300)
    assert load.returncode == 0, err
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as con:
        assert con.execute("SELECT count(DISTINCT file_month) FROM green_trips").fetchone() == (2,)


@pytest.mark.fault(51)
def test_the_status_does_not_wait_for_a_program_that_writes_into_the_warehouse(home):
    with program(HOLDER, home / "warehouse.duckdb", "writes") as writer:
        status, out, err = taxi("status", TAXI_DATASETS="green")
        _, diagnosis, _ = taxi("doctor", TAXI_DATASETS="green")
        close(writer)  # only now: both commands have returned while the file was held
    assert status == 0, err
    assert f"(PID {writer.pid})" in diagnosis
    assert f"(PID {writer.pid})" in err
    assert "Months that are clean in the lake are shown as unknown." in err
    assert "●" not in out
    assert "●" in taxi("status", TAXI_DATASETS="green")[1]
