"""What the UI shows of a month: numbers to plot, a small chart, a preview of rows, the columns and what they mean."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO
from urllib.parse import quote

import dagster as dg

from taxi_platform.ingestion.steps import Cleaned, Fetched, Loaded
from taxi_platform.trips.contract import Column
from taxi_platform.trips.report import Report

Metadata = dict[str, Any]
PREVIEW_ROWS = 8
MAX_CELL = 200


def raw_metadata(fetched: Fetched, seconds: float) -> Metadata:
    raw = fetched.raw
    found: Metadata = {
        "rows_read": raw.rows,
        "dagster/partition_row_count": raw.rows,
        "bytes": raw.size,
        **_lake_object(fetched.uri),
        "source_url": raw.url,
        "source_version": raw.source_version,
        "sha256": raw.sha256,
        "fetched_at": raw.time,
        "unchanged": fetched.unchanged,
        "seconds": round(seconds, 2),
    }
    if fetched.previous and fetched.previous.sha256 != raw.sha256:
        found["rows_before"] = fetched.previous.rows
        found["rows_difference"] = raw.rows - fetched.previous.rows
    if fetched.warning:
        found["warning"] = fetched.warning
    return found


def clean_metadata(cleaned: Cleaned, preview: BinaryIO, columns: Sequence[Column], seconds: float) -> Metadata:
    report, footer = cleaned.report, cleaned.footer
    return {
        **_counts(report),
        "dagster/partition_row_count": footer.rows,
        "bytes": footer.size,
        **_lake_object(cleaned.uri),
        "dagster/column_schema": column_schema(columns),
        "file_version": footer.file_version,
        "contract_version": footer.contract_version,
        "raw_sha256": footer.raw_sha256,
        "trips_per_day": dg.MetadataValue.md(_chart(report)),
        "preview": dg.MetadataValue.md(_preview(preview)),
        **{f"suspicious/{rule}": rows for rule, rows in report.suspicious.items()},
        "unknown_columns": ", ".join(report.unknown_columns) or "none",
        "missing_columns": ", ".join(report.missing_columns) or "none",
        "unchanged": cleaned.unchanged,
        "seconds": round(seconds, 2),
    }


def rejected_metadata(cleaned: Cleaned, preview: BinaryIO, columns: Sequence[Column]) -> Metadata:
    report = cleaned.report
    return {
        "rows_rejected": report.rows_rejected,
        "share_rejected": round(report.share_rejected, 6),
        "dagster/partition_row_count": report.rows_rejected,
        **_lake_object(cleaned.rejected_uri),
        "dagster/column_schema": column_schema(columns),
        "file_version": report.file_version,
        "reasons": _table(report.rejected_by_reason, "reason", "rows"),
        "preview": dg.MetadataValue.md(_preview(preview)),
        "unchanged": cleaned.unchanged,
    }


def table_metadata(loaded: Loaded, table: str, columns: Sequence[Column], seconds: float) -> Metadata:
    result = loaded.result
    return {
        "rows": result.rows,
        "rows_rejected": result.rejected_rows,
        "dagster/partition_row_count": result.rows,
        "dagster/table_name": table,
        "dagster/uri": loaded.uri,
        "dagster/column_schema": column_schema(columns),
        "file_version": loaded.file_version,
        "fingerprint": str(result.fingerprint),
        **{label: dg.MetadataValue.url(url) for label, url in result.links.items()},
        "unchanged": loaded.unchanged,
        "seconds": round(seconds, 2),
    }


def _lake_object(uri: str) -> Metadata:
    """Where the file lies, and for a bucket's a link that opens it."""
    if not uri.startswith("gs://"):
        return {"dagster/uri": uri}
    page = f"https://console.cloud.google.com/storage/browser/_details/{quote(uri.removeprefix('gs://'))}"
    return {"dagster/uri": uri, "lake_object": dg.MetadataValue.url(page)}


def column_schema(columns: Sequence[Column]) -> dg.TableSchema:
    """The contract's columns as the UI shows and searches them."""
    return dg.TableSchema(
        columns=[dg.TableColumn(c.name, c.column_type.display, description=c.description) for c in columns]
    )


def _counts(report: Report) -> Metadata:
    return {
        "rows_read": report.rows_read,
        "rows_clean": report.rows_clean,
        "rows_rejected": report.rows_rejected,
        "share_rejected": round(report.share_rejected, 6),
        "reasons": _table(report.rejected_by_reason, "reason", "rows"),
    }


def _table(counts: Mapping[str, int], name: str, number: str) -> dg.MetadataValue:
    rows = "".join(f"| {key} | {value:,} |\n" for key, value in counts.items())
    return dg.MetadataValue.md(f"| {name} | {number} |\n|---|---:|\n{rows}" if rows else "none")


def _chart(report: Report) -> str:
    """Trips per day as a picture of about 3 kB: it is stored in the event log, once a materialization.

    Drawn by hand: thirty bars do not need a plotting library, which took a tenth of a small month and of the set-up.
    """
    width, height, left, top, bottom = 440, 150, 54, 22, 132
    highest = max(report.trips_per_day.values(), default=0) or 1
    step = (width - left) / 31
    marks = []
    for day, trips in report.trips_per_day.items():
        x, tall = left + step * (int(day[-2:]) - 1), (bottom - top) * trips / highest
        marks.append(f'<rect x="{x:.1f}" y="{bottom - tall:.1f}" width="{step * 0.8:.1f}" height="{tall:.1f}"/>')
    texts: list[tuple[float, int, str, str]] = [
        (left - 4, top + 8, "end", f"{highest:,}"),
        (left - 4, bottom, "end", "0"),
        (width / 2, 13, "middle", f"{report.dataset} {report.month}: trips per day"),
        *((left + step * (day - 0.6), height - 6, "middle", str(day)) for day in (1, 5, 10, 15, 20, 25, 30)),
    ]
    words = "".join(f'<text x="{x:.0f}" y="{y}" text-anchor="{anchor}">{text}</text>' for x, y, anchor, text in texts)
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
        f'font-size="10"><rect width="100%" height="100%" fill="white"/><g fill="#2b6cb0">{"".join(marks)}</g>'
        f'<g fill="#444">{words}</g></svg>'
    )
    return f"![trips per day](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


def _preview(file: BinaryIO) -> str:
    """The first rows of a Parquet file as a table, without the columns that are empty there."""
    import pyarrow.parquet as pq

    batch = next(pq.ParquetFile(file).iter_batches(batch_size=PREVIEW_ROWS), None)
    if batch is None or not batch.num_rows:
        return "no rows"
    filled = [name for name in batch.schema.names if batch[name].null_count < batch.num_rows]
    cells = [["" if row[name] is None else _escaped(row[name]) for name in filled] for row in batch.to_pylist()]
    return "\n".join(f"| {' | '.join(line)} |" for line in (filled, ["---"] * len(filled), *cells))


def _escaped(value: object) -> str:
    """A cell's text, which may hold what strangers wrote, so that it cannot become markup or break the table."""
    text = "".join(character if character.isprintable() else " " for character in str(value)[:MAX_CELL])
    return re.sub(r"([\\`*_{}\[\]<>|#!&])", r"\\\1", text)
