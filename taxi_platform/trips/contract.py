"""Contracts: the columns of each dataset's clean trips, and how published columns map onto them.

A contract is data (`contracts/*.toml`). Published columns are matched by name and alias, never by date, so months in a
layout that was never seen before work too. Everything that needs a schema (Parquet, tables, docs, the UI) gets it here.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from taxi_platform.trips.column_types import COLUMN_TYPES, ColumnType
from taxi_platform.trips.errors import ContractError, UserError
from taxi_platform.trips.months import Dataset
from taxi_platform.trips.text import listed_names

CLEANING_VERSION = 1
"""Part of every contract version. Raise it when cleaning produces different rows for the same contract."""

PICKUP = "pickup_datetime"


@dataclass(frozen=True)
class Column:
    """A column of a published table. `type` is a letter of `COLUMN_TYPES`: D, I, F, M, TOTAL, S or DATE."""

    name: str
    type: str
    description: str
    aliases: tuple[str, ...] = ()
    codes: str | None = None

    @property
    def column_type(self) -> ColumnType:
        """Its type, with the name that each engine has for it."""
        return COLUMN_TYPES[self.type]

    @property
    def duckdb_type(self) -> str:
        """Its type as DuckDB spells it."""
        return self.column_type.duckdb


EXTRA = Column("extra_columns", "S", "JSON of what the file held beyond the contract; null when nothing.")
PROVENANCE = (
    Column("file_month", "DATE", "First day of the month the file was published for."),
    Column("file_version", "S", "12 hex digits naming raw file, contract and reject rules of this row."),
)
REJECTED_COLUMNS = (
    *PROVENANCE,
    Column("reason", "S", "Why the row was rejected."),
    Column("column_name", "S", "The canonical column at fault; null when the whole row is."),
    Column("line", "I", "Line in the published file, the header being 1; null for Parquet."),
    Column("text", "S", "The line as published, or the fields as JSON under their published names."),
)


@dataclass(frozen=True)
class ColumnMapping:
    """How one file's columns map onto a contract: positions into its list of names."""

    sources: Mapping[str, tuple[int, ...]]
    """Canonical name → the source columns that may fill it; the first non-empty value wins."""
    unknown: tuple[int, ...]
    """Source columns that the contract does not name."""
    missing: tuple[str, ...]
    """Canonical names without a source column."""


@dataclass(frozen=True)
class Contract:
    """The columns, code maps and rules of one dataset."""

    dataset: Dataset
    description: str
    columns: tuple[Column, ...]
    codes: Mapping[str, Mapping[str, str | int]]
    suspicious: Mapping[str, str]
    usual_share: Mapping[str, float]
    ignored: tuple[str, ...]
    version: str

    @property
    def table_columns(self) -> tuple[Column, ...]:
        """All columns of a clean row, in order."""
        return (*self.columns, EXTRA, *PROVENANCE)

    def map_columns(self, names: Sequence[str]) -> ColumnMapping:
        """Map the published names, in file order, onto the contract's columns.

        Raises `ContractError`, listing the accepted and the published names, where no column holds the pick-up time.
        """
        canonical = {alias: column.name for column in self.columns for alias in (column.name, *column.aliases)}
        by_alias = {normalized(alias): name for alias, name in canonical.items()}
        ignored = {normalized(name) for name in self.ignored}
        sources: dict[str, tuple[int, ...]] = {}
        unknown = []
        for position, name in enumerate(names):
            if target := by_alias.get(normalized(name)):
                sources[target] = (*sources.get(target, ()), position)
            elif normalized(name) not in ignored:
                unknown.append(position)
        if PICKUP not in sources:
            accepted = [alias for alias, name in canonical.items() if name == PICKUP]
            raise ContractError(
                f"No pick-up time column for {self.dataset}: expected one of {', '.join(accepted)}, "
                f"found {listed_names([repr(name) for name in names])[:1000]}.",
                "Check that the file belongs to this dataset. If the TLC renamed the column, add an alias to "
                f"taxi_platform/trips/contracts/{self.dataset}.toml.",
            )
        missing = tuple(column.name for column in self.columns if column.name not in sources)
        return ColumnMapping(sources, tuple(unknown), missing)

    def only_sources(self, names: Sequence[str]) -> dict[int, Column]:
        """Position of a published column → the column that it alone fills.

        Of several sources the texts are needed, because a second value that differs is stored as text.
        """
        sources = self.map_columns(names).sources
        return {sources[c.name][0]: c for c in self.columns if len(sources.get(c.name, ())) == 1}

    def check_rules(self, rules: Sequence[str]) -> tuple[str, ...]:
        """The rules, sorted; raises `UserError` for one that this dataset does not have."""
        return check_rules([self], rules)

    def own_rules(self, rules: Sequence[str]) -> tuple[str, ...]:
        """Those of the rules that this dataset has, sorted: TAXI_REJECT names rules for several datasets."""
        return tuple(sorted(self.suspicious.keys() & set(rules)))

    def file_version(self, raw_sha256: str, reject: Sequence[str] = ()) -> str:
        """Identity of a cleaned month: 12 hex digits hashed from raw content, contract version and reject rules."""
        return _digest([raw_sha256, self.version, sorted(reject)])


def normalized(name: str) -> str:
    """A column name for comparison: lower case, without surrounding space."""
    return name.strip().lower()


@cache
def contract_of(dataset: Dataset) -> Contract:
    """The shipped contract of a dataset."""
    text = resources.files("taxi_platform.trips").joinpath("contracts", f"{dataset}.toml").read_text("utf-8")
    return parse_contract(dataset, text)


def parse_contract(dataset: Dataset, text: str) -> Contract:
    """Read a contract from TOML. Its version covers everything that affects values, not the descriptions."""
    document = tomllib.loads(text)
    columns = tuple(
        Column(c["name"], c["type"], c["description"], tuple(c.get("aliases", ())), c.get("codes"))
        for c in document["columns"]
    )
    layout = [(c.name, c.type, c.aliases, c.codes) for c in columns]
    versioned = [CLEANING_VERSION, layout, document.get("codes", {}), document["suspicious"], document["ignored"]]
    return Contract(
        dataset=dataset,
        description=document["description"],
        columns=columns,
        codes=document.get("codes", {}),
        suspicious=document["suspicious"],
        usual_share=document.get("usual_share", {}),
        ignored=tuple(document["ignored"]),
        version=_digest(versioned),
    )


def check_rules(contracts: Sequence[Contract], rules: Sequence[str]) -> tuple[str, ...]:
    """The rules, sorted; raises `UserError`, listing what there is, for one that none of the contracts has."""
    known = dict.fromkeys(rule for contract in contracts for rule in contract.suspicious)
    for rule in rules:
        if rule not in known:
            names = ", ".join(contract.dataset for contract in contracts)
            problem = f"{rule!r} is not a suspicious rule of {names}."
            raise UserError(problem, f"Choose from {', '.join(known)}.")
    return tuple(sorted(set(rules)))


@cache
def all_rules() -> tuple[str, ...]:
    """Every suspicious rule that some dataset has."""
    return tuple(dict.fromkeys(rule for dataset in Dataset for rule in contract_of(dataset).suspicious))


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
