"""SQL that casts published columns to canonical ones, and names the column at fault where a value does not fit.

The same SQL serves every reader: a CSV scanned with types, the same CSV read as text, a Parquet file with its own
types. Casts are strict, because DuckDB's own round `1.5` to 2 and drop a timestamp's offset.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from taxi_platform.trips.contract import EXTRA, PICKUP, PROVENANCE, Column, Contract
from taxi_platform.trips.months import DatasetMonth

LARGEST_EXACT_INTEGER = 2**53 - 1
LARGEST_FLOAT = "1e100"
"""A sum of larger values over the archive could overflow."""
STORABLE_TIMES = "TIMESTAMP '0001-01-01' AND TIMESTAMP '9999-12-31 23:59:59.999999'"
"""The range that every warehouse can store."""
EARLIEST_BY_FORMAT = "TIMESTAMP '1901-01-01'"
"""Earlier times are left to the careful reader."""
TIMESTAMP_PATTERN = r"\d{4}-\d{1,2}-\d{1,2}((T| +)\d{1,2}:\d{1,2}(:\d{1,2}(\.\d{1,6}0*)?)?)?"
"""Wall clock to the microsecond; no offset, no zone, no `infinity`."""

MONEY = "DECIMAL(10,2)"
INTEGER_TYPES = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")
NUMBER_TYPES = (*INTEGER_TYPES, "FLOAT", "DOUBLE")
WALL_CLOCK_TYPES = ("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "DATE")


@dataclass(frozen=True)
class SourceColumn:
    """A published column: its published name, its DuckDB type, and its name in the relation that reads the file."""

    name: str
    type: str
    relation_name: str
    by_format: bool = False
    """Whether DuckDB parsed times by a format, which turns `infinity` into 1900 and `20` into the year 20."""
    is_read: bool = False
    """Whether its texts have been read by `text_readers`."""

    @property
    def sql(self) -> str:
        """The value as written in a query whose relation has the alias `source`."""
        return f"source.{identifier(self.relation_name)}"


@dataclass(frozen=True)
class Cast:
    """SQL expressions that read one source column as one canonical column."""

    value: str
    """The value as the canonical type."""
    present: str
    """Predicate: the source has a value."""
    invalid: str | None = None
    """Predicate: the value does not fit; None if the source's type rules that out."""
    strict: str | None = None
    """The value in a form that fails the query where `invalid` would hold, which needs no test then."""
    unmapped: str | None = None
    """Predicate: the value is a code without a modern value. It is stored in `extra_columns` and is not a fault."""


def identifier(name: str) -> str:
    """The name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """The text as a SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def null_columns(columns: Sequence[Column]) -> str:
    """A SELECT list of typed nulls under the columns' names."""
    return ", ".join(f"CAST(NULL AS {column.duckdb_type}) AS {column.name}" for column in columns)


def escape_glob(path: str) -> str:
    """The path with glob characters escaped, as DuckDB's readers take it."""
    return re.sub(r"([*?\[])", r"[\1]", path)


def text_of(source: SourceColumn) -> str:
    """SQL of the source value as trimmed text; empty text is null."""
    return f"NULLIF(trim(CAST({source.sql} AS VARCHAR)), '')"


def number_text(source: SourceColumn) -> str:
    """SQL of the source value as a number is cast from it: text that only DuckDB takes for a number is null.

    DuckDB skips an underscore between digits (`1_000`), and takes a plus before a minus (`+-1`).
    """
    if source.type != "VARCHAR":
        return source.sql
    is_odd = f"contains({source.sql}, '_') OR contains({source.sql}, '+-')"
    return f"CASE WHEN NOT ({is_odd}) THEN {source.sql} END"


def cast(contract: Contract, column: Column, source: SourceColumn) -> Cast:
    """The SQL that reads `source` as `column`."""
    is_text = source.type == "VARCHAR"
    present = f"{text_of(source) if is_text else source.sql} IS NOT NULL"
    if source.type.startswith("ENUM"):  # flags, of which a blank one is none
        return Cast(text_of(source), f"{text_of(source)} IS NOT NULL")
    if source.is_read:
        return Cast(source.sql, present)
    if column.codes and (is_text or column.type == "S"):
        return _coded(contract, column, source)
    match column.type:
        case "S":
            value = f"NULLIF(CAST({source.sql} AS VARCHAR), '')"
            return Cast(value, f"{value} IS NOT NULL", f"contains({value}, chr(0))")
        case "I":
            value, invalid = _integer(source)
        case "F":
            value = f"TRY_CAST({number_text(source)} AS DOUBLE)"
            invalid = f"{present} AND NOT COALESCE(abs({value}) < {LARGEST_FLOAT}, FALSE)"
        case "M" if source.type == MONEY:
            return Cast(source.sql, present)
        case "M":
            value = f"TRY_CAST({number_text(source)} AS {MONEY})"
            strict = value.removeprefix("TRY_") if source.type in NUMBER_TYPES else None
            return Cast(value, present, f"{present} AND {value} IS NULL", strict)
        case _ if source.type == "TIMESTAMP" and source.by_format:
            return Cast(source.sql, present, f"{source.sql} < {EARLIEST_BY_FORMAT}")
        case _ if source.type == "TIMESTAMP":
            return Cast(source.sql, present, f"{source.sql} NOT BETWEEN {STORABLE_TIMES}")
        case _:
            value = _wall_clock(source)
            invalid = f"{present} AND NOT COALESCE({value} BETWEEN {STORABLE_TIMES}, FALSE)"
    return Cast(value, present, invalid)


