"""The steps of a month, in their order. Each finds out what is there already, and does only what is missing.

What decides is the lake and the warehouse, never Dagster's history.
"""

from taxi_platform.ingestion.check import check_accounted_for, check_table
from taxi_platform.ingestion.clean import Cleaned, clean
from taxi_platform.ingestion.common import Say, published
from taxi_platform.ingestion.fetch import Fetched, fetch
from taxi_platform.ingestion.load import Loaded, load

__all__ = [
    "Cleaned",
    "Fetched",
    "Loaded",
    "Say",
    "check_accounted_for",
    "check_table",
    "clean",
    "fetch",
    "load",
    "published",
]
