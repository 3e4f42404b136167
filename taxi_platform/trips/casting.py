"""SQL that turns published columns into canonical ones, or says what is wrong with them.

One composer serves every way a file is read: a CSV read typed, the same CSV read as text, a Parquet file with whatever
types it has. Casts are strict, because DuckDB's own would round `1.5` to 2 and drop a timestamp's offset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from taxi_platform.trips.contract import EXTRA, PICKUP, PROVENANCE, Column, Contract
from taxi_platform.trips.months import DatasetMonth

LARGEST_EXACT_INTEGER = 2**53 - 1
LARGEST_FLOAT = "1e100"
"""Beyond it a sum over the archive would overflow."""
TIMES = "TIMESTAMP '0001-01-01' AND TIMESTAMP '9999-12-31 23:59:59.999999'"
"""What every warehouse can store."""
EARLIEST_BY_FORMAT = "TIMESTAMP '1901-01-01'"
"""What lies before is for the careful reader to decide."""
TIMESTAMP_PATTERN = r"\d{4}-\d{1,2}-\d{1,2}((T| +)\d{1,2}:\d{1,2}(:\d{1,2}(\.\d{1,6}0*)?)?)?"
"""Wall clock to the microsecond; no offset, no zone, no `infinity`."""

MONEY = "DECIMAL(10,2)"
INTEGER_TYPES = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")
WALL_CLOCK_TYPES = ("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "DATE")


@dataclass(frozen=True)
class SourceColumn:
    """A published column: its published name, its DuckDB type, and the reading relation's own name for it."""

    name: str
    type: str
    relation_name: str
    by_format: bool = False
    """Times were read by DuckDB's timestamp format, which makes 1900 of `infinity` and year 20 of `20`."""

    @property
    def sql(self) -> str:
        return f"source.{identifier(self.relation_name)}"


@dataclass(frozen=True)
class Cast:
    """SQL of one source column seen as one canonical column.

    `value` is what it reads as; `present` says that there was something to read; `wrong` that it does not fit, None
    where the source's type cannot hold such a thing; `unmapped` that it was a code without a modern value, kept in
    `extra_columns` and no fault.
    """

    value: str
    present: str
    wrong: str | None = None
    unmapped: str | None = None


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def text_of(source: SourceColumn) -> str:
    """The source value as text; nothing and blanks are null."""
    return f"NULLIF(trim(CAST({source.sql} AS VARCHAR)), '')"


def cast(contract: Contract, column: Column, source: SourceColumn) -> Cast:
    """The SQL that reads `source` as `column`."""
    is_text = source.type == "VARCHAR"
    present = f"{text_of(source) if is_text else source.sql} IS NOT NULL"
    if source.type.startswith("ENUM"):
        return Cast(f"CAST({source.sql} AS VARCHAR)", present)
    if column.codes and (is_text or column.type == "S"):
        return _coded(contract, column, source)
    match column.type:
        case "S":
            value = f"NULLIF(CAST({source.sql} AS VARCHAR), '')"
            return Cast(value, f"{value} IS NOT NULL", f"contains({value}, chr(0))")
        case "I":
            value, wrong = _integer(source)
        case "F":
            value = f"TRY_CAST({source.sql} AS DOUBLE)"
            wrong = f"{present} AND NOT COALESCE(abs({value}) < {LARGEST_FLOAT}, FALSE)"
        case "M" if source.type == MONEY:
            return Cast(source.sql, present)
        case "M":
            value = f"TRY_CAST({source.sql} AS {MONEY})"
            wrong = f"{present} AND {value} IS NULL"
        case _ if source.type == "TIMESTAMP" and source.by_format:
            return Cast(source.sql, present, f"{source.sql} < {EARLIEST_BY_FORMAT}")
        case _ if source.type == "TIMESTAMP":
            return Cast(source.sql, present, f"{source.sql} NOT BETWEEN {TIMES}")
        case _:
            value = _wall_clock(source)
            wrong = f"{present} AND NOT COALESCE({value} BETWEEN {TIMES}, FALSE)"
    return Cast(value, present, wrong)


def _coded(contract: Contract, column: Column, source: SourceColumn) -> Cast:
    """A code by its map: flags to Y or N, others to a number, which may also stand there as one."""
    codes = contract.codes[column.codes or ""]
    text = text_of(source)
    cases = " ".join(f"WHEN {literal(code)} THEN {_constant(value)}" for code, value in codes.items())
    mapped = f"CASE lower({text}) {cases} END"
    present = f"{text} IS NOT NULL"
    if column.type == "S":
        return Cast(mapped, present, None, f"{present} AND {mapped} IS NULL")
    number, wrong = _integer(source)
    return Cast(
        f"COALESCE({mapped}, {number})",
        present,
        f"{mapped} IS NULL AND TRY_CAST({source.sql} AS DOUBLE) IS NOT NULL AND {wrong}",
        f"{present} AND {mapped} IS NULL AND TRY_CAST({source.sql} AS DOUBLE) IS NULL",
    )


def _constant(value: str | int) -> str:
    return literal(value) if isinstance(value, str) else str(value)