class UnusualText(Exception):
    """A text that makes its row a rejected one, or belongs into `extra_columns`."""


def text_readers(contract: Contract, sources: Sequence[SourceColumn]) -> dict[int, Callable[[str], str | None]]:
    """Position of a source → what reads its texts as `cast` does, for those that alone fill a column of texts.

    A reader of few different texts may call it once for each. It raises `UnusualText` where a test of each row decides.
    """
    targets = contract.only_sources([source.name for source in sources])
    return {
        position: partial(_read_flag, contract.codes[column.codes]) if column.codes else _read_text
        for position, column in targets.items()
        if column.type == "S" and sources[position].type == "VARCHAR"
    }


def _read_text(text: str) -> str | None:
    if "\0" in text:
        raise UnusualText
    return text or None


def _read_flag(codes: Mapping[str, str | int], text: str) -> str | None:
    code = text.strip(" ").lower()
    if code and code not in codes:
        raise UnusualText
    return str(codes[code]) if code else None


def _coded(contract: Contract, column: Column, source: SourceColumn) -> Cast:
    """A code by its map: flags become Y or N, other codes a number; a value that already is a number stays one."""
    codes = contract.codes[column.codes or ""]
    text = text_of(source)
    cases = " ".join(f"WHEN {literal(code)} THEN {_constant(value)}" for code, value in codes.items())
    mapped = f"CASE lower({text}) {cases} END"
    present = f"{text} IS NOT NULL"
    if column.type == "S":
        return Cast(mapped, present, unmapped=f"{present} AND {mapped} IS NULL")
    number, invalid = _integer(source)
    as_double = f"TRY_CAST({number_text(source)} AS DOUBLE)"
    return Cast(
        f"COALESCE({mapped}, {number})",
        present,
        f"{mapped} IS NULL AND {as_double} IS NOT NULL AND {invalid}",
        unmapped=f"{present} AND {mapped} IS NULL AND {as_double} IS NULL",
    )


def _constant(value: str | int) -> str:
    return literal(value) if isinstance(value, str) else str(value)


def _integer(source: SourceColumn) -> tuple[str, str | None]:
    """SQL of an integer's value, and of the test that it is invalid; None if every value fits.

    Text is read as DOUBLE, which is exact within ±2^53 and shows a fraction.
    """
    if source.type in INTEGER_TYPES:
        return f"CAST({source.sql} AS BIGINT)", None
    if source.type == "DOUBLE":
        number, unreadable = source.sql, ""
    else:
        present = f"{text_of(source) if source.type == 'VARCHAR' else source.sql} IS NOT NULL"
        number = f"TRY_CAST({number_text(source)} AS DOUBLE)"
        unreadable = f"({present} AND {number} IS NULL) OR "
    # The second test catches NaN and the infinities: to DuckDB, NaN is the greatest number.
    invalid = f"({unreadable}{number} <> trunc({number}) OR abs({number}) > {LARGEST_EXACT_INTEGER})"
    return f"TRY_CAST({number} AS BIGINT)", invalid


def _wall_clock(source: SourceColumn) -> str:
    """SQL of a time without zone; null where the source has none that can be read exactly."""
    if source.type == "VARCHAR":
        text = text_of(source)
        matches = f"regexp_full_match({text}, {literal(TIMESTAMP_PATTERN)})"
        return f"CASE WHEN {matches} THEN TRY_CAST({text} AS TIMESTAMP) END"
    if source.type in WALL_CLOCK_TYPES:
        return f"TRY_CAST({source.sql} AS TIMESTAMP)"
    return "CAST(NULL AS TIMESTAMP)"


@dataclass(frozen=True)
class _Canonical:
    """One canonical column, cast from the source columns that may fill it."""

    value: str
    invalid: str | None
    extra: tuple[tuple[str, str], ...]
    """(source name, SQL of the text, null where there is nothing to store) for `extra_columns`."""


