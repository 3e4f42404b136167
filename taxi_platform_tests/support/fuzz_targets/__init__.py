"""The targets of `fuzz.py`, one module each, and what they share."""

from __future__ import annotations

from pathlib import Path
from random import Random

from taxi_platform.sources.file import FileSource
from taxi_platform.trips.errors import TaxiError
from taxi_platform.trips.months import DatasetMonth
from taxi_platform_tests.trips.test_cleaning_properties import Refusal, found

SECRET = "canary7f3a"
TOLD_CHARACTERS = 2000
"""A message goes to logs, to Dagster's database and to people."""

HOSTILE = [
    '"; DROP TABLE staged; --',
    "'); ATTACH 'x.db'; --",
    '"',
    "'",
    "''",
    '""',
    "$1",
    "{}",
    "%s",
    "\\",
    "select",
    "from",
    "ORDER",
    "x" * 10_000,
    "staged",
    "source",
    "reason",
    "column_name",
    "line",
    "text",
    "extra_columns",
    "file_month",
    "bad trip_distance",
    "rowid",
    "filename",
    "file_row_number",
    "a.b",
    "*",
    "é",
    "\u202e",
    "🚕",
    "\x1b[2J",
    " ",
    "",
]
"""Column names."""


def check_told(error: TaxiError | Refusal, shown: str = "") -> None:
    """A message has a problem and a remedy and, like all that is shown elsewhere, no secret."""
    message = f"{error.problem} {error.remedy}"
    assert error.problem and error.remedy, message
    assert SECRET not in message + shown, message + shown


def check_harmless(error: TaxiError | Refusal) -> None:
    """A message about a file's content is also short, and holds nothing that controls a terminal."""
    check_told(error)
    assert len(error.problem) <= TOLD_CHARACTERS, f"{len(error.problem)} characters: {error.problem[:200]}"
    assert error.problem.isprintable(), repr(error.problem)


def check_fetched(dataset_month: DatasetMonth, path: Path, folder: Path) -> int | None:
    """Fetch the file at `path`: the rows counted on the way, or None where it was refused and nothing was left."""
    try:
        fetched = FileSource(str(path)).fetch(dataset_month, folder)
    except TaxiError as error:
        check_harmless(error)
        assert list(folder.iterdir()) == []
        return None
    assert [each.name for each in folder.iterdir()] == [fetched.path.name]
    assert fetched.path.read_bytes() == path.read_bytes()
    return fetched.rows


def cleaned(month: str, data: bytes, folder: Path, careful: bool = False, in_batches: bool = True) -> object:
    """`found` in a folder of its own; a refusal may be shown to people."""
    folder.mkdir()
    ended = found(month, data, careful, folder, in_batches)
    if isinstance(ended, Refusal):
        check_harmless(ended)
    return ended


def mutated(data: bytes, random: Random, tokens: list[bytes], times: int) -> bytes:
    """The bytes with so many places changed, doubled, moved, cut out or overwritten by one of the tokens."""
    for _ in range(times):
        at, to = sorted((random.randint(0, len(data)), random.randint(0, len(data))))
        to = random.choice([to, at + 1, at + random.randint(0, 16)])
        match random.choice(["bits", "token", "overwrite", "double", "move", "drop", "random"]):
            case "bits" if at < len(data):
                data = data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]
            case "token":
                data = data[:at] + random.choice(tokens) + data[at:]
            case "overwrite":
                token = random.choice(tokens)
                data = data[:at] + token + data[at + len(token) :]
            case "double":
                data = data[:to] + data[at:to] + data[to:]
            case "move":
                data, piece = data[:at] + data[to:], data[at:to]
                to = random.randint(0, len(data))
                data = data[:to] + piece + data[to:]
            case "drop":
                data = data[:at] + data[to:]
            case "random":
                data = data[:at] + random.randbytes(random.randint(1, 8)) + data[at:]
    return data
