"""`dagster.yaml` in Dagster's home: written whole or not at all, and checked at every start.

Without it Dagster runs with telemetry on, without limits, and never runs a killed run again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import tempfile
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from taxi_platform.trips.errors import UserError
from taxi_platform.trips.machine import MEMORY_OF_RUN, Machine, this_machine
from taxi_platform.trips.replacing import replacing

FILE = "dagster.yaml"
EARLIER = ("dagster_1.yaml", "dagster_2.yaml")
"""What earlier versions wrote: replaced by today's text, unless somebody edited it."""
LIMIT = re.compile(rb"max_concurrent_runs: (\d+) # for (\d+) cores and (\d+) GB\n")
"""The line that fits the machine. Where number and machine agree, nobody edited it, and another machine changes it."""

REQUIRED = {
    "telemetry.enabled": (False, "Dagster reports usage to its makers"),
    "run_monitoring.enabled": (True, "the runs of killed processes are never reported as failed"),
    "run_retries.enabled": (True, "killed runs are not run again"),
    "concurrency.pools.default_limit": (None, "any number of runs fetch from the source at once"),
    "concurrency.runs.max_concurrent_runs": (None, "ten runs at once share the memory of this machine"),
}
"""Setting → the value that we rely on (None: any), and what happens without it."""

log = logging.getLogger(__name__)


def write_dagster_yaml(home: Path) -> None:
    """Make sure that the home's `dagster.yaml` is complete; safe for several processes at once.

    One that we wrote is replaced if it is damaged (kept as `dagster.yaml.damaged`) or of an earlier version. One that
    somebody edited stays; a warning names what it lacks. Raises `UserError` if it is not YAML, and `OSError` where the
    home cannot be read or written.
    """
    home.mkdir(parents=True, exist_ok=True)
    path = home / FILE
    ours = text_for(this_machine())
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        replace_file(path, ours)
        return
    if content == ours:
        return
    texts = [ours, *map(_text, EARLIER)]
    if content in texts or _is_for_another_machine(content):
        replace_file(path, ours)
    elif _is_damaged(content, texts):
        replace_file(path.with_name(f"{FILE}.damaged"), content)
        replace_file(path, ours)
        log.warning("%s was damaged and has been written again; the old file is %s.damaged.", path, FILE)
    else:
        _check(path, content)


def without_url_characters(home: Path) -> Path:
    """The home, by a path that Dagster can make a part of SQLite's URLs: through a link if it contains `%` or `?`.

    Raises `UserError` if somebody else has put something in the link's place.
    """
    if not re.search("[%?]", str(home)):
        return home
    digest = hashlib.sha256(str(home).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    link = Path(tempfile.gettempdir(), f"taxi-home-{digest}")
    with suppress(FileExistsError):
        link.symlink_to(home, target_is_directory=True)
    if link.is_symlink() and link.readlink() == home and link.lstat().st_uid == os.getuid():
        return link
    raise UserError(f"{link} is not our link to {home}.", "Remove it, or choose a TAXI_HOME without a %.")


def text_for(machine: Machine) -> bytes:
    """What we write on this machine."""
    return _filled(machine.runs, machine.cores, _gigabytes(machine))


def _filled(runs: int, cores: int, gigabytes: int) -> bytes:
    text = _text(FILE).replace(b"RUNS", b"%d" % runs)
    return text.replace(b"CORES", b"%d" % cores).replace(b"GIGABYTES", b"%d" % gigabytes)


def _gigabytes(machine: Machine) -> int:
    return machine.memory // MEMORY_OF_RUN


def _is_for_another_machine(content: bytes) -> bool:
    """Whether we wrote it, on a machine with other limits."""
    if not (line := LIMIT.search(content)):
        return False
    runs, cores, gigabytes = map(int, line.groups())
    fits = Machine(cores, gigabytes * MEMORY_OF_RUN).runs
    return runs == fits and content == _filled(runs, cores, gigabytes)


def _text(name: str) -> bytes:
    return resources.files("taxi_platform.runs").joinpath(name).read_bytes()


def _is_damaged(content: bytes, texts: list[bytes]) -> bool:
    """Whether this is what a crash or a full disk leaves of a file: nothing, zeros, or the beginning of our text."""
    rest = content.rstrip(b"\0 \r\n")
    return b"\0" in content or any(text.startswith(rest) for text in texts)


def _check(path: Path, content: bytes) -> None:
    try:
        settings = yaml.safe_load(content)
        if not isinstance(settings, dict):
            raise ValueError("it is not a mapping of settings")
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read: {yaml_problem(error)}.",
            "Correct it, or move it away: the next start writes a new one.",
        ) from None
    for name, (expected, consequence) in REQUIRED.items():
        value = _value(settings, name)
        if value is None or (expected is not None and value is not expected):
            wanted = name if expected is None else f"{name}: {str(expected).lower()}"
            log.warning("%s lacks %s: %s. Add it, or move the file away to get ours.", path, wanted, consequence)


def yaml_problem(error: Exception) -> str:
    """What is wrong with a file, and where, without the text of the file: it may hold a password."""
    if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark):
        said = ", ".join(filter(None, (error.context, error.problem)))
        said = re.sub("'[^']*'", "'…'", said)
        return f"{said}, in line {mark.line + 1}, column {mark.column + 1}"
    return " ".join(str(error).split())


def _value(settings: Any, name: str) -> Any:
    for key in name.split("."):
        settings = settings.get(key) if isinstance(settings, dict) else None
    return settings


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file durably: whoever reads it, also after a crash, finds the old content or the new."""
    with replacing(path) as temporary, temporary.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if os.name != "nt":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
