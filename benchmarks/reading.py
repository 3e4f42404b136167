"""The clean Parquet file against the TLC's own of the same rows: its size, and the time of five typical scans."""

from __future__ import annotations

import time
from pathlib import Path

import duckdb

from benchmarks.cleaning import clean_month
from benchmarks.measure import Timing, check_equal, ratio, timed
from benchmarks.months import Months, Options
from benchmarks.report import Row, ratio_row
from taxi_platform.trips.casting import literal
from taxi_platform.trips.contract import contract_of
from taxi_platform.trips.months import DatasetMonth

MONTHS = (("yellow", "2023-03"), ("fhvhv", "2023-03"))
SCANS = {
    "trips of a day": "SELECT count(*) FROM {file} WHERE {pickup_datetime} >= '2023-03-15' "
    "AND {pickup_datetime} < '2023-03-16'",
    "trips by day": "SELECT date_trunc('day', {pickup_datetime}) AS day, count(*) FROM {file} GROUP BY 1 ORDER BY 1",
    "miles by zone": "SELECT {pickup_location_id} AS zone, count(*), round(sum({miles}), 2) FROM {file} "
    "GROUP BY 1 ORDER BY 1",
    "busiest pairs of zones": "SELECT {pickup_location_id} AS a, {dropoff_location_id} AS b, count(*) AS trips "
    "FROM {file} GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT 10",
    "tips by hour": "SELECT hour({pickup_datetime}) AS hour, CAST(round(sum({tips}), 2) AS DOUBLE) FROM {file} "
    "WHERE {tips} > 0 GROUP BY 1 ORDER BY 1",
}
"""What a query asks → SQL over a file, with canonical names in braces."""
MILES = {"yellow": "trip_distance", "fhvhv": "trip_miles"}
TIPS = {"yellow": "tip_amount", "fhvhv": "tips"}
REPETITIONS = 3


def scans(
    clean: str, published: str, dataset: str, pairs: int, asked: dict[str, str] = SCANS
) -> dict[str, list[tuple[float, float, float, float]]]:
    """In a child: by scan, the seconds of both files that passed, and of processor time, of each pair."""
    queries = {name: (sql, *(_query(sql, file, dataset) for file in (clean, published))) for name, sql in asked.items()}
    taken: dict[str, list[tuple[float, float, float, float]]] = {}
    with duckdb.connect() as con:
        for name, (_, ours, theirs) in queries.items():
            check_equal(name, con.execute(ours).fetchall(), con.execute(theirs).fetchall())
            for number in range(pairs * REPETITIONS):
                order = (ours, theirs) if number % 2 else (theirs, ours)
                by_query = {query: _timed_query(con, query) for query in order}
                taken.setdefault(name, []).append((*by_query[ours], *by_query[theirs]))
    return taken


def measure(months: Months, options: Options) -> list[Row]:
    """The rows of size and scans."""
    rows = []
    for dataset, month in MONTHS:
        published = months.parquet(dataset, month)
        clean_month(months, dataset, month, published)
        clean = months.folder / "work/trips.parquet"
        sizes = [path.stat().st_size for path in (clean, published)]
        note = f"{sizes[0] / 1e6:.1f} and {sizes[1] / 1e6:.1f} MB"
        rows.append(Row(f"size of the clean file, {dataset} {month}", sizes[0] / sizes[1], goal=1.0, note=note))
        taken = timed(scans, clean, published, dataset, options.pairs).output
        for name, measured in taken.items():
            rows.append(_scan_row(f"{name}, {dataset}", measured, None))
        whole = [tuple(map(sum, zip(*pair, strict=True))) for pair in zip(*taken.values(), strict=True)]
        rows.append(_scan_row(f"the five scans together, {dataset}", whole, 1.0))
    return rows


def _scan_row(what: str, measured: list[tuple[float, ...]], goal: float | None) -> Row:
    ours = [Timing(wall, processor, 0, 0) for wall, processor, _, _ in measured]
    theirs = [Timing(wall, processor, 0, 0) for _, _, wall, processor in measured]
    milliseconds = [1000 * sum(t.wall for t in timings) / len(timings) for timings in (ours, theirs)]
    return ratio_row(what, ratio(ours, theirs), goal, f"{milliseconds[0]:.0f} and {milliseconds[1]:.0f} ms")


def _query(sql: str, file: str, dataset: str) -> str:
    contract = contract_of(DatasetMonth.parse(dataset, "2024-01").dataset)
    names = [column.name for column in contract.columns]
    published = {name: name for name in names}
    if Path(file).name != "trips.parquet":
        present = [row[0] for row in duckdb.execute(f"DESCRIBE FROM {literal(file)}").fetchall()]
        sources = contract.map_columns(present).sources
        published = {name: present[sources[name][0]] for name in names if name in sources}
    published |= {"miles": published[MILES[dataset]], "tips": published[TIPS[dataset]]}
    return sql.format(file=f"read_parquet({literal(file)})", **published)


def _timed_query(con: duckdb.DuckDBPyConnection, query: str) -> tuple[float, float]:
    started, before = time.perf_counter(), time.process_time()
    con.execute(query).fetchall()
    return time.perf_counter() - started, time.process_time() - before
