"""What steps print is shown on the terminal, whole, without a process for it."""

import subprocess
import sys

PRINTING = """
import os, sys, dagster as dg, psutil
from taxi_platform.runs.instance import open_instance
from taxi_platform.settings import load_settings

@dg.op
def talk():
    print("to the terminal")
    os.write(2, b"to stderr, past Python\\n")
    print("children:", len(psutil.Process().children()))

@dg.job(executor_def=dg.in_process_executor)
def job():
    talk()

with open_instance(load_settings()) as instance:
    job.execute_in_process(instance=instance)
for kind in ("out", "err"):
    [path] = load_settings().dagster_home.rglob(f"compute_logs/*.{kind}")
    line = {"out": "to the terminal", "err": "to stderr, past Python"}[kind]
    print("stored:", path.read_text().splitlines().count(line))
"""


def test_what_a_step_prints_is_shown_and_stored_and_takes_no_process():
    done = subprocess.run([sys.executable, "-c", PRINTING], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "to the terminal",
        "children: 0",
        "stored: 1",
        "stored: 1",
    ]
    assert done.stderr.count("to stderr, past Python\n") == 1
