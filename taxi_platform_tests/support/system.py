"""What tests of several rooms need: the command, a browser, a port, a small disk, waiting, the TLC's real files."""

import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

SHARED = Path(__file__).parents[3] / "shared" / "tlc"
TAXI = Path(sys.executable).with_name("taxi")
DEADLINE = 300


def shared_file(name: str) -> Path:
    """A file or folder below `shared/tlc`, such as `files/green_tripdata_2020-04.csv.gz`; skips where it is absent."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs shared/tlc/{name} beside the project")
    return path


def installed(*names: str) -> str:
    """The path of the first of these programs that is installed; skips where none is, except in CI."""
    path = next(filter(None, map(shutil.which, names)), None)
    if not path:
        assert not os.environ.get("CI"), f"CI has no {' or '.join(names)}"
        pytest.skip(f"{' or '.join(names)} is not installed")
    return path


@contextmanager
def chromium() -> Iterator[Any]:
    """Debian's Chromium, driven by Playwright; without one the tests are skipped, except in CI."""
    from playwright.sync_api import sync_playwright

    path = os.environ.get("CHROMIUM") or installed("chromium", "chromium-browser", "google-chrome")
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*flags, "--disable-background-networking"])
        yield browser
        browser.close()


@contextmanager
def small_file_system(folder: Path, megabytes: int) -> Iterator[Path]:
    """A disk of its own at `folder`, in memory; skips where this machine does not let us mount one."""
    folder.mkdir()
    size = f"size={megabytes}m"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def free_port() -> int:
    """A port on loopback that nobody listens on; below those that systems lend to clients, so it stays free."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_for(what: Callable[[], Any], seconds: float = DEADLINE) -> Any:
    """The first true value that `what` returns, called every half second; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.5)
    return value


def crash(pg_ctl: Callable[..., object]) -> None:
    """Restart a PostgreSQL as after a crash. Its last processes may outlive it for a moment, and keep a new one out."""

    def restarts() -> bool:
        with suppress(subprocess.CalledProcessError):
            pg_ctl("-m", "immediate", "restart")
            return True
        return False

    wait_for(restarts)
