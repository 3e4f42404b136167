"""`$TAXI_HOME/trips.duckdb`: views over the lake's Parquet files, for people and notebooks.

They show trips, rejected trips and marts by dataset, and the views over the marts of all datasets. The file holds no
trips. It is replaced by rename and the Parquet files are too, so no reader blocks a load and no load
blocks a reader; the warehouse file, in contrast, has one writer and no reader at a time.

Each view starts with an empty Parquet file that has the contract's columns and is never replaced, because DuckDB reads
the schema from the first file and opens it again later. It opens every file twice, once for the footer: a query fails
with "Invalid data" if its month is replaced just in between (5 of 79,000 queries in a loop beside 48 replacements, each
right when repeated; with `union_by_name`, or without the empty file, one in five replacements). New months cause none.
"""

from __future__ import annotations

import json
import re
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path

import duckdb
from filelock import Timeout

from taxi_platform.lake import folder_of
from taxi_platform.lake.base import Lake
from taxi_platform.marts.tables import mart_names, mart_table, mart_version
from taxi_platform.marts.views import VIEWS, view_version
from taxi_platform.settings import VIEWS_FILE
from taxi_platform.trips.casting import escape_glob, identifier, literal, null_columns
from taxi_platform.trips.contract import REJECTED_COLUMNS, Column, contract_of
from taxi_platform.trips.errors import LakeBusy, LakeError
from taxi_platform.trips.in_memory import in_memory
from taxi_platform.trips.locks import lock_file
from taxi_platform.trips.months import Dataset
from taxi_platform.trips.replacing import replacing

Seen = dict[str, tuple[str, str]]

FOLDER = "views"
"""The folder in the home with the empty Parquet files that the views start with."""
SEEN = "seen.json"
"""In that folder: clean file → its identity and contract version. Each run is a process of its own, and reading the
footers of 600 months takes it 0.25 s."""
_seen_scripts: dict[Path, tuple[str, str]] = {}
"""Database of views → its identity and script, as this process read them."""
LOCK_SECONDS = 120.0
"""How long to wait for another run that makes the views, which takes seconds."""


def views_path(home: Path) -> Path:
    """Where the database of views is."""
    return home / VIEWS_FILE


def refresh_views(lake: Lake, home: Path) -> bool:
    """Bring the views up to date with the lake and the contracts; returns whether the file had to be replaced.

    Raises `LakeBusy` if another run holds it, and `LakeError` if the file cannot be written, or if DuckDB cannot read
    the lake: a `gs://` lake needs DuckDB's extension httpfs and a secret for it.
    """
    folder = home / FOLDER
    try:
        if not _is_local(lake):
            in_memory().execute("LOAD httpfs").close()
        folder.mkdir(parents=True, exist_ok=True)
        lock = lock_file(folder / "refresh.lock", f"the views in {VIEWS_FILE}", LOCK_SECONDS)
        with lock, _swept(folder), _kept(folder / SEEN) as seen:
            script = "\n".join(_statements(lake, folder, seen))
            path = views_path(home)
            if path.exists() and _seen_scripts.get(path) == (_identity(path), script):
                return False
            is_outdated = _stored_script(path) != script
            if is_outdated:
                _replace(path, folder, script)
            _seen_scripts[path] = (_identity(path), script)
            return is_outdated
    except Timeout:
        raise LakeBusy(f"Another run has held {views_path(home)} for {LOCK_SECONDS:g} s.", "Stop it.") from None
    except duckdb.Error as error:
        remedy = "Check the folder that TAXI_LAKE_URL names."
        if not _is_local(lake):
            remedy = "DuckDB reads a bucket with its extension httpfs (INSTALL httpfs) and a persistent GCS secret."
        raise LakeError(f"Cannot make views over {lake.url}: {str(error).splitlines()[0]}", remedy) from error
    except OSError as error:
        raise LakeError(f"Cannot write {views_path(home)}: {error.strerror}.", "Check TAXI_HOME.") from error


def check_views(lake: Lake, home: Path) -> None:
    """Raise `LakeError` unless the views can be opened and read files of this lake and home, whose paths they hold.

    They read others where either was moved or copied, or TAXI_LAKE_URL changed.
    """
    remedy = "Run taxi ingest for any month: it makes the views again."
    script = _stored_script(views_path(home))
    if script is None:
        raise LakeError(f"{views_path(home)} cannot be opened as the database of views.", remedy)
    root = str(folder_of(lake.url)) if _is_local(lake) else lake.url
    places = [Path(place).resolve() for place in (root, home / FOLDER)]
    for quoted in re.findall(r"'((?:[^']|'')*\.parquet)'", script):
        path = re.sub(r"\[([*?\[])\]", r"\1", quoted.replace("''", "'"))  # the opposite of escape_glob
        if not any(Path(path).resolve().is_relative_to(place) for place in places):
            raise LakeError(f"{views_path(home)} has views of files elsewhere: {path}.", remedy)


