"""`deploy/image/Dockerfile`, as far as it can be checked without building it."""

import fnmatch
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "image" / "Dockerfile"
WRITTEN = ("/var/lib/taxi", "/opt/dagster/dagster_home", "/tmp")


def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments) in order, with continued lines joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\s*\\\n\s*", " ", text).splitlines()
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines if line.strip())]


def last(name: str) -> str:
    return [rest for instruction, rest in instructions() if instruction == name][-1]


def copied() -> list[str]:
    """What is copied from the build's context."""
    copies = [shlex.split(rest) for name, rest in instructions() if name == "COPY"]
    return [source for words in copies if not words[0].startswith("--") for source in words[:-1]]


def is_sent_to_the_build(path: str) -> bool:
    """What `.dockerignore` decides: the last matching line wins."""
    sent = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        whole = [path, *map(str, Path(path).parents)][:-1]
        candidates = Path(path).parts if pattern.startswith("**/") else whole
        if any(fnmatch.fnmatch(part, pattern.removeprefix("**/")) for part in candidates):
            sent = line.startswith("!")
    return sent


def test_what_is_copied_exists_and_is_sent_and_nothing_else_is():
    licence = ["LICENSE", "NOTICE"]
    assert copied() == ["requirements-deploy.lock", "pyproject.toml", "README.md", *licence, "taxi_platform"]
    assert all((ROOT / path).exists() and is_sent_to_the_build(path) for path in copied())
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert {path for path in tracked if is_sent_to_the_build(path)} == {
        path for path in tracked if path in copied() or path.startswith("taxi_platform/")
    }
    for path in (".env", ".git/config", "data/lake", "key.json", "taxi_platform/__pycache__/cli.pyc"):
        assert not is_sent_to_the_build(path), path


def test_the_container_runs_as_nobody_in_particular_and_names_no_secret():
    assert last("USER") == "10001:10001"
    names = {word.partition("=")[0] for name, rest in instructions() if name in ("ENV", "ARG") for word in rest.split()}
    assert not [name for name in names if re.search("PASSWORD|TOKEN|SECRET|KEY|URL", name)]
    # Without an entry point: the chart's code server gives the whole command as arguments.
    assert "ENTRYPOINT" not in [name for name, _ in instructions()]


def test_every_dependency_is_locked_and_compiled():
    installs = [rest for name, rest in instructions() if name == "RUN" and " install " in rest and "pip" in rest]
    locked, ours = installs
    assert {"--require-hashes", "--compile", "--only-binary"} <= set(locked.split())
    assert {"--no-deps", "--no-index", "--no-build-isolation", "--compile"} <= set(ours.split())


def pip_arguments(of: str, target: Path) -> list[str]:
    """The image's own command that installs `of`, into another folder from the checkout."""
    (command,) = [rest for name, rest in instructions() if name == "RUN" and rest.endswith(of)]
    words = [str(ROOT) + word.removeprefix("/build") if word.startswith("/build") else word for word in command.split()]
    return [*words[1:], "--target", str(target)]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The package, installed by the image's command from a copy as `COPY` makes it."""
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip"]
    if subprocess.run([*pip, "--version"], capture_output=True).returncode:
        uv = Path(sys.executable).with_name("uv")
        pip = [str(uv), "pip"]
        words = [word for word in pip_arguments("/build", target) if word not in ("--compile", "--no-build-isolation")]
        command = [*pip, *words, "--no-build-isolation", "--python", sys.executable, "--quiet"]
    else:
        command = [*pip, *pip_arguments("/build", target), "--quiet"]
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(command, cwd=target, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return target


def test_the_installed_package_has_every_file(installed):
    tracked = subprocess.run(
        ["git", "ls-files", "taxi_platform"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert len(tracked) > 100
    assert [path for path in tracked if not (installed / path).exists()] == []


def test_a_month_is_loaded_from_a_read_only_root(installed, tmp_path):
    """Everything is mounted read-only but the folders that the image names, as `readOnlyRootFilesystem` does."""
    written = [tmp_path / name for name in ("home", "dagster-home", "tmp")]
    for folder in written:
        folder.mkdir()
    mounts = [
        "mount --make-rprivate /",
        *(f"mount --bind {folder} {folder}" for folder in written),
        "mount -o remount,bind,ro /",
        f"! touch {tmp_path}/new 2>/dev/null",
        f"exec '{sys.executable}' -c 'from taxi_platform.cli import main; main()' ingest green 2020-04",
    ]
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("this machine does not let us mount")
    home, dagster_home, temporary = written
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(installed),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(home),
        "TAXI_HOME": str(home),
        "DAGSTER_HOME": str(dagster_home),
        "TMPDIR": str(temporary),
        "TAXI_SOURCE_URL": "sample://?rows=300",
    }
    script = " && ".join(mounts)
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], env=environment, capture_output=True, text=True, cwd=home
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (home / "lake/clean/green/month=2020-04/trips.parquet").exists()