def select_canonical(
    contract: Contract,
    dataset_month: DatasetMonth,
    sources: Sequence[SourceColumn],
    relation: str,
    reject: Sequence[str],
    strict: bool = False,
) -> str:
    """A SELECT over `relation` that casts its rows.

    Its columns: every canonical one, `extra_columns`, `file_month`, `reason`, `column_name`, `source`. `reason` and
    `column_name` are null for a clean row. `source` is the relation's row as a struct, from which a caller can take
    `line` and `text`. With `strict` the query fails where an amount does not fit, instead of testing each.
    """
    mapping = contract.map_columns([source.name for source in sources])
    canonical = {
        column.name: _canonical(contract, column, [sources[i] for i in mapping.sources.get(column.name, ())], strict)
        for column in contract.columns
    }
    values = [f"CAST({canonical[c.name].value} AS {c.duckdb_type}) AS {c.name}" for c in contract.columns]
    invalid = {name: column.invalid for name, column in canonical.items() if column.invalid}
    flags = [f"{test} AS {_flag(name)}" for name, test in invalid.items()]
    extra = [(sources[i].name, text_of(sources[i])) for i in mapping.unknown]
    for column in canonical.values():
        extra += column.extra

    # Test, reason and column at fault; the first test that holds decides.
    faults = [(_flag(name), "invalid_value", literal(name)) for name in invalid]
    faults.append((f"{PICKUP} IS NULL", "no_pickup_time", literal(PICKUP)))
    rules = [rule for rule in reject if rule != "exact_duplicate"]  # that one needs all rows: see `cleaning.Cleaner`
    faults += [(f"({rule_sql(contract, rule, dataset_month)})", rule, "NULL") for rule in rules]
    reason = " ".join(f"WHEN {test} THEN {literal(reason)}" for test, reason, _ in faults)
    column_name = " ".join(f"WHEN {test} THEN {column}" for test, _, column in faults)
    month = f"DATE {literal(str(dataset_month.month.first_day))}"
    names = ", ".join(column.name for column in contract.columns)
    return (
        f"SELECT {names}, {EXTRA.name}, {month} AS {PROVENANCE[0].name}, "
        f"CASE {reason} END AS reason, CASE {column_name} END AS column_name, source FROM ("
        f"SELECT {', '.join([*values, *flags])}, {_json(extra)} AS {EXTRA.name}, source FROM {relation} AS source)"
    )


def _flag(name: str) -> str:
    """The inner query's column that says whether a value is invalid. Canonical names contain no space: no clash."""
    return identifier(f"bad {name}")


def _canonical(contract: Contract, column: Column, sources: Sequence[SourceColumn], strict: bool) -> _Canonical:
    """Cast `sources` to `column`: the first value present wins; a later one that differs goes to `extra_columns`."""
    casts = [cast(contract, column, source) for source in sources]
    if not casts:
        return _Canonical("NULL", None, ())
    if len(casts) == 1 and strict and casts[0].strict:
        return _Canonical(casts[0].strict, None, ())
    if len(casts) == 1:
        value, invalid = casts[0].value, casts[0].invalid
    else:
        values = " ".join(f"WHEN {c.present} THEN {c.value}" for c in casts)
        tests = " ".join(f"WHEN {c.present} THEN {c.invalid or 'FALSE'}" for c in casts)
        value, invalid = f"CASE {values} END", f"CASE {tests} END"
    extra = []
    for position, (source, read) in enumerate(zip(sources, casts, strict=True)):
        not_stored = [read.unmapped] if read.unmapped else []
        if position:
            earlier = " OR ".join(c.present for c in casts[:position])
            not_stored.append(f"({earlier}) AND {read.present} AND {read.value} IS DISTINCT FROM ({value})")
        if not_stored:
            extra.append((source.name, f"CASE WHEN ({') OR ('.join(not_stored)}) THEN {text_of(source)} END"))
    return _Canonical(value, invalid, tuple(extra))


def rule_sql(contract: Contract, rule: str, dataset_month: DatasetMonth) -> str:
    """The predicate of a suspicious rule for one month."""
    month = dataset_month.month
    return contract.suspicious[rule].format(
        month_start=f"TIMESTAMP {literal(str(month.first_day))}",
        month_end=f"TIMESTAMP {literal(str(month.plus(1).first_day))}",
    )


def _json(texts: Sequence[tuple[str, str]]) -> str:
    """SQL of a JSON object of the named texts that are not null; null if all are."""
    if not texts:
        return "CAST(NULL AS VARCHAR)"
    keys = unique([name for name, _ in texts])
    entries = ", ".join(
        f"{{'key': {literal(key)}, 'value': {text}}}" for key, (_, text) in zip(keys, texts, strict=True)
    )
    any_present = " OR ".join(f"{text} IS NOT NULL" for _, text in texts)
    pairs = f"list_filter([{entries}], lambda entry: entry.value IS NOT NULL)"
    return f"CASE WHEN {any_present} THEN CAST(to_json(map_from_entries({pairs})) AS VARCHAR) END"


def unique(names: Sequence[str]) -> list[str]:
    """The names, repeated ones numbered: `a, a` becomes `a, a_2`."""
    taken: list[str] = []
    for name in names:
        candidate, number = name, 1
        while candidate in taken:
            number += 1
            candidate = f"{name}_{number}"
        taken.append(candidate)
    return taken
