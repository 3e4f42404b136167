"""Real files of the TLC beside the project: tests that need them are skipped where they are absent."""

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared" / "tlc"


def shared_file(name: str) -> Path:
    """A file or folder below `shared/tlc`, for example `files/green_tripdata_2020-04.csv.gz`."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs shared/tlc/{name} beside the project")
    return path
