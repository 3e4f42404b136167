"""local-bigquery 0.4.0 made to serve these tests; runs in an environment of its own (Python 3.13 or newer).

Four things differ from the package as shipped: projects are plain DuckDB in memory, because DuckLake is an extension
to download; `gs://` objects are read over the storage emulator's JSON API, for the same reason; `table$YYYYMM` means
that month's partition, where the package takes it for a table of that name; and a query that is sent again is no second
one, where the package takes its `requestId` for the id of a new job.
"""

from __future__ import annotations

import functools
import gc
import os
import socket
import sys
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

STORAGE = os.environ.pop("STORAGE_EMULATOR_HOST", "")  # taken from the package, whose own way needs an extension

import duckdb  # noqa: E402
import uvicorn  # noqa: E402
from child import announce  # noqa: E402
from local_bigquery import app  # noqa: E402
from local_bigquery.catalog import metadata, tables  # noqa: E402
from local_bigquery.engine import database  # noqa: E402
from local_bigquery.errors import BigQueryError  # noqa: E402
from local_bigquery.jobs import load, runner, store  # noqa: E402
from local_bigquery.settings import settings  # noqa: E402

OWN_DATABASES = ("memory", "emulator", "bq", "system", "temp")


@functools.cache
def connect() -> duckdb.DuckDBPyConnection:
    """`database._connect` without DuckLake, and without geography, an extension too."""
    con = duckdb.connect()
    con.execute("SET autoinstall_known_extensions = false")
    con.execute("SET TimeZone = 'UTC'")
    con.execute("SET threads = 1")
    con.execute("ATTACH ':memory:' AS emulator")
    con.execute(database.EMULATOR_SCHEMA)
    con.execute("ATTACH ':memory:' AS bq")
    database.native.register(con)
    for path in database.FUNCTIONS:
        if path.name != "geography.sql":
            con.execute(database.MACRO.sub(r"CREATE MACRO bq.main.\1", path.read_text()))
    attach(con, settings.default_project_id)
    default = database.quote(settings.default_project_id, settings.default_dataset_id)
    con.execute(f"CREATE SCHEMA IF NOT EXISTS {default}")
    return con


def attach(con: duckdb.DuckDBPyConnection, project: str) -> None:
    con.execute(f"ATTACH IF NOT EXISTS ':memory:' AS {database.quote(project)}")
    database._attached.add(project)


def projects() -> list[str]:
    rows = database.fetch("SELECT database_name FROM duckdb_databases() WHERE NOT internal ORDER BY 1")
    return [name for (name,) in rows if name not in OWN_DATABASES]


def local_paths(cur: duckdb.DuckDBPyConnection, uri: str) -> list[str]:
    """Fetch one `gs://` object, anew for every load, into a file to read."""
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    address = f"{STORAGE}/storage/v1/b/{bucket}/o/{urllib.parse.quote(name, safe='')}?alt=media"
    path = Path(tempfile.mkdtemp(dir=settings.data_dir)) / "object"
    try:
        with urllib.request.urlopen(address) as answer:
            path.write_bytes(answer.read())
    except urllib.error.HTTPError as error:
        raise BigQueryError("notFound", f"Not found: URI {uri}") from error
    return [str(path)]


plain_reference, plain_write, plain_submit = tables.reference, tables.write, runner.submit
one_at_a_time = threading.Lock()


def reference(table: Any) -> tuple[str, str, str]:
    project, dataset, name = plain_reference(table)
    return project, dataset, name.partition("$")[0]


def write(cur: Any, query: str, params: Any, target: Any, config: Any, *rest: Any, **options: Any) -> bool:
    """`tables.write`, where a `$YYYYMM` truncates that month only and takes rows of that month only."""
    month = config.destinationTable.tableId.partition("$")[2] if config.destinationTable else ""
    if not month:
        return plain_write(cur, query, params, target, config, *rest, **options)
    stored = metadata.load(tables.Table, *target)
    layout = stored and stored.timePartitioning
    if not layout or layout.type != "MONTH" or len(month) != 6:
        raise BigQueryError("invalid", f"Invalid partition id {month} for table {target[2]}")
    dataset_month = f"strftime({database.quote(layout.field)}, '%Y%m')"
    if cur.sql(
        f"SELECT 1 FROM ({query}) WHERE {dataset_month} IS DISTINCT FROM '{month}' LIMIT 1", params=params
    ).fetchall():
        raise BigQueryError("invalid", f"Some rows belong to different partitions rather than {target[2]}${month}")
    with one_at_a_time:
        cur.execute("BEGIN TRANSACTION")
        try:
            if config.writeDisposition == "WRITE_TRUNCATE":
                cur.execute(f"DELETE FROM {tables.name(*target)} WHERE {dataset_month} = '{month}'")
            appending = config.replace(writeDisposition="WRITE_APPEND")
            created = plain_write(cur, query, params, target, appending, *rest, **options)
            cur.execute("COMMIT")
        except BaseException:
            cur.execute("ROLLBACK")
            raise
    return created


def submit(project: str, job_id: str, configuration: Any, *rest: Any) -> Any:
    """`runner.submit`, where a query that runs already is answered by that one; nobody here inserts queries as jobs."""
    known = store.load(project, job_id) if configuration.query else None
    return known or plain_submit(project, job_id, configuration, *rest)


def main() -> None:
    settings.data_dir = Path(sys.argv[1])
    database._connect, database._attach, database.projects = connect, attach, projects
    tables.reference, tables.write, load.paths, runner.submit = reference, write, local_paths, submit
    database.connection()
    gc.freeze()  # most of a query's time goes into trees of its syntax
    gc.set_threshold(200_000)
    listening = socket.create_server(("127.0.0.1", 0), backlog=64)
    announce(listening.getsockname()[1])
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


if __name__ == "__main__":
    main()
