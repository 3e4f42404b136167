"""What is installed is what was locked: every version has hashes, every script asks for them, no index is named."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCKS = sorted(path.name for path in ROOT.glob("requirements*.lock"))


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_version_is_exact_and_has_hashes(name):
    entries = re.split(r"\n(?=\S)", (ROOT / name).read_text().strip())
    assert entries
    for entry in entries:
        assert re.match(r"[a-z0-9][a-z0-9._-]*(\[[a-z,]+\])?==[^\s;]+", entry), entry
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry
        assert "://" not in entry


def test_the_locks_are_those_that_scripts_install():
    scripts = "".join(path.read_text() for path in (ROOT / "scripts").glob("*.sh"))
    assert LOCKS
    assert all(name in scripts for name in LOCKS)


def test_no_script_installs_anything_without_hashes_but_the_project_itself():
    installs = []
    for script in sorted((ROOT / "scripts").glob("*.sh")):
        lines = script.read_text().replace("\\\n", " ").splitlines()
        installs += [line.strip() for line in lines if re.search(r"\binstall\b.*( -r | -e )", line)]
    assert len(installs) >= 5
    assert [line for line in installs if "--require-hashes" not in line] == [
        "install --no-deps --no-build-isolation -e ."
    ]
