"""The asset checks. Each is declared once: its name, description, severity and judgement together.

The checks of cleaning judge its report in the same step, and warn. `rows_accounted_for`, `table_matches_clean_trips`
and `marts_match_trips` are steps of their own: they read again what is stored, and the first two block what comes after
them. The check of freshness is in `automation/freshness.py`, because it judges the table as a whole.

Dagster reads the annotations of check functions when it decorates them, so they are not postponed here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import dagster as dg

from taxi_platform.assets.attributes import asset_key
from taxi_platform.assets.names import MARTS_CHECK, SET_ASIDE_CHECK
from taxi_platform.assets.partitions import dataset_month, monthly_partitions
from taxi_platform.assets.resources import LakeResource, WarehouseResource
from taxi_platform.ingestion import steps
from taxi_platform.marts.tables import QUALITY
from taxi_platform.trips.contract import contract_of
from taxi_platform.trips.errors import Conflict, TaxiError
from taxi_platform.trips.known import compare_count
from taxi_platform.trips.months import Dataset
from taxi_platform.trips.text import listed_names, markdown, printable

MAX_SHARE_REJECTED = 0.01
"""A warning above this. Real months of 2018 to 2024 reject no row at all; 2010-02 and 2010-03 hold broken ones."""


@dataclass(frozen=True)
class Verdict:
    """What a check says about one month."""

    passed: bool
    description: str
    metadata: Mapping[str, str | int | float] = field(default_factory=dict)


@dataclass(frozen=True)
class CleaningCheck:
    """A check that warns about what one cleaning reported."""

    name: str
    description: str
    judge: Callable[[steps.Cleaned], Verdict]

    def spec(self, asset: dg.AssetSpec) -> dg.AssetCheckSpec:
        return dg.AssetCheckSpec(
            self.name, asset=asset.key, description=self.description, partitions_def=asset.partitions_def
        )

    def result(self, asset: dg.AssetSpec, cleaned: steps.Cleaned) -> dg.AssetCheckResult:
        verdict = self.judge(cleaned)
        return dg.AssetCheckResult(
            check_name=self.name,
            asset_key=asset.key,
            passed=verdict.passed,
            severity=dg.AssetCheckSeverity.WARN,
            description=markdown(verdict.description),
            metadata=verdict.metadata,
        )


def _few_rows_rejected(cleaned: steps.Cleaned) -> Verdict:
    report = cleaned.report
    return Verdict(
        report.share_rejected <= MAX_SHARE_REJECTED,
        f"{report.rows_rejected:,} of {report.rows_read:,} rows rejected ({report.share_rejected:.3%}).",
        {"share_rejected": round(report.share_rejected, 6), **report.rejected_by_reason},
    )


def _no_unknown_columns(cleaned: steps.Cleaned) -> Verdict:
    unknown = cleaned.report.unknown_columns
    if not unknown:
        return Verdict(True, "Every published column is in the contract.", {"unknown_columns": 0})
    return Verdict(
        False,
        f"Stored in extra_columns: {listed_names(unknown)}. One line in the contract makes each a column.",
        {"unknown_columns": len(unknown)},
    )


def _usual_shares(cleaned: steps.Cleaned) -> Verdict:
    usual = contract_of(cleaned.month.dataset_month.dataset).usual_share
    unusual = cleaned.report.unusual(usual)
    shares = [f"{rule} {share:.2%} (up to {usual[rule]:.2%})" for rule, share in unusual.items()]
    return Verdict(not unusual, f"More than usual: {', '.join(shares)}." if unusual else "As usual.", unusual)


def _published_count(cleaned: steps.Cleaned) -> Verdict:
    report = cleaned.report
    comparison = compare_count(cleaned.month.dataset_month, report.format, report.rows_read)
    metadata = {"rows_read": comparison.rows_read, "rows_published": comparison.published or "unknown"}
    if cleaned.raw.publication.is_synthetic:
        return Verdict(True, "A synthetic month has no published count.", metadata)
    return Verdict(comparison.agrees, str(comparison), metadata)


CLEAN_TRIPS_CHECKS = (
    CleaningCheck(
        "no_unknown_columns",
        "Every published column is in the contract; others are stored in extra_columns.",
        _no_unknown_columns,
    ),
    CleaningCheck(
        "usual_shares",
        "Suspicious rows are as frequent as in real months, rule by rule.",
        _usual_shares,
    ),
    CleaningCheck(
        "published_count",
        "As many rows were read as are known of this month's file. If only CSV or only Parquet is known and the other "
        "was read, about as many.",
        _published_count,
    ),
)
REJECTED_TRIPS_CHECKS = (
    CleaningCheck(
        "few_rows_rejected",
        f"At most {MAX_SHARE_REJECTED:.0%} of the rows read were rejected.",
        _few_rows_rejected,
    ),
)


def month_checks() -> list[tuple[str, str]]:
    """Asset and name of every check of a month, but for that of versions set aside, which have a place of their own."""
    named = [("clean_trips", check.name) for check in CLEAN_TRIPS_CHECKS]
    named += [("rejected_trips", check.name) for check in REJECTED_TRIPS_CHECKS]
    tables = [(asset, "table_matches_clean_trips") for asset in ("trips", "serving_trips")]
    return [*named, ("clean_trips", "rows_accounted_for"), *tables, (QUALITY, MARTS_CHECK)]


def named_result(asset: dg.AssetKey, name: str) -> Callable[..., dg.AssetCheckResult]:
    """What makes results of a check. Of a result without the names Dagster asks for them, and then reads the month's
    latest materialization twice."""
    return partial(dg.AssetCheckResult, asset_key=asset, check_name=name)


def rows_accounted_for(dataset: Dataset) -> dg.AssetChecksDefinition:
    result = named_result(asset_key(dataset, "clean_trips"), "rows_accounted_for")

    @dg.asset_check(
        asset=asset_key(dataset, "clean_trips"),
        name="rows_accounted_for",
        blocking=True,
        partitions_def=monthly_partitions(dataset),
        description="Rows read = rows clean + rows rejected, each counted where it is stored.",
    )
    def check(context: dg.AssetCheckExecutionContext, lake: LakeResource) -> dg.AssetCheckResult:
        try:
            read, clean, rejected = steps.check_accounted_for(lake.open(), dataset_month(context, dataset))
        except TaxiError as error:
            return _not_checked(result, error)
        counts = {"rows_read": read, "rows_clean": clean, "rows_rejected": rejected}
        return result(passed=True, description=f"{read:,} = {clean:,} + {rejected:,}", metadata=counts)

    return check


def no_version_set_aside(dataset: Dataset) -> dg.AssetChecksDefinition:
    """It comes after cleaning, which finds the pick-ups outside of the month, and warns: the month is right."""
    result = named_result(asset_key(dataset, "raw_file"), SET_ASIDE_CHECK)

    @dg.asset_check(
        asset=asset_key(dataset, "raw_file"),
        name=SET_ASIDE_CHECK,
        additional_deps=[asset_key(dataset, "clean_trips")],
        partitions_def=monthly_partitions(dataset),
        description="The source's version of the month did not look wrong, so that it was not set aside.",
    )
    def check(context: dg.AssetCheckExecutionContext, lake: LakeResource) -> dg.AssetCheckResult:
        month = dataset_month(context, dataset)
        try:
            entry = steps.version_set_aside(lake.open(), month)
        except TaxiError as error:
            return _not_checked(result, error)
        if entry is None:
            return result(passed=True, description="The current version is the source's.")
        return result(
            passed=False,
            severity=dg.AssetCheckSeverity.WARN,
            description=markdown(steps.stays_as_it_was(entry, month)),
            metadata={
                "version": entry.raw.short_sha256,
                "reasons": printable(entry.why),
                "set_aside_at": entry.raw.time,
                "remedy": steps.accept_command(entry, month),
            },
        )

    return check


def table_matches_clean_trips(dataset: Dataset, asset: str, resource: str) -> dg.AssetChecksDefinition:
    """The check of the table that `asset` loads into the warehouse behind `resource`."""
    named = named_result(asset_key(dataset, asset), "table_matches_clean_trips")

    @dg.asset_check(
        asset=asset_key(dataset, asset),
        name="table_matches_clean_trips",
        blocking=True,
        partitions_def=monthly_partitions(dataset),
        description="The month in both tables is exactly the clean file and the rejected rows: all values of all rows, "
        "compared by a sum of hashes.",
        required_resource_keys={"lake", resource},
    )
    def check(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        lake: LakeResource = context.resources.lake
        warehouse: WarehouseResource = getattr(context.resources, resource)
        try:
            result = steps.check_table(
                lake.open(), warehouse.open(), dataset_month(context, dataset), lake.work_home, context.run.run_id
            )
        except Conflict as error:  # another run has cleaned the month, and will load and check it
            return _not_checked(named, error, dg.AssetCheckSeverity.WARN)
        except TaxiError as error:
            return _not_checked(named, error)
        counts: dict[str, int | str] = {"rows": result.rows, "rows_rejected": result.rejected_rows}
        counts["fingerprint"] = str(result.fingerprint)
        return named(passed=True, metadata=counts)

    return check


def marts_match_trips(dataset: Dataset) -> dg.AssetChecksDefinition:
    """One check for all marts of a month, at the one that is published last."""
    result = named_result(asset_key(dataset, QUALITY), MARTS_CHECK)

    @dg.asset_check(
        asset=asset_key(dataset, QUALITY),
        name=MARTS_CHECK,
        partitions_def=monthly_partitions(dataset),
        description="Every mart of the month has the rows in the warehouse, which computed them from its table, that "
        "DuckDB computed from the clean file: all values of all rows, compared by a sum of hashes.",
    )
    def check(
        context: dg.AssetCheckExecutionContext, lake: LakeResource, warehouse: WarehouseResource
    ) -> dg.AssetCheckResult:
        try:
            rows = steps.check_marts(
                lake.open(), warehouse.open(), dataset_month(context, dataset), lake.work_home, context.run.run_id
            )
        except Conflict as error:  # another run has cleaned the month, and will build its marts
            return _not_checked(result, error, dg.AssetCheckSeverity.WARN)
        except TaxiError as error:
            return _not_checked(result, error)
        return result(passed=True, metadata={f"rows/{name}": count for name, count in rows.items()})

    return check


def _not_checked(
    result: Callable[..., dg.AssetCheckResult],
    error: TaxiError,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
) -> dg.AssetCheckResult:
    return result(passed=False, severity=severity, description=markdown(str(error)))
