"""Where files live: a local folder or a GCS bucket behind one small interface, `base.Lake`.

Belongs here: how objects are stored, replaced and listed, and which objects a month has (`months.py`, `manifest.py`).
Does not belong here: what a file's rows mean (`trips/`), and when a month is fetched or cleaned (`ingestion/`).
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from taxi_platform.lake.base import Lake
from taxi_platform.trips.errors import SettingError


def folder_of(url: str) -> Path:
    """The folder that a lake's `file:` URL names."""
    return Path(unquote(urlsplit(url).path))


def open_lake(url: str) -> Lake:
    """The lake that TAXI_LAKE_URL names; raises `SettingError` for a URL that is not supported."""
    try:
        parts = urlsplit(url)
    except ValueError:  # not chained or shown: its text may hold a password
        parts = urlsplit("")
    folder = unquote(parts.path)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and len(folder) > 1 and "\0" not in folder:
        from taxi_platform.lake.local import LocalLake

        return LocalLake(Path(folder))
    if re.fullmatch(r"gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9](/[^?#\s]*)?", url):
        from taxi_platform.lake.gcs import connect

        return connect(url)
    if re.fullmatch(r"/(?!/)[\w./-]+", url):
        raise SettingError("TAXI_LAKE_URL is a path, not a URL.", f"Write it as {Path(url).as_uri()}.")
    raise SettingError(
        "TAXI_LAKE_URL is not a supported lake.", "It takes file:///absolute/folder or gs://bucket/prefix."
    )