def _statements(lake: Lake, folder: Path, seen: Seen) -> Iterator[str]:
    """The SQL of the views, in a fixed order, so that it can be compared as text with what the file was made from.

    Those over the marts of all datasets are comments with a version in it: writing them takes sqlglot, and importing
    that 0.15 s.
    """
    root = _readable_root(lake)
    for dataset in Dataset:
        contract = contract_of(dataset)
        clean, rejected = f"{root}/clean/{dataset}/*/trips.parquet", f"{root}/rejected/{dataset}/*/*.parquet"
        empty = _empty_file(folder / f"{dataset}-{contract.version}.parquet", contract.table_columns)
        if _is_local(lake):
            versions = _by_contract_version(folder_of(lake.url) / f"clean/{dataset}", seen)
        else:  # reading the footers of a bucket's 606 files after each month would take minutes
            keys = lake.list(f"clean/{dataset}/")
            versions = {contract.version: keys} if keys else {}
        if set(versions) <= {contract.version}:
            select = _select([empty, clean] if versions else [empty])
        else:
            select = " UNION ALL ".join(_selects_by_version(versions, contract.version, contract.table_columns, empty))
        yield f"CREATE VIEW {dataset}_trips AS {select};"
        empty = _empty_file(folder / f"rejected-{len(REJECTED_COLUMNS)}.parquet", REJECTED_COLUMNS)
        select = _select([empty])
        if versions:
            select = f"{_select([empty, rejected])} WHERE {_is_current(clean)}"
        yield f"CREATE VIEW {dataset}_rejected_trips AS {select};"
        yield from _marts(lake, folder, dataset, f"{root}/marts/{dataset}", clean)
    for view in VIEWS.values():
        yield f"-- {view.name} {view_version(view, list(Dataset))}"


def _marts(lake: Lake, folder: Path, dataset: Dataset, root: str, clean: str) -> Iterator[str]:
    """The views of a dataset's marts: of today's mart version, and of the trips that `clean`'s files hold now."""
    version = mart_version(dataset)
    present = _marts_present(lake, dataset, version)
    for name in mart_names(dataset):
        table = mart_table(dataset, name)
        empty = _empty_file(folder / f"{table.name}-{version}.parquet", table.columns)
        select = _select([empty])
        if name in present:
            select = f"{_select([empty, f'{root}/{name}/*/*-{version}.parquet'])} WHERE {_is_current(clean)}"
        yield f"CREATE VIEW {table.name} AS {select};"


def _marts_present(lake: Lake, dataset: Dataset, version: str) -> set[str]:
    """The marts that have a file of this mart version. In a folder the first one is enough: 600 months take 0.1 s."""
    prefix, file = f"marts/{dataset}/", f"*-{version}.parquet"
    if _is_local(lake):
        folder = folder_of(lake.url) / prefix
        return {name for name in mart_names(dataset) if any(folder.glob(f"{name}/*/{file}"))}
    return {key.removeprefix(prefix).split("/")[0] for key in lake.list(prefix) if fnmatchcase(key, file)}


def _is_current(clean: str) -> str:
    """The condition for rows of a version that a clean file names: a run that was killed may have left others."""
    return (
        f"file_version IN (SELECT decode(value) FROM parquet_kv_metadata({literal(clean)}) "
        "WHERE decode(key) = 'file_version')"
    )


def _identity(path: Path) -> str:
    """What tells a file from another one that replaced it."""
    status = path.stat()
    return f"{status.st_ino}-{status.st_mtime_ns}-{status.st_size}"


def _is_local(lake: Lake) -> bool:
    return lake.url.startswith("file://")


def _readable_root(lake: Lake) -> str:
    """The lake's address as DuckDB takes it, with glob characters escaped."""
    return escape_glob(str(folder_of(lake.url))) if _is_local(lake) else lake.url.rstrip("/")


@contextmanager
def _swept(folder: Path) -> Iterator[None]:
    """Without the temporary files of runs that were killed, and without DuckDB's logs where the disk was full.

    Their names begin with a dot, and all are written by whoever holds the lock.
    """
    _sweep(folder)
    try:
        yield
    finally:
        _sweep(folder)


def _sweep(folder: Path) -> None:
    for path in folder.glob(".*"):
        with suppress(OSError):  # NFS keeps a deleted file that is open as .nfs…, and lets nobody remove it
            path.unlink()


