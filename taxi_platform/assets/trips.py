"""The assets of one dataset, from one factory: raw_file → clean_trips and rejected_trips → trips (→ serving_trips).

Assets ask a resource, call a step and tell metadata. What is done, and whether there is anything to do, is decided in
`steps.py`; what it means is in the contract.

Dagster reads the annotations of these functions when it decorates them, so they are not postponed here.
"""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
from pydantic import Field

from taxi_platform.assets import metadata
from taxi_platform.assets.names import DATASET_TAG, HURRIED_TAG, cleaning_op
from taxi_platform.assets.resources import LakeResource, SourceResource, WarehouseResource
from taxi_platform.ingestion import steps
from taxi_platform.lake.months import LakeMonth
from taxi_platform.sources.base import Progress
from taxi_platform.trips.contract import REJECTED_COLUMNS, Contract, contract_of
from taxi_platform.trips.errors import Conflict, NotPublished, TaxiError, TransientError
from taxi_platform.trips.known import compare_count
from taxi_platform.trips.months import Dataset, DatasetMonth, Month
from taxi_platform.trips.publication import SYNTHETIC
from taxi_platform.warehouse.base import trips_table

OWNER = "team:taxi-platform"
TELL_SECONDS = 5
RETRY_SECONDS = (30, 90, 270)
"""The waits before a step is tried again after a transient error; the TLC's rate limit asks for as much."""
MAX_SHARE_REJECTED = 0.01
"""A warning above this; real months of 2018 to 2024 reject no row at all, 2010-02 and 2010-03 hold broken ones."""


class FetchConfig(dg.Config):
    force: bool = Field(default=False, description="Fetch the file again, even if the lake has this version.")
    kept: bool = Field(default=False, description="Take the raw file that the lake has, and do not ask the source.")


class CleanConfig(dg.Config):
    force: bool = Field(
        default=False, description="Clean again, and publish even an empty month or one that is mostly rejected."
    )
    reject: list[str] = Field(
        default_factory=list, description="Suspicious rules that reject in this run, such as zero_passengers."
    )


class LoadConfig(dg.Config):
    force: bool = Field(default=False, description="Load again, even if the table has this version.")


def partitions_of(dataset: Dataset) -> dg.MonthlyPartitionsDefinition:
    """All months of a dataset; the newest is the one before last, because the TLC publishes with that lag."""
    return dg.MonthlyPartitionsDefinition(str(dataset.first_month), fmt="%Y-%m", end_offset=-1)


