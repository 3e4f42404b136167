"""The steps of a month, in their order. Each looks at what already exists, and does only what is missing.

The lake and the warehouse decide what that is, never Dagster's history.
"""

from taxi_platform.ingestion.check import check_accounted_for, check_marts, check_table, version_set_aside
from taxi_platform.ingestion.clean import Cleaned, clean, first_rows
from taxi_platform.ingestion.common import Say, published
from taxi_platform.ingestion.compared import note_cleaned
from taxi_platform.ingestion.damage import clean_or_fetch_again
from taxi_platform.ingestion.fetch import Fetched, fetch
from taxi_platform.ingestion.judging import accept_command, stays_as_it_was
from taxi_platform.ingestion.load import Loaded, load
from taxi_platform.ingestion.marts import BuiltMarts, build_marts

__all__ = [
    "BuiltMarts",
    "Cleaned",
    "Fetched",
    "Loaded",
    "Say",
    "accept_command",
    "build_marts",
    "check_accounted_for",
    "check_marts",
    "check_table",
    "clean",
    "clean_or_fetch_again",
    "fetch",
    "first_rows",
    "load",
    "note_cleaned",
    "published",
    "stays_as_it_was",
    "version_set_aside",
]
