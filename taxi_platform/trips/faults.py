"""Fault points: places where a process can be made to kill itself, to test that the next run repairs what it leaves.

`TAXI_FAULT_POINT=clean_published taxi ingest green 2020-04` ends at that point as if by `kill -9`: no handler runs, no
file is closed. `temp_written:3` means the third time that the process passes the point. While the variable is not set,
a point costs a microsecond.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

from taxi_platform.trips.errors import SettingError

VARIABLE = "TAXI_FAULT_POINT"

FAULT_POINTS = {
    # The first three: each object written to a local lake. The fourth: each object uploaded to a bucket.
    "temp_written": "the object's bytes are in a temporary file of the lake",
    "fsynced": "that file is synced to disk, still under its temporary name",
    "renamed": "the object has its final name, its folder is not yet synced to disk",
    "uploaded": "the object is in the bucket, its generation is not yet checked",
    # The month in the lake, in this order.
    "fetched": "the raw file is in the work folder",
    "raw_uploaded": "the raw file is in the lake, the manifest does not list it yet",
    "manifest_written": "the manifest lists the raw file",
    "cleaned": "clean file, rejected rows and report are in the work folder",
    "rejected_published": "the rejected rows are in the lake",
    "report_published": "the report is in the lake, the clean file is still the previous one",
    "checksums_published": "the checksums are in the lake, the clean file is still the previous one",
    "clean_published": "the clean file is replaced, the rejected rows and report of the previous one still exist",
    "swept": "one file of the previous version is removed",
    # The month in a warehouse.
    "duckdb_inserted": "the rows of one table are inserted and compared, not committed",
    "duckdb_committed": "both tables are committed, the database file is not closed",
    "postgres_copying": "some rows are sent; passed after the header, after each batch and at the end",
    "postgres_built": "the new table of the month is built and compared, not attached",
    "postgres_swapped": "the new tables are attached, not committed",
    "postgres_committed": "the swap is committed",
    "bigquery_submitted": "a load job is submitted, not finished",
    "bigquery_rejected_loaded": "the rejected rows are loaded, the trips are still the previous ones",
    "bigquery_loaded": "both tables are loaded",
    # The month's marts, in this order; in the warehouse also the fault points above.
    "mart_replaced": "the warehouse has made one mart, compared; only BigQuery's readers see it",
    "marts_replaced": "the warehouse has all marts of the month, the lake none yet",
    "mart_published": "one mart is in the lake, beside its previous version",
    "mart_swept": "one mart of the previous version is removed",
    # The run.
    "event_recorded": "Dagster has recorded that an asset was materialized",
}
"""Name → the state at that point."""

_passed: Counter[str] = Counter()


def fault_point(name: str) -> None:
    """Kill this process if TAXI_FAULT_POINT names this point; raises `SettingError` if it names none."""
    if setting := os.environ.get(VARIABLE):
        _kill_if_reached(setting, name)


def _kill_if_reached(setting: str, name: str) -> None:
    point, _, count = setting.partition(":")
    if point not in FAULT_POINTS or not (count or "1").isdecimal():
        raise SettingError(
            f"{VARIABLE} is {setting!r}, which is not a fault point.",
            f"Choose one of {', '.join(FAULT_POINTS)}; append :2 for the second time it is passed, and so on.",
        )
    _passed[name] += 1
    if (point, int(count or 1)) == (name, _passed[name]):
        os.kill(os.getpid(), signal.SIGKILL)
