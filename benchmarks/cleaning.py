"""Cleaning against DuckDB's bare COPY of the same file, and against a COPY with plain casts to the same schema."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

import duckdb

from benchmarks.measure import Timing, alternate, check_equal, peak, ratio, row_hash, seconds, timed
from benchmarks.months import Months, Options
from benchmarks.report import Row, both, ratio_row
from taxi_platform.trips.casting import identifier, literal
from taxi_platform.trips.cleaning import PARQUET_OPTIONS, Cleaner, CleaningInput
from taxi_platform.trips.contract import Column, Contract, contract_of
from taxi_platform.trips.csv_reading import header
from taxi_platform.trips.months import DatasetMonth

MEMORY = "512MB"
PEAK_GOAL_MB = 500
PARQUET_MONTHS = (("yellow", "2023-03"), ("green", "2023-03"), ("fhv", "2023-03"), ("fhvhv", "2023-03"))
CSV_MONTHS = {("yellow", "2021-01"): (1.25, None), ("fhvhv", "2021-01"): (1.8, 1.3), ("fhvhv", "2021-08"): (1.8, 1.3)}
"""Month → the goals against the bare COPY and against plain casts."""
NOT_PLAIN = {"yellow 2017-03": "yellow 2019-03", "fhv 2018-03": "fhv 2019-03"}
"""Months whose CSV lines are not plain (blank lines, mixed line ends, quotes), and plain ones to compare them with."""


def idle() -> None:
    """Nothing, in a child: what its imports take."""


def bare(source: str, target: str) -> None:
    """The bare COPY, in a child."""
    with _connect() as con:
        con.execute(f"COPY (SELECT * FROM {_reading(source)}) TO {literal(target)} (FORMAT parquet)")


def casts(source: str, target: str, dataset: str, whole_schema: bool = True) -> None:
    """A COPY with one plain cast for each column of the clean schema, written as the cleaner writes it; in a child.

    Without the `whole_schema`, only of the columns that the file has.
    """
    with _connect() as con:
        con.execute(casting_copy(con, source, target, dataset, whole_schema))


def casting_copy(
    con: duckdb.DuckDBPyConnection,
    source: str,
    target: str,
    dataset: str,
    whole_schema: bool = True,
    month: str = "2024-01",
) -> str:
    """The statement of `casts`, for rows of this month."""
    contract = contract_of(DatasetMonth.parse(dataset, "2024-01").dataset)
    relation = _reading(source) if source.endswith(".parquet") else _typed_csv(source, contract)
    names = [row[0] for row in con.execute(f"DESCRIBE FROM {relation}").fetchall()]
    provenance = [f"DATE '{month}-01' AS file_month", "'0123456789ab' AS file_version"] if whole_schema else []
    select = ", ".join([*_casts(contract, names, whole_schema), *provenance])
    return f"COPY (SELECT {select} FROM {relation}) TO {literal(target)} ({PARQUET_OPTIONS})"


def clean(raw: dict[str, str | int | bool], folder: str) -> int:
    """The platform's cleaning, in a child; returns the clean rows."""
    dataset, month = str(raw["dataset_month"]).split()
    fields = {**raw, "dataset_month": DatasetMonth.parse(dataset, month), "path": Path(str(raw["path"]))}
    return Cleaner(CleaningInput(**fields), Path(folder)).clean().report.rows_clean  # type: ignore[arg-type]


def measure(months: Months, options: Options) -> list[Row]:
    """The rows of cleaning."""
    pairs = options.pairs
    not_plain = [(dataset, month) for pair in NOT_PLAIN.items() for dataset, month in map(str.split, pair)]
    months.prepare([*CSV_MONTHS, *not_plain], PARQUET_MONTHS)
    parquet = [_compare(months, *month, True, 1.8, 1.2, pairs) for month in PARQUET_MONTHS]
    csv = [_compare(months, *month, False, *goals, pairs) for month, goals in CSV_MONTHS.items()]
    rows = [row for compared, _ in (*parquet, *csv) for row in compared]
    for kind, measured in (("Parquet", parquet), ("CSV.gz", csv)):
        highest = max(megabytes for _, megabytes in measured)
        rows.append(Row(f"{kind} in, peak memory of any of these", highest, "MB", PEAK_GOAL_MB))
    return rows + _not_plain(months, pairs)


