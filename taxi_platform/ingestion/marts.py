"""Marts: bring a month's marts up to date with its clean file, in lake and warehouse.

The lake's are computed from the clean file, the warehouse's by the warehouse itself from its trips. The two have to be
equal by every value before either is published as the month's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest
from pathlib import Path
from typing import Any

from taxi_platform.ingestion.common import Say, no_message, open_clean_month, retry_on_conflict
from taxi_platform.ingestion.compared import note_comparison
from taxi_platform.ingestion.work_folder import work_folder
from taxi_platform.lake.base import Lake
from taxi_platform.lake.mart_month import MartMonth, complete_marts
from taxi_platform.lake.months import CleanFooter, LakeMonth
from taxi_platform.marts.quality import QualityRow, quality_rows
from taxi_platform.marts.tables import mart_names, mart_table, mart_version
from taxi_platform.trips.engine import Engine
from taxi_platform.trips.errors import Conflict, IntegrityError
from taxi_platform.trips.faults import fault_point
from taxi_platform.trips.months import Dataset, DatasetMonth, Month
from taxi_platform.warehouse.base import Warehouse
from taxi_platform.warehouse.session import MissingTable
from taxi_platform.warehouse.tables import MartFile, Table, TableFile

RowsAndBusiest = tuple[dict[str, int], dict[str, list[dict[str, Any]]]]
"""Of each mart the number of its rows, and those with the highest counts."""
BUSIEST_ROWS = 8
"""What the metadata show of each mart."""


@dataclass(frozen=True)
class BuiltMarts:
    """A month's marts as lake and warehouse hold them. Mappings are by mart; the URIs are the lake's.

    `busiest` are the rows with the highest counts, as column → value.
    """

    file_version: str
    mart_version: str
    rows: dict[str, int]
    busiest: dict[str, list[dict[str, Any]]]
    unchanged: bool
    uris: dict[str, str]


def marts_in_lake(lake: Lake, dataset: Dataset) -> dict[Month, tuple[str, str]]:
    """Month → file version and mart version, of the months whose marts are complete in the lake; one listing."""
    return complete_marts(lake, dataset, mart_names(dataset))


@retry_on_conflict
def build_marts(
    lake: Lake,
    warehouse: Warehouse,
    dataset_month: DatasetMonth,
    home: Path,
    force: bool = False,
    say: Say = no_message,
    engine: Engine | None = None,
    run: str = "",
) -> BuiltMarts:
    """Bring a month's marts up to date with its clean file, in the warehouse and then in the lake.

    Marts that are there in this version are compared by every value, and made again if they differ. Raises `LakeError`
    if the month is not clean, `Conflict` if the warehouse holds other trips of it, or what the warehouse raises. `run`
    names the run, whose check then need not compare unchanged marts again.
    """
    dataset = dataset_month.dataset
    with (
        open_clean_month(lake, dataset_month, run) as (month, footer, report),
        work_folder(home, dataset_month) as folder,
    ):
        marts = MartMonth(lake, dataset_month, mart_names(dataset), footer.file_version, mart_version(dataset))
        current = None if force else _current(marts, warehouse, folder, say)
        unchanged = current is not None
        if current is None:
            quality = quality_rows(report, _is_synthetic(month, footer))
            current = _make(marts, month, quality, warehouse, folder, engine or Engine())
    rows, busiest = current
    if unchanged:
        note_comparison("marts", run, warehouse.url, dataset_month, footer, rows)
        say(f"{dataset_month}: the marts are already those of version {footer.file_version}.")
    else:
        say(f"{dataset_month}: {', '.join(f'{number:,} rows in {name}' for name, number in rows.items())}.")
    uris = {name: lake.uri(marts.key(name)) for name in marts.names}
    return BuiltMarts(marts.file_version, marts.mart_version, rows, busiest, unchanged, uris)


def _current(marts: MartMonth, warehouse: Warehouse, folder: Path, say: Say) -> RowsAndBusiest | None:
    """What the marts hold, if lake and warehouse have them all in this version, and the same; otherwise None."""
    if not marts.is_complete():
        return None
    try:
        with marts.copies(folder) as paths:
            files = [TableFile(*_identity(marts, name, path)) for name, path in paths.items()]
            return dict(zip(paths, warehouse.verify_marts(files), strict=True)), _busiest(paths)
    except (IntegrityError, Conflict, MissingTable) as error:
        say(f"{error.problem} The marts are made again.")
        return None


def _make(
    marts: MartMonth,
    month: LakeMonth,
    quality: Sequence[QualityRow],
    warehouse: Warehouse,
    folder: Path,
    engine: Engine,
) -> RowsAndBusiest:
    """Make all marts of the month again; returns what they hold."""
    from taxi_platform.marts.computing import MonthOfMarts  # sqlglot takes 0.15 s to import

    of_month = MonthOfMarts(marts.dataset_month, marts.file_version, quality)
    with month.clean_copy(marts.file_version, folder) as clean:
        paths = of_month.compute(clean, folder, engine)
    files = [MartFile(*_identity(marts, name, path), of_month.select(name)) for name, path in paths.items()]
    rows = warehouse.replace_marts(files)
    fault_point("marts_replaced")
    busiest = _busiest(paths)
    marts.publish(paths)
    return dict(zip(paths, rows, strict=True)), busiest


def _busiest(paths: Mapping[str, Path]) -> dict[str, list[dict[str, Any]]]:
    """The rows with the highest counts of each mart, read here, where its file is on this machine anyway."""
    import pyarrow.parquet as pq

    busiest = {}
    for name, path in paths.items():
        table = pq.ParquetFile(path).read()  # pq.read_table imports pandas: 0.3 s
        counts = next(table[column] for column in table.column_names if column in ("trips", "rows")).to_pylist()
        rows = nlargest(BUSIEST_ROWS, range(len(counts)), key=counts.__getitem__)
        # Table.sort_by and take import pyarrow.compute: 0.08 s.
        busiest[name] = [row for number in rows for row in table.slice(number, 1).to_pylist()]
    return busiest


def _identity(marts: MartMonth, name: str, path: Path) -> tuple[Table, Path, str, DatasetMonth, str]:
    """The fields of a `TableFile`."""
    table = mart_table(marts.dataset_month.dataset, name)
    return table, path, marts.lake.uri(marts.key(name)), marts.dataset_month, marts.file_version


def _is_synthetic(month: LakeMonth, footer: CleanFooter) -> bool:
    """Whether the month was made from a sample, whose rows are as many as were asked for."""
    made_from = [raw for raw in month.last_manifest().versions if raw.sha256 == footer.raw_sha256]
    return any(raw.publication.is_synthetic for raw in made_from)
