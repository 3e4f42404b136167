"""`taxi doctor` and `taxi bootstrap`: what is set, what is there, what is missing, and how to mend it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from taxi_platform.lake import open_lake
from taxi_platform.settings import NAMES, Settings, open_warehouses, unknown_names
from taxi_platform.sources import open_source
from taxi_platform.trips.errors import TaxiError
from taxi_platform.trips.months import DatasetMonth, Month
from taxi_platform.trips.plan import Change
from taxi_platform.warehouse.base import Table, rejected_table, trips_table, zones_table

LITTLE_DISK_BYTES = 5_000_000_000
"""The largest month is half a gigabyte as Parquet; fetched, cleaned and loaded it stands there several times."""


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's: `ok`, or what is wrong and how to mend it."""

    name: str
    ok: bool
    told: str


def tables_of(settings: Settings) -> list[Table]:
    """Every table the settings ask for."""
    months = [table(dataset) for dataset in settings.datasets for table in (trips_table, rejected_table)]
    return [zones_table(), *months]


def plan(settings: Settings) -> Iterator[Change]:
    """Everything that has to be there, in the order of making it."""
    yield from open_lake(settings.lake_url).plan()
    for _, warehouse in open_warehouses(settings):
        yield from warehouse.plan(tables_of(settings))


def examine(settings: Settings, newest: Month) -> Iterator[Finding]:
    """Look at every setting and everything behind it; never raises for what it looks at."""
    yield Finding("settings", True, _names())
    yield _found("home", partial(_home, settings))
    yield _found("source", partial(_source, settings, newest))
    yield _found("lake", partial(_lake, settings))
    for name in ("warehouse", "serving") if settings.serving_url else ("warehouse",):
        yield _found(name, partial(_warehouse, settings, name))
    if settings.notify_urls:
        yield _found("notifications", partial(_notifications, settings))


def _found(name: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, look())
    except TaxiError as error:
        return Finding(name, False, str(error))


def _names() -> str:
    known = ", ".join(name for name in NAMES if name in os.environ)
    unknown = ", ".join(unknown_names(os.environ))
    return f"{known or 'none'} set{f'; unknown, ignored: {unknown}' * bool(unknown)}"


def _home(settings: Settings) -> str:
    folder = settings.home
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise TaxiError(f"{folder} is not a folder.", "Set TAXI_HOME to a folder that you own.")
    if not os.access(folder, os.W_OK):
        raise TaxiError(f"{folder} cannot be written.", "Set TAXI_HOME to a folder that you own.")
    free = shutil.disk_usage(folder).free
    if free < LITTLE_DISK_BYTES:
        raise TaxiError(
            f"Only {free / 1e9:.1f} GB are free at {folder}.", "Free some space, or set TAXI_HOME elsewhere."
        )
    return f"{settings.home}, {free / 1e9:.0f} GB free; Dagster's home is {settings.dagster_home}"


def _source(settings: Settings, newest: Month) -> str:
    dataset_month = DatasetMonth(settings.datasets[0], newest)
    publication = open_source(settings.source_url, settings.datasets).stat(dataset_month)
    return f"{publication.url} is published" if publication else f"answers; {dataset_month} is not published yet"


def _lake(settings: Settings) -> str:
    lake = open_lake(settings.lake_url)
    if missing := [change.what for change in lake.plan() if change.needed]:
        return f"{lake.url}: to be made: {', '.join(missing)} (taxi bootstrap, or the first run)"
    lake.check_access()
    return f"{lake.url} can be written, read and cleaned up"


def _notifications(settings: Settings) -> str:
    from taxi_platform.notifications.channels import check_notify_urls

    check_notify_urls(settings.notify_urls)
    return f"{len(settings.notify_urls)} channels; taxi notify test sends them a message"


def _warehouse(settings: Settings, wanted: str) -> str:
    warehouse = next(warehouse for name, warehouse in open_warehouses(settings) if name == wanted)
    changes = list(warehouse.plan(tables_of(settings)))
    missing = [change.what for change in changes if change.needed]
    made = f"{len(changes) - len(missing)} of {len(changes)} tables and the like are there"
    return f"{warehouse.url} answers; {made}{'; taxi bootstrap or the first run makes the rest' * bool(missing)}"
