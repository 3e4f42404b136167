"""Earlier versions of the platform, run with what was locked then; `scripts/make_kept_version.sh` packs them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KEPT = Path(__file__).parents[1] / "kept"
BEFORE = "447be77"
"""The last commit of 0.1.0, the version before this one."""
WITHOUT_MARTS = "ac4524d"
"""0.1.0 three days earlier: its months have no marts and no checksums."""
TAXI = "from taxi_platform.cli import main; main()"


@dataclass(frozen=True)
class PlatformVersion:
    """A version that can be run: `folder` has its package, `dependencies` what it needs and today's lock has not."""

    folder: Path
    dependencies: Path | None = None

    @property
    def environment(self) -> dict[str, str]:
        """This process's variables, with this version's package and dependencies before today's."""
        paths = [self.folder, *([self.dependencies] if self.dependencies else [])]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}

    def python(self, code: str, *arguments: str, cwd: Path) -> str:
        """What the code printed; fails with its errors."""
        command = [sys.executable, "-c", code, *arguments]
        ended = subprocess.run(command, env=self.environment, cwd=cwd, capture_output=True, text=True, timeout=300)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def taxi(self, *arguments: str, cwd: Path) -> str:
        """What the command `taxi` of this version printed."""
        return self.python(TAXI, *arguments, cwd=cwd)


TODAY = PlatformVersion(ROOT)


def unpack(commit: str, folder: Path) -> PlatformVersion:
    """The version at this commit, in an empty folder.

    Skips, except in CI, where a package of another version cannot be installed without the network.
    """
    with tarfile.open(KEPT / f"version_{commit}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    changed = changed_requirements((folder / "requirements.lock").read_text(), (ROOT / "requirements.lock").read_text())
    if not changed:
        return PlatformVersion(folder)
    target = folder / "dependencies"
    _install(changed, target)
    return PlatformVersion(folder, target)


def changed_requirements(before: str, today: str) -> str:
    """The entries of a lock that today's does not have in the same version, with their hashes."""
    known = set(map(_pin, _entries(today)))
    return "\n".join(entry for entry in _entries(before) if _pin(entry) not in known)


def _entries(lock: str) -> list[str]:
    return [entry for entry in re.split(r"\n(?=\S)", lock.strip()) if entry]


def _pin(entry: str) -> str:
    return entry.partition(" ")[0]


def _install(requirements: str, target: Path) -> None:
    lock = target.with_suffix(".lock")
    lock.write_text(requirements)
    python = Path(sys.executable)
    asked = subprocess.run(
        [python, "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True, timeout=300
    )
    index = {"UV_DEFAULT_INDEX": asked.stdout.strip()} if asked.stdout.strip() else {}
    command = [python.with_name("uv"), "pip", "install", "--quiet", "--python", python, "--target", target]
    ended = subprocess.run(
        [*command, "--no-deps", "--require-hashes", "-r", lock],
        env={**os.environ, "UV_SYSTEM_CERTS": "1", **index},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if ended.returncode and not os.environ.get("CI"):
        pytest.skip(f"cannot install what the earlier version was locked to: {ended.stderr.strip()[-300:]}")
    assert ended.returncode == 0, ended.stderr
