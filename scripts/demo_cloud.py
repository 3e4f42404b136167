"""`make demo-cloud`: three months through emulators of Cloud Storage and BigQuery, for people without an account.

The emulators run on this machine, on free ports of the loopback interface, and keep everything in memory or in a
temporary folder: nothing is left when the demo ends, also by Ctrl-C. Prints the settings and commands that also work
with real URLs, and at the end what Google's own clients find in the bucket and in the tables.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path

from rich.console import Console
from rich.table import Table

from taxi_platform.trips.months import newest_month
from taxi_platform_tests.support.emulators.bigquery import NoEmulator, bigquery_emulator
from taxi_platform_tests.support.emulators.gcs import gcs_emulator
from taxi_platform_tests.support.system import TAXI

PROJECT, BUCKET, DATASET = "taxi-demo", "taxi-demo-lake", "taxi"
SETTINGS = {
    "TAXI_SOURCE_URL": "sample://?rows=2000",
    "TAXI_LAKE_URL": f"gs://{BUCKET}/taxi",
    "TAXI_WAREHOUSE_URL": f"bigquery://{PROJECT}/{DATASET}?location=EU",
    "TAXI_DATASETS": "green",
}
OTHER_SETTINGS = ("TAXI_", "DAGSTER_", "GOOGLE_")
"""What variables begin with that would send the demo elsewhere."""
WIDEST = 40
"""Characters of a value."""
GRACE_SECONDS = 20
"""For a command that Ctrl-C ends."""
QUERIES = {
    "Trips by month, from the table green_trips": (
        f"SELECT FORMAT_DATE('%Y-%m', file_month) AS month, COUNT(*) AS trips, SUM(total_amount) AS dollars "
        f"FROM `{PROJECT}.{DATASET}.green_trips` GROUP BY 1 ORDER BY 1"
    ),
    "Rejected rows, from the table green_rejected_trips": (
        f"SELECT FORMAT_DATE('%Y-%m', file_month) AS month, reason, column_name, text "
        f"FROM `{PROJECT}.{DATASET}.green_rejected_trips` ORDER BY 1, 2 LIMIT 3"
    ),
    "The busiest zones, from the view daily_zones": (
        f"SELECT pickup_zone, pickup_borough, SUM(trips) AS trips "
        f"FROM `{PROJECT}.{DATASET}.daily_zones` GROUP BY 1, 2 ORDER BY trips DESC, pickup_zone LIMIT 5"
    ),
}
"""Title → a query in BigQuery's dialect."""

console = Console(highlight=False, markup=False, soft_wrap=True)


def main() -> int:
    """Run the demo; returns its exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="taxi-demo-cloud-") as folder:
            return demo(Path(folder))
    except KeyboardInterrupt:
        console.print("\nStopped. Nothing is left.")
        return 130
    except NoEmulator as error:
        console.print(f"{error}")
        return 1


def demo(folder: Path) -> int:
    """The demo, with its home and emulators in this folder; returns its exit status."""
    console.print("Starting emulators of Cloud Storage and BigQuery; the first time, their environment is set up …")
    with gcs_emulator(folder / "storage") as storage, bigquery_emulator(folder / "bigquery", storage) as bigquery:
        hosts = {"STORAGE_EMULATOR_HOST": storage, "BIGQUERY_EMULATOR_HOST": bigquery}
        console.print()
        for name, value in {**hosts, **SETTINGS}.items():
            console.print(f"export {name}='{value}'")
        own = {name: value for name, value in os.environ.items() if not name.startswith(OTHER_SETTINGS)}
        environment = {**own, **hosts, **SETTINGS, "TAXI_HOME": str(folder / "home")}
        newest = newest_month(date.today())
        months = (str(newest.plus(-2)), str(newest))
        for arguments in (["bootstrap"], ["doctor"], ["ingest", "green", *months]):
            console.print(f"\n$ taxi {' '.join(arguments)}", style="bold")
            if status := finished(arguments, environment):
                return status
        os.environ.update(hosts)
        for table in (*bucket_tables(), *warehouse_tables()):
            console.print()
            console.print(table)
    console.print(
        "\nThe emulators have ended, and their tables with them. With a project of your own leave out the first two "
        "variables, and name its bucket and dataset in the others: docs/google-cloud.md."
    )
    return 0


def finished(arguments: Sequence[str], environment: dict[str, str]) -> int:
    """Run `taxi` to its end; returns its exit status. In a session of its own, Ctrl-C reaches it once, from here."""
    with subprocess.Popen([TAXI, *arguments], env=environment, start_new_session=True) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_SECONDS)
            raise
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def bucket_tables() -> Iterator[Table]:
    """What is in the bucket, by Google's client."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    client = storage.Client(PROJECT, AnonymousCredentials())
    table = new_table(f"Objects in gs://{BUCKET}", "folder", numbers=("objects", "bytes"))
    sizes: dict[str, list[int]] = {}
    for blob in client.list_blobs(BUCKET):
        sizes.setdefault("/".join(blob.name.split("/")[:3]), []).append(blob.size)
    for name, found in sorted(sizes.items()):
        table.add_row(name, str(len(found)), f"{sum(found):,}")
    yield table


def warehouse_tables() -> Iterator[Table]:
    """The tables and views of the dataset, and what the queries find, by Google's client."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import bigquery

    client = bigquery.Client(PROJECT, AnonymousCredentials())
    table = new_table(f"Tables in {PROJECT}.{DATASET}", "kind", "names")
    names: dict[str, list[str]] = {}
    for found in client.list_tables(DATASET):
        names.setdefault(found.table_type.lower(), []).append(found.table_id)
    for kind, of_kind in sorted(names.items()):
        table.add_row(kind, " ".join(sorted(of_kind)))
    yield table
    for title, query in QUERIES.items():
        rows = client.query_and_wait(query)
        numbers = [field.name for field in rows.schema if field.field_type in ("INTEGER", "NUMERIC")]
        table = new_table(title, *(field.name for field in rows.schema), numbers=numbers)
        for row in rows:
            table.add_row(*(f"{value:,}" if name in numbers else str(value)[:WIDEST] for name, value in row.items()))
        yield table


def new_table(title: str, *columns: str, numbers: Sequence[str] = ()) -> Table:
    table = Table(title=title, box=None, padding=(0, 1, 0, 0), pad_edge=False, title_justify="left")
    for name in dict.fromkeys([*columns, *numbers]):
        table.add_column(name, justify="right" if name in numbers else "left")
    return table


if __name__ == "__main__":
    sys.exit(main())