def build_dataset(
    dataset: Dataset, reject: tuple[str, ...], serving: bool
) -> tuple[list[dg.AssetsDefinition], list[dg.AssetChecksDefinition]]:
    """The assets and checks of one dataset; `reject` is what TAXI_REJECT says."""
    contract = contract_of(dataset)
    table = trips_table(dataset)
    partitions = partitions_of(dataset)
    raw_key, clean_key, rejected_key = (
        dg.AssetKey([dataset.value, name]) for name in ("raw_file", "clean_trips", "rejected_trips")
    )
    one_month_a_run = dg.BackfillPolicy.multi_run(1)
    tags = {DATASET_TAG: dataset.value}

    @dg.asset(
        key=raw_key,
        group_name=dataset.value,
        description=f"{contract.description}: the month's file as published. Every version is kept for ever.",
        kinds={"file"},
        owners=[OWNER],
        output_required=False,
        tags=tags,
        partitions_def=partitions,
        backfill_policy=one_month_a_run,
        pool="source",
    )
    def raw_file(
        context: dg.AssetExecutionContext, config: FetchConfig, source: SourceResource, lake: LakeResource
    ) -> Iterator[dg.MaterializeResult]:
        dataset_month, started = _partition(context, dataset), time.monotonic()
        try:
            with explained(context, passing=NotPublished):
                fetched = steps.fetch(
                    source.open(),
                    lake.open(),
                    dataset_month,
                    lake.work_home,
                    config.force,
                    config.kept,
                    progress=_progress_logger(context.log.info),
                    say=context.log.info,
                )
        except NotPublished as error:
            context.log.warning(f"{error} Nothing to do: the partition stays missing, and no later step runs.")
            return
        if fetched.warning:
            context.log.warning(f"The kept file is used: {fetched.warning}")
        yield dg.MaterializeResult(
            metadata=metadata.raw_metadata(fetched, time.monotonic() - started),
            data_version=dg.DataVersion(fetched.raw.short_sha256),
        )

    @dg.multi_asset(
        name=cleaning_op(dataset),
        specs=[
            dg.AssetSpec(
                clean_key,
                deps=[raw_key],
                description=f"{contract.description}: the month in the canonical schema, one Parquet file.",
                kinds={"parquet", "duckdb"},
                group_name=dataset.value,
                owners=[OWNER],
                tags=tags,
            ),
            dg.AssetSpec(
                rejected_key,
                deps=[raw_key],
                description=f"{contract.description}: rows that cannot be stored truthfully, and why.",
                kinds={"parquet", "duckdb"},
                group_name=dataset.value,
                owners=[OWNER],
                tags=tags,
            ),
        ],
        check_specs=[
            dg.AssetCheckSpec(
                "few_rows_rejected",
                asset=rejected_key,
                partitions_def=partitions,
                description=f"At most {MAX_SHARE_REJECTED:.0%} of the rows read were rejected.",
            ),
            dg.AssetCheckSpec(
                "no_unknown_columns",
                asset=clean_key,
                partitions_def=partitions,
                description="Every published column has its place in the contract; others are in extra_columns.",
            ),
            dg.AssetCheckSpec(
                "usual_shares",
                asset=clean_key,
                partitions_def=partitions,
                description="What looks suspicious does so as often as in real months, rule by rule.",
            ),
            dg.AssetCheckSpec(
                "published_count",
                asset=clean_key,
                partitions_def=partitions,
                description=(
                    "As many rows were read as are known of this month's file; where only CSV or only Parquet is known "
                    "and the other was read, about as many."
                ),
            ),
        ],
        partitions_def=partitions,
        backfill_policy=one_month_a_run,
    )
    def cleaning(
        context: dg.AssetExecutionContext, config: CleanConfig, lake: LakeResource
    ) -> Iterator[dg.MaterializeResult]:
        dataset_month, started = _partition(context, dataset), time.monotonic()
        store = lake.open()
        rules = {*reject, *config.reject}
        with explained(context):
            cleaned = steps.clean(
                store, dataset_month, lake.work_home, lake.engine, sorted(rules), config.force, context.log.info
            )
            version = dg.DataVersion(cleaned.footer.file_version)
            with store.open(LakeMonth(store, dataset_month).clean_key) as file:
                told = metadata.clean_metadata(cleaned, file, contract.table_columns, time.monotonic() - started)
            yield dg.MaterializeResult(
                clean_key, metadata=told, data_version=version, check_results=_clean_checks(cleaned, contract)
            )
            with store.open(LakeMonth(store, dataset_month).rejected_key(cleaned.footer.file_version)) as file:
                told = metadata.rejected_metadata(cleaned, file, REJECTED_COLUMNS)
            yield dg.MaterializeResult(
                rejected_key, metadata=told, data_version=version, check_results=[_few_rejected(cleaned)]
            )

    def table_asset(name: str, resource: str, description: str) -> dg.AssetsDefinition:
        @dg.asset(
            key=dg.AssetKey([dataset.value, name]),
            deps=[clean_key, rejected_key],
            group_name=dataset.value,
            description=description,
            kinds={"table"},
            owners=[OWNER],
            tags=tags,
            required_resource_keys={"lake", resource},
            partitions_def=partitions,
            backfill_policy=one_month_a_run,
            pool=resource,
        )
        def load(context: dg.AssetExecutionContext, config: LoadConfig) -> dg.MaterializeResult:
            dataset_month, started = _partition(context, dataset), time.monotonic()
            lake: LakeResource = context.resources.lake
            warehouse: WarehouseResource = getattr(context.resources, resource)
            with explained(context):
                loaded = steps.load(
                    lake.open(), warehouse.open(), dataset_month, lake.work_home, config.force, context.log.info
                )
            return dg.MaterializeResult(
                metadata=metadata.table_metadata(loaded, table.name, table.columns, time.monotonic() - started),
                data_version=dg.DataVersion(loaded.file_version),
            )

        return load

    @dg.asset_check(
        asset=clean_key,
        name="rows_accounted_for",
        blocking=True,
        partitions_def=partitions,
        description="Rows read = rows clean + rows rejected, each counted where it is stored.",
    )
    def rows_accounted_for(context: dg.AssetCheckExecutionContext, lake: LakeResource) -> dg.AssetCheckResult:
        try:
            read, clean, rejected = steps.check_accounted_for(lake.open(), _partition(context, dataset))
        except TaxiError as error:
            return dg.AssetCheckResult(passed=False, description=str(error))
        found = {"rows_read": read, "rows_clean": clean, "rows_rejected": rejected}
        return dg.AssetCheckResult(passed=True, description=f"{read:,} = {clean:,} + {rejected:,}", metadata=found)

    def table_check(name: str, resource: str) -> dg.AssetChecksDefinition:
        @dg.asset_check(
            asset=dg.AssetKey([dataset.value, name]),
            name="table_matches_clean_trips",
            blocking=True,
            partitions_def=partitions,
            description="The table's month holds exactly what the clean file does: rows, sums, extremes, nulls.",
            required_resource_keys={"lake", resource},
        )
        def matches(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
            lake: LakeResource = context.resources.lake
            warehouse: WarehouseResource = getattr(context.resources, resource)
            try:
                expected, arrived = steps.check_table(
                    lake.open(), warehouse.open(), _partition(context, dataset), lake.work_home
                )
            except TaxiError as error:
                # Another version under way is no damage: its own run loads and checks it.
                severity = dg.AssetCheckSeverity.WARN if isinstance(error, Conflict) else dg.AssetCheckSeverity.ERROR
                return dg.AssetCheckResult(passed=False, severity=severity, description=str(error))
            found = {"fingerprint_of_file": expected, "fingerprint_of_table": arrived}
            return dg.AssetCheckResult(passed=expected == arrived, metadata=found)

        return matches

    tables = [("trips", "warehouse", f"{contract.description}: the table {table.name}, by month.")]
    if serving:
        tables.append(("serving_trips", "serving", f"{contract.description}: a copy of {table.name} for applications."))
    assets = [raw_file, cleaning, *(table_asset(*entry) for entry in tables)]
    return assets, [rows_accounted_for, *(table_check(name, resource) for name, resource, _ in tables)]


def _partition(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext, dataset: Dataset) -> DatasetMonth:
    return DatasetMonth(dataset, Month.parse(context.partition_key))


@contextmanager
def explained(context: dg.AssetExecutionContext, passing: type[TaxiError] | tuple[()] = ()) -> Iterator[None]:
    """Turn our errors into Dagster failures: what, where and what to do, first in the run's log.

    A transient one is tried again a little later, unless somebody waits at a terminal for this run.
    """
    try:
        yield
    except passing:
        raise
    except TaxiError as error:
        _try_again(context, error)
        raise dg.Failure(
            description=str(error),
            metadata={"error": type(error).__name__, "problem": error.problem, "remedy": error.remedy or "none"},
            allow_retries=isinstance(error, TransientError),
        ) from error


def _try_again(context: dg.AssetExecutionContext, error: TaxiError) -> None:
    """Ask Dagster for another try of this step, if one may help and is left."""
    tries = context.op_execution_context.retry_number
    if not isinstance(error, TransientError) or tries >= len(RETRY_SECONDS) or HURRIED_TAG in context.run.tags:
        return
    seconds = RETRY_SECONDS[tries] * random.uniform(0.8, 1.2)
    context.log.warning(f"{error} Trying again in {seconds:.0f} s.")
    raise dg.RetryRequested(max_retries=len(RETRY_SECONDS), seconds_to_wait=seconds) from error


def _progress_logger(say: steps.Say) -> Progress:
    """Say how far a fetch is, at most every `TELL_SECONDS`."""
    told = time.monotonic()

    def progress(done: int, total: int | None) -> None:
        nonlocal told
        if time.monotonic() - told > TELL_SECONDS:
            told = time.monotonic()
            say(f"{done / 1e6:,.0f} MB{f' of {total / 1e6:,.0f} MB' if total else ''} fetched.")

    return progress


def _few_rejected(cleaned: steps.Cleaned) -> dg.AssetCheckResult:
    report = cleaned.report
    return dg.AssetCheckResult(
        check_name="few_rows_rejected",
        asset_key=dg.AssetKey([report.dataset, "rejected_trips"]),
        passed=report.share_rejected <= MAX_SHARE_REJECTED,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{report.rows_rejected:,} of {report.rows_read:,} rows rejected ({report.share_rejected:.3%}).",
        metadata={"share_rejected": round(report.share_rejected, 6), **report.rejected_by_reason},
    )


def _clean_checks(cleaned: steps.Cleaned, contract: Contract) -> list[dg.AssetCheckResult]:
    report = cleaned.report
    unknown, unusual = report.unknown_columns, report.unusual(contract.usual_share)
    dataset_month = DatasetMonth.parse(report.dataset, report.month)
    count = compare_count(dataset_month, report.format, report.rows_read)
    synthetic = cleaned.source_url.startswith(SYNTHETIC)

    def result(name: str, passed: bool, description: str, **found: Any) -> dg.AssetCheckResult:
        return dg.AssetCheckResult(
            check_name=name,
            asset_key=dg.AssetKey([report.dataset, "clean_trips"]),
            passed=passed,
            severity=dg.AssetCheckSeverity.WARN,
            description=description,
            metadata=found,
        )

    told = ", ".join(f"{rule} {share:.2%} (up to {contract.usual_share[rule]:.2%})" for rule, share in unusual.items())
    return [
        result(
            "no_unknown_columns",
            not unknown,
            f"Kept in extra_columns: {', '.join(unknown)}. One line in the contract gives it a place."
            if unknown
            else "Every published column has its place.",
            unknown_columns=len(unknown),
        ),
        result("usual_shares", not unusual, f"More than usual: {told}." if unusual else "As usual.", **unusual),
        result(
            "published_count",
            synthetic or count.agrees,
            "A synthetic month has no published count." if synthetic else str(count),
            rows_read=count.rows_read,
            rows_published=count.published or "unknown",
        ),
    ]