@contextmanager
def _kept(path: Path) -> Iterator[Seen]:
    """What `SEEN` says; written back if it has changed."""
    try:
        kept = json.loads(path.read_text("utf-8")).items()
        seen = {file: (str(identity), str(version)) for file, (identity, version) in kept}
    except (OSError, ValueError, AttributeError, TypeError):  # none yet, or damaged: all is read again
        seen = {}
    before = dict(seen)
    yield seen
    if seen != before:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(seen), "utf-8")


def _by_contract_version(folder: Path, seen: Seen) -> Mapping[str, list[str]]:
    """Contract version → the clean files that were made under it, of one dataset; empty if there are none."""
    found = dict(_identities(folder))
    unread = [path for path, identity in found.items() if seen.get(path, ("", ""))[0] != identity]
    if unread:
        files = ", ".join(literal(escape_glob(path)) for path in unread)
        kept = f"SELECT file_name, decode(key), decode(value) FROM parquet_kv_metadata([{files}])"
        with in_memory() as con:
            rows = con.execute(kept).fetchall()
        stored = {path: value for path, key, value in rows if key == "contract_version"}
        seen.update({path: (found[path], stored.get(path, "")) for path in unread})
    for path in [path for path in seen if path.startswith(f"{folder}/") and path not in found]:
        del seen[path]
    versions: dict[str, list[str]] = defaultdict(list)
    for path in found:
        if version := seen[path][1]:
            versions[version].append(path)
    return versions


def _identities(folder: Path) -> Iterator[tuple[str, str]]:
    """The clean files of a dataset and their identities, by month."""
    with suppress(FileNotFoundError):
        for month in sorted(folder.iterdir(), key=str):
            path = month / "trips.parquet"
            with suppress(FileNotFoundError, NotADirectoryError):
                yield str(path), _identity(path)


def _selects_by_version(
    versions: Mapping[str, list[str]], current: str, columns: Sequence[Column], empty: str
) -> Iterator[str]:
    """A SELECT for each contract version in the lake; columns that an older version lacks are null."""
    yield _select([empty, *map(escape_glob, versions.get(current, ()))])
    for version in sorted(set(versions) - {current}):
        paths = [escape_glob(path) for path in versions[version]]
        with in_memory() as con:
            stored = {row[0] for row in con.execute(f"DESCRIBE {_select(paths[:1])}").fetchall()}
        names = ", ".join(column.name if column.name in stored else null_columns([column]) for column in columns)
        yield f"SELECT {names} FROM ({_select(paths)})"


def _select(paths: Sequence[str]) -> str:
    """A SELECT over Parquet files, the first of which gives the columns."""
    files = ", ".join(map(literal, paths))
    return f"SELECT * FROM read_parquet([{files}], hive_partitioning = false)"


def _empty_file(path: Path, columns: Sequence[Column]) -> str:
    """Make the empty Parquet file with these columns if it is missing; returns its path, escaped for globs."""
    if not path.exists():
        with replacing(path) as temporary, in_memory() as con:
            con.execute(f"COPY (SELECT {null_columns(columns)} LIMIT 0) TO {literal(str(temporary))} (FORMAT parquet)")
    return escape_glob(str(path))


def _stored_script(path: Path) -> str | None:
    """The SQL that the file was made from; None if there is no file, or another program has it open for writing."""
    if not path.exists():
        return None
    try:
        with in_memory() as con:
            name = f"views_{uuid.uuid4().hex}"
            con.execute(f"ATTACH {literal(str(path))} AS {name} (TYPE duckdb, READ_ONLY)")
            try:
                row = con.execute(f"SELECT script FROM {name}.made_from").fetchone()
            finally:
                con.execute(f"DETACH {name}")
    except duckdb.Error:
        return None
    return str(row[0]) if row else None


def _replace(path: Path, folder: Path, script: str) -> None:
    from taxi_platform.marts.view_sql import create_zones, view_select

    with replacing(path, folder) as temporary, _connect(str(temporary)) as con:
        create_zones(con)
        con.execute(script)
        for view in VIEWS.values():
            con.execute(f"CREATE VIEW {view.name} AS {view_select(view, list(Dataset), 'duckdb', identifier)}")
        con.execute(f"CREATE TABLE made_from AS SELECT {literal(script)} AS script")


def _connect(path: str) -> duckdb.DuckDBPyConnection:
    from taxi_platform.warehouse.duckdb import STORAGE_VERSION

    config: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": False,
        "storage_compatibility_version": STORAGE_VERSION,
    }
    return duckdb.connect(path, config=config)
