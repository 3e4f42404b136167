"""local-bigquery in a child process, from the environment that scripts/bigquery_emulator.sh makes.

It shows that our calls are well formed and our logic holds together, not how the real service behaves: it bills
nothing, and it takes types that BigQuery refuses.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from taxi_platform_tests.support.emulators import running

ROOT = Path(__file__).parents[3]
SETUP = ROOT / "scripts" / "bigquery_emulator.sh"
NO_PYTHON = 3
"""The script's exit status where the machine has no Python for it."""


class NoEmulator(Exception):
    """The emulator does not run here; the message says why. `lacks_python`: the machine has no Python for it."""

    def __init__(self, message: str, lacks_python: bool) -> None:
        super().__init__(message)
        self.lacks_python = lacks_python


@contextmanager
def bigquery_emulator(folder: Path, storage: str) -> Iterator[str]:
    """Run the emulator over the storage emulator at `storage`; yields the value for BIGQUERY_EMULATOR_HOST.

    Raises `NoEmulator`.
    """
    server = Path(__file__).with_name("bigquery_server.py")
    (folder / "data").mkdir(parents=True)
    command = [str(python()), str(server), str(folder / "data")]
    with running(command, folder, {"STORAGE_EMULATOR_HOST": storage}) as url:
        yield url


def python() -> Path:
    """The emulator's own interpreter, set up once; raises `NoEmulator` where that cannot be."""
    with FileLock(ROOT / ".venv-bigquery.lock"):
        made = subprocess.run(["sh", str(SETUP)], capture_output=True, text=True)
    if made.returncode == NO_PYTHON:
        raise NoEmulator(made.stderr.strip(), lacks_python=True)
    if made.returncode:
        reason = f"The BigQuery emulator could not be set up: {made.stderr.strip()[-500:]}"
        raise NoEmulator(reason, lacks_python=False)
    return Path(made.stdout.strip())
