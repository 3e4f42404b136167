"""Make the home of an earlier version that `taxi_platform_tests/kept/` keeps: run once, with any Python 3.11 or newer.

    python3 scripts/make_kept_home.py 447be77

Checks the commit out beside the repository's own files (`git worktree`), sets up its environment, and lets that version
ingest small synthetic months of green: from the command line, with a reject rule, restored to an older raw file, and by
backfills from the UI, one of which fails and leaves a notification that could not be delivered. What a home can lose
without anybody noticing (compute logs, telemetry, free pages) is then removed and the rest packed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "taxi_platform_tests" / "kept"
LARGEST = 500_000
PORT = 31_917
DEADLINE = 180
UNUSED = ("dagster/storage", "dagster/.telemetry", "dagster/.logs_queue", "logs", "tmp")
"""What a home works without; removed where it exists."""

ASSETS = """{ assetNodes(group: {groupName: "green", repositoryName: "__repository__",
                              repositoryLocationName: "taxi_platform"}) { assetKey { path } } }"""
LAUNCH = """mutation($parameters: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $parameters) {
              __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
STATE = """query($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }"""


class EarlierVersion:
    """A checked-out commit with an environment of its own, working on `home`."""

    def __init__(self, checkout: Path, home: Path) -> None:
        self.checkout = checkout  # also the working directory: `python -m` imports from there first
        self.taxi = checkout / ".venv" / "bin" / "taxi"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TAXI_", "DAGSTER_"))}
        self.environment = {**inherited, "TAXI_HOME": str(home), "TAXI_DATASETS": "green"}

    def run(self, *arguments: str, rows: int = 300) -> None:
        environment = {**self.environment, "TAXI_SOURCE_URL": f"sample://?rows={rows}"}
        subprocess.run([self.taxi, *arguments], cwd=self.checkout, env=environment, check=True)

    @contextmanager
    def dev(self, **settings: str) -> Iterator[None]:
        """`taxi dev`, ended as Ctrl-C ends it."""
        command = [self.taxi, "dev", "--port", str(PORT)]
        environment = {**self.environment, **settings}
        with subprocess.Popen(
            command, cwd=self.checkout, env=environment, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            try:
                if "The UI is at" not in process.stdout.readline():
                    raise SystemExit("taxi dev did not start.")
                yield
            finally:
                process.send_signal(signal.SIGINT)
                process.wait(60)


def graphql(query: str, **variables: Any) -> Any:
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}/graphql", body, {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        result = json.load(answer)
    if "errors" in result:
        raise SystemExit(str(result["errors"]))
    return result["data"]


def backfill(months: list[str], expected: str) -> None:
    """Materialize all of green for these months as the UI does, and wait until the backfill has ended as expected."""
    keys = [node["assetKey"]["path"] for node in graphql(ASSETS)["assetNodes"]]
    parameters = {"assetSelection": [{"path": path} for path in keys], "partitionNames": months}
    launched = graphql(LAUNCH, parameters=parameters)["launchPartitionBackfill"]
    deadline = time.monotonic() + DEADLINE
    while (status := graphql(STATE, id=launched["backfillId"])["partitionBackfillOrError"]["status"]) != expected:
        if time.monotonic() > deadline:
            raise SystemExit(f"The backfill of {months} is {status}, not {expected}.")
        time.sleep(1)


def wait_for_attempt(home: Path) -> None:
    """Until a notification was attempted and is waiting for its next attempt."""
    query = "SELECT count(*) FROM deliveries WHERE state = 'pending' AND attempts > 0"
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        if (outbox := home / "notifications" / "outbox.db").exists():
            with closing(sqlite3.connect(outbox, timeout=20)) as con:
                if con.execute(query).fetchone()[0]:
                    return
        time.sleep(1)
    raise SystemExit("No notification was attempted.")


def fill(earlier: EarlierVersion, home: Path, folder: Path) -> None:
    """Six months in all states that a home can hold."""
    earlier.run("ingest", "green", "2020-04")
    earlier.run("ingest", "green", "2020-05", "--reject", "zero_passengers,zero_distance")
    earlier.run("ingest", "green", "2020-06", rows=200)
    earlier.run("ingest", "green", "2020-06")
    earlier.run("restore", "green", "2020-06")
    with earlier.dev(TAXI_SOURCE_URL="sample://?rows=300"):
        backfill(["2020-01", "2020-02"], "COMPLETED_SUCCESS")
    (folder / "green_2020-03.csv.gz").write_text("<html>Sorry, not today.</html>")
    source = f"file://{folder}/{{dataset}}_{{month}}.csv.gz"
    with earlier.dev(TAXI_SOURCE_URL=source, TAXI_NOTIFY_URLS="json://127.0.0.1:9/nobody-listens"):
        backfill(["2020-03"], "COMPLETED_FAILED")
        wait_for_attempt(home)


def shrink(home: Path) -> None:
    """Remove what nobody misses, and the free pages of every SQLite file."""
    for name in UNUSED:
        shutil.rmtree(home / name, ignore_errors=True)
    for path in home.rglob("*.db"):
        with closing(sqlite3.connect(path)) as con:
            con.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            con.execute("PRAGMA journal_mode = DELETE")
            con.execute("VACUUM")


def pack(home: Path, path: Path) -> None:
    with tarfile.open(path, "w:xz", preset=9) as archive:
        archive.add(home, "home")
    size = path.stat().st_size
    if size > LARGEST:
        raise SystemExit(f"{path.relative_to(ROOT)} has {size:,} bytes, more than {LARGEST:,}.")


def main(commit: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkout, home = folder / "checkout", folder / "home"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(checkout), commit], check=True)
        try:
            subprocess.run(["sh", "scripts/setup.sh"], cwd=checkout, check=True)
            fill(EarlierVersion(checkout, home), home, folder)
        finally:
            subprocess.run([*git, "remove", "--force", str(checkout)], check=True)
        shrink(home)
        pack(home, KEPT / f"home_{commit}.tar.xz")


if __name__ == "__main__":
    main(sys.argv[1])
