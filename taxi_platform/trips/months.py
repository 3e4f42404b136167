"""Datasets, months and their combination: the unit of all work."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from taxi_platform.trips.errors import UserError

MONTH = re.compile(r"([12]\d{3})-(0[1-9]|1[0-2])", re.ASCII)


@dataclass(frozen=True, order=True)
class Month:
    """A calendar month, the one a file is published for."""

    year: int
    month: int

    @classmethod
    def parse(cls, text: str) -> Month:
        """Read `2021-01`; raises `UserError` for anything else."""
        if not (found := MONTH.fullmatch(text)):
            raise UserError(f"{text!r} is not a month.", "Write it as YYYY-MM, for example 2021-01.")
        return cls(int(found[1]), int(found[2]))

    @classmethod
    def of(cls, day: date) -> Month:
        return cls(day.year, day.month)

    def __str__(self) -> str:
        return f"{self.year:04d}-{self.month:02d}"

    @property
    def first_day(self) -> date:
        return date(self.year, self.month, 1)

    def plus(self, months: int) -> Month:
        years, index = divmod(self.year * 12 + self.month - 1 + months, 12)
        return Month(years, index + 1)

    def until(self, last: Month) -> Iterator[Month]:
        """Every month from this one to `last`, both included."""
        current = self
        while current <= last:
            yield current
            current = current.plus(1)


def newest_month(today: date) -> Month:
    """The newest month that can be published; the TLC is never less than a month behind."""
    return Month.of(today).plus(-2)


class Dataset(StrEnum):
    """The four kinds of trips the TLC publishes."""

    YELLOW = "yellow"
    GREEN = "green"
    FHV = "fhv"
    FHVHV = "fhvhv"

    @classmethod
    def parse(cls, text: str) -> Dataset:
        """Read a name, in whatever case; raises `UserError` for any other."""
        try:
            return cls(text.lower())
        except ValueError:
            known = ", ".join(cls)
            raise UserError(f"{text!r} is not a dataset.", f"Take one of {known}.") from None

    @property
    def first_month(self) -> Month:
        """The first month published; source: the TLC's trip record page (green as CSV)."""
        return FIRST_MONTHS[self]


FIRST_MONTHS = {
    Dataset.YELLOW: Month(2009, 1),
    Dataset.GREEN: Month(2013, 8),
    Dataset.FHV: Month(2015, 1),
    Dataset.FHVHV: Month(2019, 2),
}


@dataclass(frozen=True, order=True)
class DatasetMonth:
    """One month of one dataset: what one file holds and one run handles."""

    dataset: Dataset
    month: Month

    @classmethod
    def parse(cls, dataset: str, month: str) -> DatasetMonth:
        """Read both names; raises `UserError` for an unknown dataset or a month before its first."""
        dataset_month = cls(Dataset.parse(dataset), Month.parse(month))
        if dataset_month.month < dataset_month.dataset.first_month:
            raise UserError(
                f"There is no {dataset_month}.",
                f"The first month of {dataset_month.dataset} is {dataset_month.dataset.first_month}.",
            )
        return dataset_month

    def __str__(self) -> str:
        return f"{self.dataset} {self.month}"

    @property
    def stem(self) -> str:
        """The TLC's name for the month's file, without its ending: `green_tripdata_2020-04`."""
        return f"{self.dataset}_tripdata_{self.month}"
