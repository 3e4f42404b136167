"""Installed packages are the locked ones, with hashes and without an index named; every import is declared."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DISTRIBUTIONS = {  # imported modules whose distribution has another name
    "google.api_core": "google-api-core",
    "google.auth": "google-auth",
    "google.oauth2": "google-auth",
    "google.cloud.bigquery": "google-cloud-bigquery",
    "google.cloud.storage": "google-cloud-storage",
    "google.cloud.exceptions": "google-cloud-core",
    "vl_convert": "vl-convert-python",
    "yaml": "pyyaml",
}
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


def third_party_imports() -> set[str]:
    """The modules that the package imports, up to three names deep under the namespace `google`, else one."""
    modules = set()
    for path in (ROOT / "taxi_platform").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module in ("google", "google.cloud"):
                modules |= {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules.add(node.module)
    tops = {module if module.startswith("google.") else module.partition(".")[0] for module in modules}
    return tops - set(sys.stdlib_module_names) - {"taxi_platform"}


def distribution_of(module: str) -> str:
    names = [name for prefix, name in DISTRIBUTIONS.items() if f"{module}.".startswith(f"{prefix}.")]
    return names[0] if names else module.replace("_", "-")


def test_every_third_party_import_of_the_package_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = [extra for name, extra in project["optional-dependencies"].items() if name not in ("dev", "setup")]
    requirements = sum(extras, project["dependencies"])
    requirements += project["optional-dependencies"]["agents"]
    declared = {re.split(r"[\[<>=]", text)[0] for text in requirements}
    imported = {distribution_of(module) for module in third_party_imports()}
    assert {"dagster", "starlette", "google-api-core", "google-crc32c"} <= imported
    assert imported - declared == set()
