"""The overview of all months, from the lake: which months there are, and the page or the charts about them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

from taxi_platform.ingestion.survey import MONTHS_AT_ONCE, MonthState, Survey, ask_never
from taxi_platform.lake.base import Lake
from taxi_platform.lake.months import LakeMonth
from taxi_platform.marts.overview import chart_png, page, write_page
from taxi_platform.marts.overview_data import OverviewMonth, read_marts
from taxi_platform.trips.errors import Conflict, LakeError, TaxiError
from taxi_platform.trips.months import Dataset, Month
from taxi_platform.warehouse.base import Warehouse

VIEW_MARTS = {
    "trips_by_day": ("quality",),
    "daily_zones": ("daily_zones",),
    "hours": ("hours",),
    "payments": ("payments",),
    "quality": ("quality",),
    "market_share": ("quality", "companies"),
}
"""View over the marts that has a chart → the marts that the chart is made from."""


def write_overview(
    lake: Lake,
    warehouse: Warehouse,
    datasets: Sequence[Dataset],
    home: Path,
    newest: Month,
    reject: Sequence[str] = (),
) -> Path:
    """Write the page about all months up to `newest`; returns where it is, elsewhere than in the home if need be.

    Raises what lake and warehouse raise.
    """
    data = read_marts(lake, survey_months(lake, warehouse, datasets, newest, reject))
    return write_page(home, page(data, datetime.now()))


def view_charts(
    lake: Lake, warehouse: Warehouse, datasets: Sequence[Dataset], newest: Month, views: Collection[str]
) -> dict[str, bytes]:
    """The charts of these views as small PNGs; without those that have no chart, or nothing to draw."""
    marts = {mart for view in views for mart in VIEW_MARTS.get(view, ())}
    data = read_marts(lake, survey_months(lake, warehouse, datasets, newest), marts)
    pictures = {view: chart_png(view, data) for view in views if view in VIEW_MARTS}
    return {view: picture for view, picture in pictures.items() if picture}


def survey_months(
    lake: Lake, warehouse: Warehouse, datasets: Sequence[Dataset], newest: Month, reject: Sequence[str] = ()
) -> list[OverviewMonth]:
    """Every month that can exist, as lake and warehouse have it; the source is not asked."""
    months: list[OverviewMonth] = []
    for dataset in datasets:
        survey = Survey(None, lake, warehouse.for_polling(), dataset, reject)
        possible = list(dataset.first_month.until(max([newest, *survey.months_in_lake])))
        with ThreadPoolExecutor(MONTHS_AT_ONCE) as pool:
            months += pool.map(lambda state: _month(lake, state), survey.look(possible, ask_never))
    return months


def _month(lake: Lake, state: MonthState) -> OverviewMonth:
    problem: TaxiError | None = state.problem or state.damage
    unknown: tuple[str, ...] = ()
    if state.clean and not problem:
        try:
            report = LakeMonth(lake, state.dataset_month).report(state.clean.file_version)
            unknown = report.unknown_columns if report else ()
        except (LakeError, Conflict) as error:
            problem = error
    return OverviewMonth(
        state.dataset_month.dataset,
        str(state.dataset_month.month),
        str(state.stage),
        state.clean.file_version if state.clean else None,
        bool(state.raw and state.raw.publication.is_synthetic),
        unknown,
        str(problem) if problem else None,
    )