def _integer(source: SourceColumn) -> tuple[str, str]:
    """Value and fault of an integer; a text goes through DOUBLE, which is exact within ±2^53 and shows a fraction."""
    if source.type in INTEGER_TYPES:
        return f"CAST({source.sql} AS BIGINT)", "FALSE"
    if source.type == "DOUBLE":
        number, unread = source.sql, ""
    else:
        present = f"{text_of(source) if source.type == 'VARCHAR' else source.sql} IS NOT NULL"
        number = f"TRY_CAST({source.sql} AS DOUBLE)"
        unread = f"({present} AND {number} IS NULL) OR "
    # NaN and the infinities fall to the second test: DuckDB takes NaN for the greatest number.
    wrong = f"({unread}{number} <> trunc({number}) OR abs({number}) > {LARGEST_EXACT_INTEGER})"
    return f"TRY_CAST({number} AS BIGINT)", wrong


def _wall_clock(source: SourceColumn) -> str:
    if source.type == "VARCHAR":
        text = text_of(source)
        matches = f"regexp_full_match({text}, {literal(TIMESTAMP_PATTERN)})"
        return f"CASE WHEN {matches} THEN TRY_CAST({text} AS TIMESTAMP) END"
    if source.type in WALL_CLOCK_TYPES:
        return f"TRY_CAST({source.sql} AS TIMESTAMP)"
    return "CAST(NULL AS TIMESTAMP)"


def select_canonical(
    contract: Contract,
    dataset_month: DatasetMonth,
    sources: Sequence[SourceColumn],
    relation: str,
    reject: Sequence[str],
) -> str:
    """A SELECT over `relation` giving every canonical column, `extra_columns`, then `reason` and `column_name`.

    Both are null for a clean row. All of `relation`'s other columns come along, so a caller may pass `line` and `text`
    through; canonical names win.
    """
    mapping = contract.map_columns([source.name for source in sources])
    values, bads, kept = [], {}, [(sources[i].name, text_of(sources[i])) for i in mapping.unknown]
    for column in contract.columns:
        casts = [(sources[i], cast(contract, column, sources[i])) for i in mapping.sources.get(column.name, ())]
        if not casts:
            values.append(f"CAST(NULL AS {column.duckdb_type}) AS {column.name}")
            continue
        whens = " ".join(f"WHEN {c.present} THEN {c.value}" for _, c in casts)
        value = casts[0][1].value if len(casts) == 1 else f"CASE {whens} END"
        values.append(f"CAST({value} AS {column.duckdb_type}) AS {column.name}")
        wrongs = " ".join(f"WHEN {c.present} THEN {c.wrong or 'FALSE'}" for _, c in casts)
        wrong = casts[0][1].wrong if len(casts) == 1 else f"CASE {wrongs} END"
        if wrong:
            bads[column.name] = wrong
        for position, (source, found) in enumerate(casts):
            tests = [found.unmapped] if found.unmapped else []
            if earlier := " OR ".join(c.present for _, c in casts[:position]):
                tests.append(f"({earlier}) AND {found.present} AND {found.value} IS DISTINCT FROM ({value})")
            if tests:
                kept.append((source.name, f"CASE WHEN ({') OR ('.join(tests)}) THEN {text_of(source)} END"))
    flags = [f"{bad} AS {identifier('bad ' + name)}" for name, bad in bads.items()]
    columns = ", ".join(c.name for c in contract.columns)
    month = f"DATE {literal(str(dataset_month.month.first_day))}"
    faults = [(f'"bad {name}"', "invalid_value", name) for name in bads]
    faults.append((f"{PICKUP} IS NULL", "no_pickup_time", PICKUP))
    faults += [
        (f"({rule_sql(contract, rule, dataset_month)})", rule, "") for rule in reject if rule != "exact_duplicate"
    ]
    reason = " ".join(f"WHEN {test} THEN {literal(name)}" for test, name, _ in faults)
    fault_column = " ".join(f"WHEN {test} THEN {literal(name) if name else 'NULL'}" for test, _, name in faults)
    inner = f"SELECT {', '.join([*values, *flags])}, {_extra(kept)} AS {EXTRA.name}, source FROM {relation} AS source"
    return (
        f"SELECT {columns}, {EXTRA.name}, {month} AS {PROVENANCE[0].name}, "
        f"CASE {reason} END AS reason, CASE {fault_column} END AS column_name, source FROM ({inner})"
    )


def rule_sql(contract: Contract, rule: str, dataset_month: DatasetMonth) -> str:
    """The predicate of a suspicious rule for one month."""
    month = dataset_month.month
    bounds = {"month_start": month.first_day, "month_end": month.plus(1).first_day}
    return contract.suspicious[rule].format(**{k: f"TIMESTAMP {literal(str(day))}" for k, day in bounds.items()})


def _extra(kept: Sequence[tuple[str, str]]) -> str:
    """JSON of the given names and texts, without the nulls; null when nothing is left."""
    if not kept:
        return "CAST(NULL AS VARCHAR)"
    keys = unique([name for name, _ in kept])
    entries = ", ".join(
        f"{{'key': {literal(key)}, 'value': {text}}}" for key, (_, text) in zip(keys, kept, strict=True)
    )
    any_left = " OR ".join(f"{text} IS NOT NULL" for _, text in kept)
    pairs = f"list_filter([{entries}], lambda entry: entry.value IS NOT NULL)"
    return f"CASE WHEN {any_left} THEN CAST(to_json(map_from_entries({pairs})) AS VARCHAR) END"


def unique(names: Sequence[str]) -> list[str]:
    """The names, a repeated one numbered: `a, a` become `a, a_2`."""
    taken: list[str] = []
    for name in names:
        candidate, number = name, 1
        while candidate in taken:
            number += 1
            candidate = f"{name}_{number}"
        taken.append(candidate)
    return taken
