"""Places where a run can be made to die, to show that the next run repairs whatever a killed one leaves.

`TAXI_FAULT_POINT=clean_published taxi ingest green 2020-04` ends there as by `kill -9`: no handler runs, no file is
closed. `temp_written:3` is the third time that the process passes there. Unset, a point costs a microsecond.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

from taxi_platform.trips.errors import SettingError

VARIABLE = "TAXI_FAULT_POINT"

FAULT_POINTS = {
    # A local lake, for each object; a bucket's one step.
    "temp_written": "the object's bytes are in a temporary file of the lake",
    "fsynced": "that file is on the disk, still under its temporary name",
    "renamed": "the object has its bytes, its folder is not yet forced to the disk",
    "uploaded": "the bucket has the object, nobody has looked whether it is ours",
    # The month in the lake, in this order.
    "fetched": "the raw file is in the work folder",
    "raw_uploaded": "the raw file is in the lake, the manifest does not name it",
    "manifest_written": "the manifest names the raw file",
    "cleaned": "clean file, rejected rows and report are in the work folder",
    "rejected_published": "the rejected rows are in the lake",
    "report_published": "the report is too; the clean file is still the one before",
    "clean_published": "the clean file is replaced, what belonged to the one before is still there",
    "swept": "one side file of the version before is gone",
    # The month in a warehouse.
    "duckdb_inserted": "one table's rows are inserted and compared, not committed",
    "duckdb_committed": "both tables are committed, the file is not closed",
    "postgres_copying": "a part of the rows has been sent: the header, then each batch, then the end",
    "postgres_built": "one month's table is built and compared, beside the one before",
    "postgres_swapped": "the new tables are attached, not committed",
    "postgres_committed": "the swap is committed",
    "bigquery_submitted": "a load job is submitted, nobody waits for it",
    "bigquery_rejected_loaded": "the rejected rows are loaded, the trips are those before",
    "bigquery_loaded": "both tables are loaded",
    # The run.
    "event_recorded": "Dagster has recorded that an asset was materialized",
}
"""Name → what is done by then."""

_passed: Counter[str] = Counter()


def fault_point(name: str) -> None:
    """End this process here, at once, if TAXI_FAULT_POINT says so."""
    if wanted := os.environ.get(VARIABLE):
        _die_at(wanted, name)


def _die_at(wanted: str, name: str) -> None:
    point, _, count = wanted.partition(":")
    if point not in FAULT_POINTS or not (count or "1").isdecimal():
        raise SettingError(
            f"{VARIABLE} is {wanted!r}, no fault point.",
            f"It takes one of {', '.join(FAULT_POINTS)}, with :2 and so on.",
        )
    _passed[name] += 1
    if (point, int(count or 1)) == (name, _passed[name]):
        os.kill(os.getpid(), signal.SIGKILL)
