"""One daemon for each instance of Dagster: two would each launch the runs that are due.

On one machine a lock file keeps the second away, which the kernel releases when its holder ends. Machines that share a
database see each other there, by a count that the holder raises: clocks of several machines need not agree.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dagster as dg
from filelock import Timeout

from taxi_platform.trips.errors import LakeError, TaxiError, UserError
from taxi_platform.trips.locks import holder_of, lock_file
from taxi_platform.trips.os_errors import remedy
from taxi_platform.trips.processes import is_dead, readable_name

KEY = "TAXI_SERVER"
WATCH_SECONDS = 30.0
"""A holder on another machine that raised no count for so long is gone: three times `database_watch.LOOK_SECONDS`."""
log = logging.getLogger("taxi_platform.serve")
REMEDY = "Use its UI, stop it, or serve only the UI here: taxi serve --ui-only."


@contextmanager
def hold_home(dagster_home: Path) -> Iterator[None]:
    """Hold the home's lock; raises `UserError`, which says who holds it."""
    path = dagster_home / "dev.lock"  # the name that earlier versions look for
    lock = lock_file(path, f"the lock of {dagster_home}", 0)
    try:
        dagster_home.mkdir(parents=True, exist_ok=True)
        lock.__enter__()
    except Timeout:
        raise UserError(
            f"taxi is already serving {dagster_home}: {holder_of(path)}.",
            "Use its UI, stop it, or set another TAXI_HOME.",
        ) from None
    except OSError as error:
        raise LakeError(f"Cannot write {dagster_home}: {error.strerror}.", remedy(error.errno, "TAXI_HOME")) from error
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


class DatabaseHold:
    """This process's entry in Dagster's database, as the only one that runs the daemon."""

    def __init__(self, instance: dg.DagsterInstance, process: str, since: str) -> None:
        self._instance, self._process, self._since = instance, process, since
        self._count = 0

    def take(self, is_stopping: Callable[[], bool] = lambda: False) -> None:
        """Enter this process, unless it is stopping by then.

        Raises `UserError` if another machine's is alive, after watching it for a while.
        """
        holder = self._holder()
        if holder and not self._is_gone(holder):
            log.info("%s serves this database, or did: watching it for up to %.0f s.", _name(holder), WATCH_SECONDS)
            deadline = time.monotonic() + WATCH_SECONDS
            while time.monotonic() < deadline and not is_stopping():
                time.sleep(1)
                if (now := self._holder()) and now != holder:
                    raise UserError(f"taxi is already serving this database: {_name(now)}.", REMEDY)
        if not is_stopping():
            self.renew()

    def renew(self) -> None:
        """Raise the count; raises `TaxiError` if another process has entered itself meanwhile."""
        holder = self._holder()
        if self._count and holder and holder["process"] != self._process:
            raise TaxiError(
                f"taxi has begun to serve this database elsewhere: {_name(holder)}. This one stops.",
                "Only one machine may run the daemon. Start this one with --ui-only.",
            )
        self._count += 1
        self._write({"process": self._process, "since": self._since, "count": self._count})

    def release(self) -> None:
        """Remove this process's entry; left in a database that is away, it costs the next one `WATCH_SECONDS`."""
        with suppress(Exception):
            holder = self._holder()
            if holder and holder["process"] == self._process:
                self._write(None)

    def _is_gone(self, holder: dict[str, Any]) -> bool:
        return holder["process"] == self._process or is_dead(holder["process"])

    def _holder(self) -> dict[str, Any] | None:
        text = self._instance.daemon_cursor_storage.get_cursor_values({KEY}).get(KEY)
        return json.loads(text) if text else None

    def _write(self, holder: dict[str, Any] | None) -> None:
        self._instance.daemon_cursor_storage.set_cursor_values({KEY: json.dumps(holder) if holder else ""})


def _name(holder: dict[str, Any]) -> str:
    return f"{readable_name(holder['process'])}, since {holder['since']}"
