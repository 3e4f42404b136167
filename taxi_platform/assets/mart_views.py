"""`marts/{view}`: the views over the marts of all datasets.

They belong to no month. The first run of a month creates them, and they show every month as soon as it is loaded; so
materializing them only brings their metadata up to date.

Dagster reads the annotations of asset functions when it decorates them, so they are not postponed here.
"""

import base64
import re
from collections.abc import Iterator, Sequence
from datetime import date

import dagster as dg

from taxi_platform.assets.attributes import OWNER, asset_key, table_kinds
from taxi_platform.assets.failures import errors_as_failures
from taxi_platform.assets.lineage import column_lineage
from taxi_platform.assets.metadata import Metadata, column_schema
from taxi_platform.assets.names import MARTS_GROUP
from taxi_platform.assets.resources import LakeResource, WarehouseResource
from taxi_platform.ingestion.mart_views import create_views
from taxi_platform.lake.base import Lake
from taxi_platform.marts.tables import mart_names, mart_table
from taxi_platform.marts.views import VIEWS, View
from taxi_platform.settings import Settings
from taxi_platform.trips.months import Dataset, newest_month
from taxi_platform.warehouse.base import Warehouse, zones_table

ZONES = dg.AssetKey(["reference", "taxi_zones"])


def view_key(name: str) -> dg.AssetKey:
    return dg.AssetKey([MARTS_GROUP, name])


def mart_views_asset(settings: Settings) -> dg.AssetsDefinition:
    """The multi-asset that makes all views in one step, over the marts of the datasets that are configured."""

    @dg.multi_asset(
        name="mart_views",
        specs=[_spec(view, settings) for view in VIEWS.values()],
        pool="warehouse",
    )
    def mart_views(
        context: dg.AssetExecutionContext, lake: LakeResource, warehouse: WarehouseResource
    ) -> Iterator[dg.MaterializeResult]:
        with errors_as_failures(context):
            opened = warehouse.open()
            if made := create_views(opened, settings.datasets):
                context.log.info(f"Views made: {', '.join(made)}.")
            metadata = {name: _metadata(view, opened, settings.datasets) for name, view in VIEWS.items()}
            for name, chart in _charts(lake.open(), opened, settings).items():
                metadata[name]["chart"] = chart
        for name, values in metadata.items():
            yield dg.MaterializeResult(asset_key=view_key(name), metadata=values)

    return mart_views


def _spec(view: View, settings: Settings) -> dg.AssetSpec:
    return dg.AssetSpec(
        view_key(view.name),
        deps=_parents(view, settings.datasets),
        group_name=MARTS_GROUP,
        description=f"{view.description} The view {view.name}, over all datasets.",
        kinds={*table_kinds(settings.warehouse_url) - {"table"}, "view"},
        owners=[OWNER],
    )


def _parents(view: View, datasets: Sequence[Dataset]) -> list[dg.AssetKey]:
    """The assets behind the names in the view's SQL; see `marts/views.py`."""
    names = set(re.findall(r"\w+", view.sql))
    marts = [asset_key(d, name) for d in datasets for name in mart_names(d) if f"all_{name}" in names]
    return [*marts, *([ZONES] if zones_table().name in names else [])]


def _metadata(view: View, warehouse: Warehouse, datasets: Sequence[Dataset]) -> Metadata:
    from taxi_platform.marts.lineage import lineage_of  # sqlglot takes 0.2 s to import
    from taxi_platform.marts.view_sql import view_select

    marts = {mart_table(d, name): asset_key(d, name) for d in datasets for name in mart_names(d)}
    keys = {table.name: key for table, key in {**marts, zones_table(): ZONES}.items()}
    select = view_select(view, datasets, "duckdb", str)
    sources = {
        column: [(keys[table], name) for table, name in columns]
        for column, columns in lineage_of(select, [*marts, zones_table()]).items()
    }
    notes = {column: _note(from_columns) for column, from_columns in sources.items()}
    return {
        "dagster/row_count": warehouse.row_count(view),
        "dagster/table_name": view.name,
        "dagster/uri": warehouse.uri(view.name),
        "dagster/column_schema": column_schema(view.columns, notes),
        "dagster/column_lineage": column_lineage(sources),
        **{label: dg.MetadataValue.url(url) for label, url in warehouse.links(view.name).items()},
    }


def _charts(lake: Lake, warehouse: Warehouse, settings: Settings) -> dict[str, dg.MetadataValue]:
    """View → its chart of all months, as a picture of at most 30 kB in Markdown."""
    from taxi_platform.ingestion.overview import view_charts

    pictures = view_charts(lake, warehouse, settings.datasets, newest_month(date.today()), tuple(VIEWS))
    return {
        name: dg.MetadataValue.md(f"![{name}](data:image/png;base64,{base64.b64encode(picture).decode()})")
        for name, picture in pictures.items()
    }


def _note(sources: Sequence[tuple[dg.AssetKey, str]]) -> str:
    """What a column comes from, in words: the same column of several datasets is named once."""
    names = sorted({f"{key.path[-1]}.{column}" for key, column in sources})
    return f" From {', '.join(names)}." if names else ""
