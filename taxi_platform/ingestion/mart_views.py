"""The views over the marts of all datasets in a warehouse: made where they are missing, replaced where they changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal

from taxi_platform.ingestion.common import Say
from taxi_platform.marts.tables import mart_tables
from taxi_platform.marts.views import VIEWS, View, view_version
from taxi_platform.trips.errors import WarehouseError
from taxi_platform.trips.months import Dataset
from taxi_platform.warehouse.base import Warehouse, zones_table
from taxi_platform.warehouse.session import MissingTable, Session


def create_views(warehouse: Warehouse, datasets: Sequence[Dataset]) -> tuple[str, ...]:
    """Bring the views over the marts of these datasets up to date; returns the names of those that were not.

    Tables that they read are made, empty, where they are missing. Where all is up to date, this is one look at the
    names of tables and views. Raises `WarehouseError`, also for somebody's own table or view of such a name,
    which stays; the other views are made all the same.
    """
    try:
        with warehouse.session("read") as session:
            if not list(_outdated(session, datasets, session.relations())):
                return ()
    except MissingTable:
        pass  # no database yet
    with warehouse.session("create") as session:
        existing = session.relations()
        for table in (zones_table(), *(table for dataset in datasets for table in mart_tables(dataset))):
            if table.name not in existing:
                session.create_or_widen(table)
        outdated = list(_outdated(session, datasets, existing))
        foreign = [view.name for view, _, _ in outdated if view.name in existing and existing[view.name] is None]
        for view, select, version in outdated:
            if view.name not in foreign:
                session.replace_view(view, select, version)
    if foreign:
        raise WarehouseError(
            f"{', '.join(foreign)} in {warehouse.url}: not made by taxi_platform, whose views have these names.",
            "Rename them, or use another schema or database for the trips.",
        )
    return tuple(view.name for view, _, _ in outdated)


def try_create_views(warehouse: Warehouse, datasets: Sequence[Dataset], say: Say) -> None:
    """`create_views` after a load: the month is loaded, so a problem with the views fails nothing."""
    try:
        if made := create_views(warehouse, datasets):
            say(f"Views made: {', '.join(made)}.")
    except WarehouseError as error:
        say(f"The views over the marts are not up to date: {error}")


def busiest_borough(warehouse: Warehouse) -> tuple[str, int, Decimal] | None:
    """The borough with the most pick-ups in all months, its trips, and what their passengers paid in dollars."""
    try:
        with warehouse.session("read") as session:
            rows = session.execute(
                "SELECT pickup_borough, SUM(trips), SUM(total_amount) "
                f"FROM {session.name(VIEWS['daily_zones'].name)} "
                "WHERE pickup_borough IS NOT NULL GROUP BY 1 ORDER BY 2 DESC LIMIT 1"
            )
    except MissingTable:
        return None
    return next(((str(borough), int(trips), Decimal(paid or 0)) for borough, trips, paid in rows), None)


def _outdated(
    session: Session, datasets: Sequence[Dataset], existing: Mapping[str, str | None]
) -> Iterator[tuple[View, str, str]]:
    """The views that are missing or of another version, with the SELECT and the version that they should have."""
    for view in VIEWS.values():
        version = view_version(view, datasets)
        if existing.get(view.name) != version:
            from taxi_platform.marts.view_sql import view_select  # sqlglot takes 0.15 s to import

            yield view, view_select(view, datasets, session.dialect, session.name), version
