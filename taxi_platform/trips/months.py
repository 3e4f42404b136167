"""Months, datasets, and the combination that is the unit of all work."""

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
        match = MONTH.fullmatch(text)
        if not match:
            raise UserError(f"{text!r} is not a month.", "Write it as YYYY-MM, for example 2021-01.")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def of(cls, day: date) -> Month:
        """The month of a day."""
        return cls(day.year, day.month)

    def __str__(self) -> str:
        return f"{self.year:04d}-{self.month:02d}"

    @property
    def first_day(self) -> date:
        return date(self.year, self.month, 1)

    def plus(self, months: int) -> Month:
        """The month that many months later; earlier if negative."""
        years, index = divmod(self.year * 12 + self.month - 1 + months, 12)
        return Month(years, index + 1)

    def until(self, last: Month) -> Iterator[Month]:
        """Every month from this one to `last`, both included."""
        current = self
        while current <= last:
            yield current
            current = current.plus(1)


def newest_month(today: date) -> Month:
    """The newest month that can be published; the TLC publishes a month no sooner than a month after its end."""
    return Month.of(today).plus(-2)


class Dataset(StrEnum):
    """The four kinds of trips the TLC publishes."""

    YELLOW = "yellow"
    GREEN = "green"
    FHV = "fhv"
    FHVHV = "fhvhv"

    @classmethod
    def parse(cls, text: str) -> Dataset:
        """Read a name, ignoring case; raises `UserError` for an unknown one."""
        try:
            return cls(text.lower())
        except ValueError:
            known = ", ".join(cls)
            raise UserError(f"{text!r} is not a dataset.", f"Choose one of {known}.") from None

    @property
    def first_month(self) -> Month:
        """The first published month, according to the TLC's trip record page."""
        return FIRST_MONTHS[self]


FIRST_MONTHS = {
    Dataset.YELLOW: Month(2009, 1),
    Dataset.GREEN: Month(2013, 8),
    Dataset.FHV: Month(2015, 1),
    Dataset.FHVHV: Month(2019, 2),
}


@dataclass(frozen=True, order=True)
class DatasetMonth:
    """One month of one dataset: the content of one file, and the work of one run."""

    dataset: Dataset
    month: Month

    @classmethod
    def parse(cls, dataset: str, month: str) -> DatasetMonth:
        """Read both; raises `UserError` for an unknown dataset, a malformed month, or one before the first month."""
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
        """The TLC's file name for the month, without the extension: `green_tripdata_2020-04`."""
        return f"{self.dataset}_tripdata_{self.month}"
