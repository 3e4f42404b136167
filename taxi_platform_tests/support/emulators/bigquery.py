"""local-bigquery in a child process, from the environment that scripts/bigquery_emulator.sh makes.

It shows that our calls are well formed and our logic holds together, not how the real service behaves: it bills
nothing, and it takes types that BigQuery refuses.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from taxi_platform_tests.support.emulators import running

ROOT = Path(__file__).parents[3]
SETUP = ROOT / "scripts" / "bigquery_emulator.sh"
NO_PYTHON = 3
"""The script's exit status where the machine has no Python for it."""


@contextmanager
def bigquery_emulator(folder: Path, storage: str) -> Iterator[str]:
    """Run the emulator over the storage emulator at `storage`; yields the value for BIGQUERY_EMULATOR_HOST."""
    server = Path(__file__).with_name("bigquery_server.py")
    (folder / "data").mkdir(parents=True)
    command = [str(python()), str(server), str(folder / "data")]
    with running(command, folder, {"STORAGE_EMULATOR_HOST": storage}) as url:
        yield url


def python() -> Path:
    """The emulator's own interpreter, set up once; the test is skipped where that cannot be, and fails so under CI."""
    with FileLock(ROOT / ".venv-bigquery.lock"):
        made = subprocess.run(["sh", str(SETUP)], capture_output=True, text=True)
    if made.returncode == NO_PYTHON:
        pytest.skip(made.stderr.strip())
    if made.returncode:
        reason = f"The BigQuery emulator could not be set up: {made.stderr.strip()[-500:]}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return Path(made.stdout.strip())
