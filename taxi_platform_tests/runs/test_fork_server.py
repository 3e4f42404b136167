"""The workers of `--jobs` come from a process that has imported what they need."""

import subprocess
import sys

import pytest

CONTEXT = (
    "from taxi_platform.runs.fork_server import context_of_workers; print(context_of_workers().get_start_method())"
)


def start_method(before=""):
    done = subprocess.run([sys.executable, "-c", before + CONTEXT], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere system libraries may not survive a fork")
def test_workers_are_forked_and_new_pythons_where_no_folder_for_temporary_files_can_be_written():
    assert start_method() == "forkserver"
    assert start_method("import tempfile; tempfile.tempdir = '/no/such/folder'; ") == "spawn"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each worker is a new Python")
def test_what_workers_are_forked_from_has_one_thread_and_no_connection():
    code = "import taxi_platform.warm.workers, psutil; own = psutil.Process(); "
    code += "print(own.num_threads(), own.net_connections(), [file.path for file in own.open_files()])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1 [] []\n"


def test_each_of_two_ingestions_of_a_process_has_its_own_settings(tmp_path):
    code = (
        "import os, sys\n"
        "from click.testing import CliRunner\n"
        "from taxi_platform.cli_ingest import ingest\n"
        "if __name__ == '__main__':\n"
        "    for home in sys.argv[1:]:\n"
        "        os.environ.pop('DAGSTER_HOME', None)\n"
        "        os.environ['TAXI_HOME'] = home\n"
        "        result = CliRunner().invoke(ingest, ['green', '2020-01', '2020-02', '--jobs', '2'])\n"
        "        assert result.exit_code == 0, result.output\n"
    )
    (tmp_path / "twice.py").write_text(code)
    homes = [tmp_path / "a", tmp_path / "b"]
    subprocess.run([sys.executable, tmp_path / "twice.py", *homes], check=True)
    for home in homes:
        assert len(list(home.glob("lake/clean/green/*/trips.parquet"))) == 2
