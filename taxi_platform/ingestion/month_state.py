"""One month in source, lake and warehouse: how far it has come, and why it needs a run."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from taxi_platform.lake.manifest import SetAside
from taxi_platform.lake.months import CleanFooter, RawVersion
from taxi_platform.trips.contract import contract_of
from taxi_platform.trips.errors import DamagedFile, DamagedRaw, LakeError
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.trips.publication import Publication
from taxi_platform.warehouse.base import StoredRows


class Stage(StrEnum):
    """The status of a month across source, lake and warehouse."""

    LOADED = "loaded"
    NOT_LOADED = "not loaded"
    MARTS_DUE = "marts due"
    RAW = "raw"
    OUTDATED = "outdated"
    REPUBLISHED = "republished"
    DAMAGED = "damaged"
    FAILED = "failed"
    SET_ASIDE = "set aside"
    PUBLISHED = "published"
    NOT_PUBLISHED = "not published"
    UNKNOWN = "unknown"


REASONS = {
    Stage.PUBLISHED: "missing",
    Stage.REPUBLISHED: "republished",
    Stage.DAMAGED: "damaged",
    Stage.RAW: "outdated",
    Stage.OUTDATED: "outdated",
    Stage.NOT_LOADED: "not loaded",
    Stage.MARTS_DUE: "marts due",
}
"""Stage → why a run is needed, the value of the run's tag `taxi/reason`. The other stages need no run."""

COMPARE = "to compare"
"""The reason if only the bytes can tell whether the file was republished; see `comparing.py`."""


@dataclass(frozen=True)
class MonthState:
    """One month in source, lake and warehouse."""

    dataset_month: DatasetMonth
    versions: tuple[RawVersion, ...] = ()
    """The raw files in the lake, the last being current."""
    clean: CleanFooter | None = None
    loaded: StoredRows | None = None
    table_was_read: bool = True
    """False where the table was locked; then `loaded` says nothing."""
    marts_are_current: bool = True
    """Whether lake and warehouse have the marts of `clean`, made by today's SQL."""
    published: Publication | None = None
    source_answered: bool = False
    """Whether `published` is the source's answer; False where it was not asked."""
    reject: tuple[str, ...] = ()
    problem: LakeError | DamagedRaw | None = None
    """Why the month's files in the lake, or the published file, cannot be used; a run would meet the same."""
    damage: DamagedFile | None = None
    """What is not as it was stored, and is made again by a run."""
    compare: bool = False
    """Whether the published file has to be fetched to see whether it has changed."""
    set_aside: SetAside | None = None
    """The version that the source offered last, if it looks wrong."""

    @property
    def raw(self) -> RawVersion | None:
        return self.versions[-1] if self.versions else None

    @property
    def file_version(self) -> str | None:
        """The version that cleaning the lake's raw file would give now."""
        return contract_of(self.dataset_month.dataset).file_version(self.raw.sha256, self.reject) if self.raw else None

    @property
    def stage(self) -> Stage:
        """A month whose new version is set aside needs a person, unless there is also work on what is current."""
        stage = self._stage_of_current()
        is_settled = stage in (Stage.LOADED, Stage.PUBLISHED, Stage.NOT_PUBLISHED, Stage.UNKNOWN)
        return Stage.SET_ASIDE if self._offers_what_is_set_aside and is_settled else stage

    @property
    def _offers_what_is_set_aside(self) -> bool:
        """Whether the source offers nothing newer than what is set aside, as far as it was asked."""
        return self.set_aside is not None and (self.published is None or self.set_aside.raw.is_of(self.published))

    def _stage_of_current(self) -> Stage:
        if self.problem:
            return Stage.DAMAGED if isinstance(self.problem, DamagedFile) else Stage.FAILED
        if self.damage:
            return Stage.DAMAGED
        if self.raw is None:
            if self.published:
                return Stage.PUBLISHED
            return Stage.NOT_PUBLISHED if self.source_answered else Stage.UNKNOWN
        if self.published and not self.raw.is_of(self.published) and not self._offers_what_is_set_aside:
            return Stage.REPUBLISHED
        if self.clean is None:
            return Stage.RAW
        if self.clean.file_version != self.file_version:
            return Stage.OUTDATED
        if not self.table_was_read:
            return Stage.UNKNOWN
        expected = StoredRows(self.clean.rows, (self.clean.file_version,)) if self.clean.rows else None
        if self.loaded != expected:
            return Stage.NOT_LOADED
        return Stage.LOADED if self.marts_are_current else Stage.MARTS_DUE

    @property
    def reason(self) -> str | None:
        """Why the month needs a run; None if it needs none, or if there is nothing to work on."""
        if self.problem:
            return None
        return REASONS.get(self.stage, COMPARE if self.compare else None)

    @property
    def needs_only_marts(self) -> bool:
        """Whether everything before the marts is up to date, so that a run needs no more than them."""
        return self.stage == Stage.MARTS_DUE and not self.compare
