"""Where the files come from: one small interface, `base.Source`, and one module per kind of source.

Belongs here: web addresses (`http`), folders (`file`), synthetic months (`sample/`), and the URL that selects one.
Does not belong here: where fetched files are kept (lake), what their columns mean (trips), and when to fetch
(ingestion, automation).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NoReturn
from urllib.parse import parse_qsl, unquote, urlsplit

from taxi_platform.sources.base import Source
from taxi_platform.trips.errors import SettingError
from taxi_platform.trips.months import Dataset

PRESETS = {
    "tlc://": "https://d37ci6vzurychx.cloudfront.net/trip-data/{dataset}_tripdata_{month}.parquet",
    "course://": "https://github.com/DataTalksClub/nyc-tlc-data/releases/download/{dataset}/{dataset}_tripdata_{month}.csv.gz",
}
MAX_SAMPLE_ROWS = 50_000_000
EXPECTED_URL = (
    "Use sample://, sample://?rows=20000, tlc://, course://, or a template with {dataset} and {month}: "
    "https://…, http://… or file:///folder/{dataset}_tripdata_{month}.csv.gz."
)


def open_source(url: str, datasets: Sequence[Dataset] = tuple(Dataset)) -> Source:
    """The source that `url`, the value of TAXI_SOURCE_URL, names; raises `SettingError`. Contacts nothing yet."""
    url = PRESETS.get(url, url)
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", url)
    scheme = match[1] if match else ""
    if scheme == "sample":
        return _open_sample(url)
    if scheme not in ("http", "https", "file"):
        _refuse(f"{f'{scheme}://…' if scheme else 'a value without ://'} is not a supported source")
    _check_placeholders(url, datasets)
    if scheme == "file":
        from taxi_platform.sources.file import FileSource

        path = unquote(url.removeprefix("file://"))
        if not path.startswith("/") or "\0" in path:
            _refuse("a file:// URL needs an absolute path, which makes three slashes")
        return FileSource(path)
    from taxi_platform.sources.http import HttpSource

    try:
        parts = urlsplit(url)
        is_complete = parts.hostname and parts.port != 0 and "@" not in parts.path
    except ValueError:
        is_complete = False
    if not is_complete:  # often an unencoded character in the password
        _refuse(
            f"the {scheme}:// URL has no host, or contains an @, /, [ or other special character that is not %-encoded"
        )
    return HttpSource(url)


def _open_sample(url: str) -> Source:
    from taxi_platform.sources.sample.source import SampleSource

    rest, _, query = url.removeprefix("sample://").partition("?")
    parameters = parse_qsl(query, keep_blank_values=True)
    if rest or any(name != "rows" for name, _ in parameters) or len(parameters) > 1:
        _refuse("sample:// accepts no parameter but rows")
    if not parameters:
        return SampleSource()
    rows = parameters[0][1]
    if not re.fullmatch(r"[0-9]{1,9}", rows) or not 1 <= int(rows) <= MAX_SAMPLE_ROWS:
        _refuse(f"rows is not a whole number from 1 to {MAX_SAMPLE_ROWS:,}")
    return SampleSource(int(rows))


def _check_placeholders(url: str, datasets: Sequence[Dataset]) -> None:
    for placeholder in re.findall(r"\{[^{}]*\}|[{}]", url):
        if placeholder not in ("{dataset}", "{month}"):
            is_public = placeholder in re.split("[?#]", url)[0] and placeholder in url.rpartition("@")[2]
            _refuse(f"{placeholder if is_public else 'something in braces'} is not a placeholder")
    if "{month}" not in url:
        _refuse("the template has no {month}")
    if "{dataset}" not in url and len(datasets) != 1:
        _refuse("the template has no {dataset}, which is optional only if TAXI_DATASETS names a single dataset")


def _refuse(problem: str) -> NoReturn:
    """Raise a `SettingError` that does not show the value, which may contain a password."""
    raise SettingError(f"TAXI_SOURCE_URL: {problem}.", EXPECTED_URL)
