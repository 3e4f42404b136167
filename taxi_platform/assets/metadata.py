"""What the UI shows of a month: numbers to plot, a small chart, a preview of rows, the columns and their meaning."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import dagster as dg

from taxi_platform.assets.lineage import mart_lineage, table_lineage
from taxi_platform.ingestion.steps import BuiltMarts, Cleaned, Fetched, Loaded, first_rows
from taxi_platform.lake.base import Lake
from taxi_platform.marts.tables import mart_table
from taxi_platform.trips.contract import REJECTED_COLUMNS, Column, contract_of
from taxi_platform.trips.locks import seconds_waited
from taxi_platform.trips.months import Dataset
from taxi_platform.trips.report import Report
from taxi_platform.trips.text import escaped_html, listed_names, printable
from taxi_platform.warehouse.base import Warehouse, trips_table

Metadata = dict[str, Any]
WHOLE_BYTES = 256 * 1024
"""A file up to this size is read for its preview in one request; of a larger one, footer and first rows are."""
MAX_CELL = 200
"""Characters of a cell: like all metadata it is stored in the event log, and a rejected line may be of any length."""


def raw_metadata(fetched: Fetched, seconds: float) -> Metadata:
    raw, previous = fetched.raw, fetched.previous
    metadata: Metadata = {
        "rows_read": raw.rows,
        "dagster/partition_row_count": raw.rows,
        "bytes": raw.size,
        **_lake_object(fetched.uri),
        "source_url": printable(raw.url),
        "source_version": printable(raw.source_version),
        "sha256": raw.sha256,
        "fetched_at": raw.time,
        "unchanged": fetched.unchanged,
        **_durations(seconds),
    }
    if previous and previous.sha256 != raw.sha256:
        metadata["rows_before"] = previous.rows
        metadata["rows_difference"] = raw.rows - previous.rows
    if fetched.set_aside:
        metadata["set_aside"] = fetched.set_aside.raw.short_sha256
    if fetched.warning:
        metadata["warning"] = fetched.warning
    return metadata


def clean_metadata(cleaned: Cleaned, seconds: float) -> Metadata:
    report, footer, lake = cleaned.report, cleaned.footer, cleaned.month.lake
    columns = contract_of(cleaned.month.dataset_month.dataset).table_columns
    return {
        "rows_read": report.rows_read,
        "rows_clean": report.rows_clean,
        "rows_rejected": report.rows_rejected,
        "share_rejected": round(report.share_rejected, 6),
        "reasons": _reasons(report.rejected_by_reason),
        "dagster/partition_row_count": footer.rows,
        "bytes": footer.size,
        **_lake_object(lake.uri(cleaned.clean_key)),
        "dagster/column_schema": column_schema(columns),
        "file_version": footer.file_version,
        "contract_version": footer.contract_version,
        "raw_sha256": footer.raw_sha256,
        "trips_per_day": dg.MetadataValue.md(_chart(report)),
        "preview": _preview(cleaned, cleaned.clean_key, columns, footer.size),
        **{f"suspicious/{rule}": rows for rule, rows in report.suspicious.items()},
        "unknown_columns": listed_names(report.unknown_columns) or "none",
        "missing_columns": listed_names(report.missing_columns) or "none",
        "unchanged": cleaned.unchanged,
        **_durations(seconds),
    }


def rejected_metadata(cleaned: Cleaned) -> Metadata:
    report, lake = cleaned.report, cleaned.month.lake
    return {
        "rows_rejected": report.rows_rejected,
        "share_rejected": round(report.share_rejected, 6),
        "reasons": _reasons(report.rejected_by_reason),
        "dagster/partition_row_count": report.rows_rejected,
        **_lake_object(lake.uri(cleaned.rejected_key)),
        "dagster/column_schema": column_schema(REJECTED_COLUMNS),
        "file_version": report.file_version,
        "preview": _preview(cleaned, cleaned.rejected_key, REJECTED_COLUMNS),
        "unchanged": cleaned.unchanged,
    }


def table_metadata(loaded: Loaded, dataset: Dataset, seconds: float) -> Metadata:
    result, table = loaded.result, trips_table(dataset)
    return {
        "rows": result.rows,
        "rows_rejected": result.rejected_rows,
        "dagster/partition_row_count": result.rows,
        "dagster/table_name": table.name,
        "dagster/uri": loaded.uri,
        "dagster/column_schema": column_schema(table.columns),
        "dagster/column_lineage": table_lineage(dataset),
        "file_version": loaded.file_version,
        "fingerprint": str(result.fingerprint),
        **{label: dg.MetadataValue.url(url) for label, url in result.links.items()},
        "unchanged": loaded.unchanged,
        **_durations(seconds),
    }


def mart_metadata(warehouse: Warehouse, dataset: Dataset, built: BuiltMarts, seconds: float) -> dict[str, Metadata]:
    """The metadata of each mart of a month, by name. `seconds` is what all of them took together."""
    metadata = dict[str, Metadata]()
    for name, rows in built.rows.items():
        table = mart_table(dataset, name)
        metadata[name] = {
            "rows": rows,
            "dagster/partition_row_count": rows,
            "dagster/table_name": table.name,
            "dagster/uri": warehouse.uri(table.name),
            "lake_uri": built.uris[name],
            "dagster/column_schema": column_schema(table.columns),
            "dagster/column_lineage": mart_lineage(dataset, name),
            "file_version": built.file_version,
            "mart_version": built.mart_version,
            "preview": _busiest(built.busiest[name], table.columns),
            "unchanged": built.unchanged,
            **_durations(seconds),
        }
    return metadata


def _durations(seconds: float) -> Metadata:
    """What a step took, and how much of that it waited for locks that others held."""
    return {"seconds": round(seconds, 2), "lock_wait_seconds": round(seconds_waited(), 2)}


def column_schema(columns: Sequence[Column], notes: Mapping[str, str] | None = None) -> dg.TableSchema:
    """The columns as the UI shows and searches them. `notes` are added to the descriptions, by column."""
    notes = notes or {}
    return dg.TableSchema(
        columns=[
            dg.TableColumn(c.name, c.column_type.display, description=c.description + notes.get(c.name, ""))
            for c in columns
        ]
    )


def _lake_object(uri: str) -> Metadata:
    """Where the file is, and for a bucket a link that opens it."""
    if not uri.startswith("gs://"):
        return {"dagster/uri": uri}
    page = f"https://console.cloud.google.com/storage/browser/_details/{quote(uri.removeprefix('gs://'))}"
    return {"dagster/uri": uri, "lake_object": dg.MetadataValue.url(page)}


def _reasons(rows_by_reason: Mapping[str, int]) -> dg.MetadataValue:
    schema = dg.TableSchema(columns=[dg.TableColumn("reason", "string"), dg.TableColumn("rows", "int")])
    records = [dg.TableRecord({"reason": _cell(reason), "rows": rows}) for reason, rows in rows_by_reason.items()]
    return dg.MetadataValue.table(records, schema)


def _preview(cleaned: Cleaned, key: str, columns: Sequence[Column], size: int = 0) -> dg.MetadataValue:
    """The first rows of a file of the month, without the columns that are empty in all of them.

    `size` is the file's in bytes, if it is known.
    """
    rows = cleaned.first_rows[key] if key in cleaned.first_rows else _first_rows_in_lake(cleaned.month.lake, key, size)
    shown = [column for column in columns if any(row[column.name] is not None for row in rows)]
    records = [dg.TableRecord({column.name: _cell(row[column.name]) for column in shown}) for row in rows]
    return dg.MetadataValue.table(records, column_schema(shown))


def _first_rows_in_lake(lake: Lake, key: str, size: int) -> list[dict[str, Any]]:
    """The first rows of a Parquet file, of which one of up to `WHOLE_BYTES` is read as a whole."""
    whole = lake.read_end(key, WHOLE_BYTES) if size <= WHOLE_BYTES else None
    is_whole = whole is not None and len(whole[0]) == whole[1].size
    with io.BytesIO(whole[0]) if whole and is_whole else lake.open(key) as file:
        return first_rows(file)


def _busiest(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> dg.MetadataValue:
    records = [dg.TableRecord({column.name: _cell(row[column.name]) for column in columns}) for row in rows]
    return dg.MetadataValue.table(records, column_schema(columns))


def _cell(value: object) -> str:
    return "" if value is None else printable(str(value), MAX_CELL)


def _chart(report: Report) -> str:
    """Trips per day as a picture of about 3 kB, small because every materialization stores it in the event log.

    It is written as SVG text: Altair and vl-convert, which draw the overview, cost a month a second of processor time
    and twice the bytes (docs/decisions.md).
    """
    width, height, left, top, bottom = 440, 150, 54, 22, 132
    highest = max(report.trips_per_day.values(), default=0) or 1
    step = (width - left) / 31
    bars = []
    for day, trips in report.trips_per_day.items():
        x, size = left + step * (int(day[-2:]) - 1), (bottom - top) * trips / highest
        bars.append(f'<rect x="{x:.1f}" y="{bottom - size:.1f}" width="{step * 0.8:.1f}" height="{size:.1f}"/>')
    texts: list[tuple[float, int, str, str]] = [
        (left - 4, top + 8, "end", f"{highest:,}"),
        (left - 4, bottom, "end", "0"),
        (width / 2, 13, "middle", escaped_html(f"{report.dataset} {report.month}: trips per day")),
        *((left + step * (day - 0.6), height - 6, "middle", str(day)) for day in (1, 5, 10, 15, 20, 25, 30)),
    ]
    labels = "".join(f'<text x="{x:.0f}" y="{y}" text-anchor="{anchor}">{text}</text>' for x, y, anchor, text in texts)
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
        f'font-size="10"><rect width="100%" height="100%" fill="white"/><g fill="#2b6cb0">{"".join(bars)}</g>'
        f'<g fill="#444">{labels}</g></svg>'
    )
    return f"![trips per day](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"
