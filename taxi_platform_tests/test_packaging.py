"""The wheel and the sdist: what they hold, what they ask for, and that building them again gives the same bytes."""

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from taxi_platform import __version__

ROOT = Path(__file__).parents[1]
SOURCES = ("taxi_platform", "docs", "scripts", "README.md", "CHANGELOG.md", "LICENSE", "NOTICE", "requirements.lock")
SOURCES += ("deploy", "workspace.yaml", "pyproject.toml", ".gitignore")
LARGEST = 600_000
"""Bytes of either file; the data in the package are 200 kB as they are."""


def build(checkout, folder, *targets):
    """The built files by their kind. `scripts/build.sh` does the same, with the time of the commit."""
    chosen = [option for target in targets for option in ("--target", target)]
    command = [sys.executable, "-m", "hatchling", "build", *chosen, "--directory", str(folder)]
    environment = {"SOURCE_DATE_EPOCH": "1790000000", "PATH": "/usr/bin:/bin"}
    subprocess.run(command, cwd=checkout, env=environment, check=True, capture_output=True, timeout=120)
    return {path.suffix: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what is built from, with what a working copy gathers beside it."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in SOURCES:
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, folder / name)
    (folder / "data").mkdir()
    (folder / "data" / "warehouse.duckdb").write_bytes(b"rows")
    (folder / "taxi_platform" / "__pycache__").mkdir(exist_ok=True)
    (folder / "taxi_platform" / "__pycache__" / "x.pyc").write_bytes(b"bytes")
    return folder


@pytest.fixture(scope="module")
def built(checkout, tmp_path_factory):
    return build(checkout, tmp_path_factory.mktemp("dist"), "sdist", "wheel")


@pytest.fixture(scope="module")
def metadata(built):
    with zipfile.ZipFile(built[".whl"]) as wheel:
        return message_from_string(wheel.read(f"taxi_platform-{__version__}.dist-info/METADATA").decode())


def test_the_wheel_holds_the_package_with_its_data_and_nothing_else(built):
    with zipfile.ZipFile(built[".whl"]) as wheel:
        names = set(wheel.namelist())
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "taxi_platform").rglob("*") if path.is_file()}
    package = {name for name in package if "__pycache__" not in name}
    assert {Path(name).suffix for name in package} >= {".py", ".toml", ".sql", ".csv", ".yaml", ".topojson", ".html"}
    information = f"taxi_platform-{__version__}.dist-info"
    assert names - package == {
        *(f"{information}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt")),
        *(f"{information}/licenses/{name}" for name in ("LICENSE", "NOTICE")),
    }
    assert package - names == set()


def test_the_sdist_holds_what_the_wheel_is_built_from_and_the_docs(built):
    with tarfile.open(built[".gz"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {name.partition("/")[0] for name in names} - set(SOURCES) == {"PKG-INFO"}
    assert {"docs/upgrading.md", "requirements.lock", "LICENSE", "NOTICE", "CHANGELOG.md"} <= names
    assert {"deploy/server/taxi.service", "deploy/monitoring/taxi-rules.yml", "workspace.yaml"} <= names
    assert not [name for name in names if name.endswith((".pyc", ".png", ".duckdb", ".tar.gz"))]
    assert max(path.stat().st_size for path in built.values()) < LARGEST


def test_building_again_elsewhere_and_from_the_sdist_gives_the_same_bytes(checkout, built, tmp_path):
    again = build(checkout, tmp_path / "again", "sdist", "wheel")
    assert {kind: path.read_bytes() for kind, path in again.items()} == {
        kind: path.read_bytes() for kind, path in built.items()
    }
    with tarfile.open(built[".gz"]) as archive:
        archive.extractall(tmp_path, filter="data")
    from_sdist = build(tmp_path / f"taxi_platform-{__version__}", tmp_path / "from_sdist", "wheel")
    assert from_sdist[".whl"].name == built[".whl"].name
    assert from_sdist[".whl"].read_bytes() == built[".whl"].read_bytes()


def test_the_metadata_names_version_licence_and_every_extra(metadata):
    assert (metadata["Name"], metadata["Version"]) == ("taxi_platform", __version__)
    assert (metadata["License-Expression"], metadata.get_all("License-File")) == ("Apache-2.0", ["LICENSE", "NOTICE"])
    assert Version(metadata["Metadata-Version"]) >= Version("2.4")
    assert {"agents", "cloud-run", "kubernetes", "notebook", "polars"} <= set(metadata.get_all("Provides-Extra"))


def test_every_requirement_and_extra_is_locked_with_a_version_that_it_accepts(metadata):
    text = (ROOT / "requirements-dev.lock").read_text()
    locked = dict(re.findall(r"^([a-z0-9._-]+)(?:\[.*\])?==([^\s;]+)", text, re.MULTILINE))
    requirements = [Requirement(line) for line in metadata.get_all("Requires-Dist")]
    assert len(requirements) > 30
    for requirement in requirements:
        name = canonicalize_name(requirement.name)
        if name == "polars":  # the tests compare with pandas and Arrow; polars is the user's choice
            continue
        assert requirement.specifier.contains(locked[name]), requirement


def test_the_licence_is_the_whole_text():
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert "The taxi_platform authors" in (ROOT / "NOTICE").read_text()


def test_the_changelog_begins_with_what_is_unreleased_and_knows_this_version():
    text = (ROOT / "CHANGELOG.md").read_text()
    sections = re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)
    assert sections[0] == "Unreleased"
    assert __version__ in sections or f"To be released as {__version__}." in text
    versions = [Version(section) for section in sections[1:]]
    assert versions == sorted(versions, reverse=True)