def clean_month(months: Months, dataset: str, month: str, path: Path) -> Timing:
    """Clean a month in a new folder, where `trips.parquet` is afterwards."""
    folder = months.folder / "work"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    raw = months.raw(dataset, month, path)
    fields = {**asdict(raw), "dataset_month": f"{dataset} {month}", "path": str(path)}
    return timed(clean, fields, folder)


def _compare(
    months: Months, dataset: str, month: str, is_parquet: bool, to_bare: float, to_casts: float | None, pairs: int
) -> tuple[list[Row], float]:
    """The rows of one month, and the peak memory of its cleaning."""
    path = months.parquet(dataset, month) if is_parquet else months.csv(dataset, month)
    targets = {name: str(months.folder / f"{name}.parquet") for name in ("bare", "casts")}
    ways = {
        "ours": lambda: clean_month(months, dataset, month, path),
        "bare": lambda: timed(bare, path, targets["bare"]),
        "casts": lambda: timed(casts, path, targets["casts"], dataset),
    }
    for name in ("ours", "casts"):
        ways[name]()
    columns = [column.name for column in _comparable(dataset)]
    ours = row_hash(months.folder / "work/trips.parquet", columns)
    check_equal(f"{dataset} {month}", ours, row_hash(targets["casts"], columns))
    timings = alternate(ways, pairs)
    what = f"{'Parquet' if is_parquet else 'CSV.gz'} in, {dataset} {month}"
    goals = {"bare": ("a bare COPY", to_bare), "casts": ("plain casts", to_casts)}
    rows = [
        ratio_row(
            f"{what}, against {plain}", ratio(timings["ours"], timings[way]), goal, both(timings["ours"], timings[way])
        )
        for way, (plain, goal) in goals.items()
    ]
    return rows, peak(timings["ours"])


def _not_plain(months: Months, pairs: int) -> list[Row]:
    """Rows a second of files whose lines are not plain, against those of plain ones with as many rows."""
    rows = []
    for names in NOT_PLAIN.items():
        ways = {}
        for name in names:
            path = months.csv(*name.split())
            assert months.raw(*name.split(), path).plain is (name == names[1])
            ways[name] = lambda name=name, path=path: clean_month(months, *name.split(), path)
        timings = alternate(ways, pairs)
        speed = ratio(timings[names[1]], timings[names[0]])
        note = f"{months.rows / seconds(timings[names[0]]):,.0f} rows/s"
        what = f"CSV whose lines are not plain, {names[0]}: rows a second to those of {names[1]}"
        spread = speed.low, speed.high
        rows.append(Row(what, speed.median, "×", 0.5, spread, speed.processor, note, at_least=True))
    return rows


def _connect() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect(config={"memory_limit": MEMORY})
    con.execute("SET enable_progress_bar = false")
    return con


def _reading(source: str) -> str:
    if source.endswith(".parquet"):
        return f"read_parquet({literal(source)})"
    return f"read_csv({literal(source)}, ignore_errors = true)"


def _typed_csv(source: str, contract: Contract) -> str:
    """A scan of a plain CSV file with the contract's types; lines that do not fit are left out."""
    names = header(Path(source))
    types = {names[i]: column.duckdb_type for column, i in _pairs(contract, names)}
    listed = ", ".join(f"{literal(name)}: {literal(type_)}" for name, type_ in types.items())
    return f"read_csv({literal(source)}, header = true, ignore_errors = true, types = {{{listed}}})"


def _casts(contract: Contract, names: list[str], whole_schema: bool) -> list[str]:
    published = {column.name: identifier(names[i]) for column, i in _pairs(contract, names)}
    columns = [*contract.columns, contract.table_columns[len(contract.columns)]]  # and extra_columns
    return [
        f"CAST({published.get(c.name, 'NULL')} AS {c.duckdb_type}) AS {c.name}"
        for c in columns
        if whole_schema or c.name in published
    ]


def _pairs(contract: Contract, names: list[str]) -> list[tuple[Column, int]]:
    sources = contract.map_columns(names).sources
    return [(column, sources[column.name][0]) for column in contract.columns if column.name in sources]


def _comparable(dataset: str) -> list[Column]:
    """The columns that a plain cast gets right too: those without a map of codes."""
    contract = contract_of(DatasetMonth.parse(dataset, "2024-01").dataset)
    return [column for column in contract.columns if not column.codes]
