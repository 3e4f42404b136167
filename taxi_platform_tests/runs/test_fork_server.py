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
