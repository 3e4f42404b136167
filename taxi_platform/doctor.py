"""`taxi doctor` and `taxi bootstrap`: what is configured, what exists, what is missing, and how to fix it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from taxi_platform.ingestion.load import load_zones, zones_are_loaded
from taxi_platform.ingestion.views import check_views, views_path
from taxi_platform.lake import open_lake
from taxi_platform.marts.tables import mart_tables
from taxi_platform.runs.home_record import check_home
from taxi_platform.settings import NAMES, Settings, open_warehouses, unknown_names
from taxi_platform.sources import open_source
from taxi_platform.trips.errors import TaxiError
from taxi_platform.trips.months import DatasetMonth, Month
from taxi_platform.trips.plan import Change
from taxi_platform.warehouse.base import Table, rejected_table, trips_table, zones_table

MIN_FREE_BYTES = 5_000_000_000
"""The largest month is half a gigabyte as Parquet, and is on the disk several times while it is ingested."""

TRIED_MONTHS = (0, 1, 2, 3, 36, 72)
"""How many months before the newest one the months are that tell whether TAXI_SOURCE_URL is right: recent ones, and two
of years ago for a source that has only those. One request each."""


@dataclass(frozen=True)
class Finding:
    """One line of `taxi doctor`: the message says what was found or, if not `ok`, what is wrong and how to fix it."""

    name: str
    ok: bool
    message: str


def tables_of(settings: Settings, resource: str) -> list[Table]:
    """Every table that the settings call for, in the warehouse or in the serving warehouse, which has no marts."""
    by_dataset = [table(dataset) for dataset in settings.datasets for table in (trips_table, rejected_table)]
    marts = [table for dataset in settings.datasets for table in mart_tables(dataset)]
    return [zones_table(), *by_dataset, *(marts if resource == "warehouse" else [])]


def plan(settings: Settings) -> Iterator[Change]:
    """Everything that has to exist, in the order in which it is created."""
    yield from open_lake(settings.lake_url).plan()
    for resource, warehouse in open_warehouses(settings):
        yield from warehouse.plan(tables_of(settings, resource))
        missing = not zones_are_loaded(warehouse)
        yield Change(f"taxi zones in {warehouse.url}", missing, partial(load_zones, warehouse))


def examine(settings: Settings, newest: Month) -> Iterator[Finding]:
    """Check every setting and what it refers to; yields a finding for each, and raises for none of them."""
    yield Finding("settings", True, _names())
    yield _check("home", partial(_home, settings))
    yield _check("source", partial(_source, settings, newest))
    yield _check("lake", partial(_lake, settings))
    yield _check("views", partial(_views, settings))
    for name in ("warehouse", "serving") if settings.serving_url else ("warehouse",):
        yield _check(name, partial(_warehouse, settings, name))
    if (settings.dagster_home / "dagster.yaml").exists():
        yield _check("history", partial(_history, settings))
    if settings.notify_urls:
        yield _check("notifications", partial(_notifications, settings))
    if settings.broker_url:
        yield _check("agents", partial(_agents, settings))


def _check(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, check())
    except TaxiError as error:
        return Finding(name, False, str(error))


def _names() -> str:
    message = f"{', '.join(name for name in NAMES if name in os.environ) or 'none'} set"
    if unknown := unknown_names(os.environ):
        message += f"; unknown, ignored: {', '.join(unknown)}"
    return message


def _home(settings: Settings) -> str:
    folder = settings.home
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise TaxiError(f"{folder} is not a folder.", "Set TAXI_HOME to a folder that you own.")
    if not os.access(folder, os.W_OK):
        raise TaxiError(f"{folder} is not writable.", "Set TAXI_HOME to a folder that you own.")
    opened = check_home(settings.home).last_version
    free = {place: shutil.disk_usage(disk).free for place, disk in settings.disks().items()}
    if low := {place: size for place, size in free.items() if size < MIN_FREE_BYTES}:
        said = ", ".join(f"{size / 1e9:.1f} GB at the {place}" for place, size in low.items())
        raise TaxiError(f"The disk is nearly full: free are {said}.", "Free some space, or move it to another disk.")
    by = f", last opened by taxi_platform {opened}" if opened else ""
    return f"{settings.home}{by}, {free['home'] / 1e9:.0f} GB free; Dagster's home is {settings.dagster_home}"


def _source(settings: Settings, newest: Month) -> str:
    source, dataset = open_source(settings.source_url, settings.datasets), settings.datasets[0]
    months = dict.fromkeys(max(newest.plus(-back), dataset.first_month) for back in TRIED_MONTHS)
    tried = [DatasetMonth(dataset, month) for month in months]
    for dataset_month in tried:
        if publication := source.stat(dataset_month):
            not_yet = "" if dataset_month.month == newest else f"answers; {tried[0]} is not published yet, and "
            return f"{not_yet}{publication.url} is published"
    addresses = ", ".join(map(source.address, tried))
    raise TaxiError(
        f"The source answers, but has none of {len(tried)} months, all but the newest of which should be published: "
        f"{addresses}.",
        "Open one of the addresses. If they are wrong, correct TAXI_SOURCE_URL.",
    )


def _lake(settings: Settings) -> str:
    lake = open_lake(settings.lake_url)
    if missing := [change.what for change in lake.plan() if change.needed]:
        return f"{lake.url}: will be created by taxi bootstrap or the first run: {', '.join(missing)}"
    lake.check_access()
    return f"{lake.url} can be written, read and deleted from"


def _notifications(settings: Settings) -> str:
    from taxi_platform.notifications.channels import check_notify_urls

    check_notify_urls(settings.notify_urls)
    return f"{len(settings.notify_urls)} channels; taxi notify test sends each a message"


def _agents(settings: Settings) -> str:
    from taxi_platform.runs.agents.check import check_agents

    return check_agents(settings)


def _history(settings: Settings) -> str:
    from taxi_platform.runs.instance import check_schema, open_instance  # importing Dagster takes a second

    with open_instance(settings) as instance:
        return f"{check_schema(instance)}; runs in its history: {instance.get_runs_count():,}"


def _views(settings: Settings) -> str:
    path = views_path(settings.home)
    if not path.exists():
        return f"the first run creates {path}"
    check_views(open_lake(settings.lake_url), settings.home)
    return f"{path} has views of the lake's months to query"


def _warehouse(settings: Settings, resource: str) -> str:
    # Stops at the one asked for: a wrong TAXI_SERVING_URL is a finding of its own.
    warehouse = next(warehouse for name, warehouse in open_warehouses(settings) if name == resource)
    changes = list(warehouse.plan(tables_of(settings, resource)))
    missing = sum(change.needed for change in changes)
    if not missing and not zones_are_loaded(warehouse):
        raise TaxiError(f"taxi_zones in {warehouse.url} does not hold all zones.", "Run taxi bootstrap.")
    message = f"{warehouse.url} answers; {len(changes) - missing} of {len(changes)} tables and other objects exist"
    return f"{message}; taxi bootstrap or the first run creates the others" if missing else message
