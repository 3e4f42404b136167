"""Where the files come from: http(s), folders and synthetic months behind one small interface (`base.Source`)."""

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
TAKES = (
    "It takes sample://, sample://?rows=20000, tlc://, course://, or a template with {dataset} and {month}: "
    "https://…, http://… or file:///folder/{dataset}_tripdata_{month}.csv.gz."
)


def open_source(url: str, datasets: Sequence[Dataset] = tuple(Dataset)) -> Source:
    """The source `TAXI_SOURCE_URL` names; raises `SettingError`. Nothing is read or asked yet."""
    url = PRESETS.get(url, url)
    scheme = found[1] if (found := re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", url)) else ""
    if scheme == "sample":
        return _open_sample(url)
    if scheme not in ("http", "https", "file"):
        _wrong(f"{scheme + '://…' if scheme else 'a value without ://'} is no source known here")
    _check_placeholders(url, datasets)
    if scheme == "file":
        from taxi_platform.sources.file import FileSource

        path = unquote(url.removeprefix("file://"))
        if not path.startswith("/") or "\0" in path:
            _wrong("a file:// address needs an absolute path, with three slashes")
        return FileSource(path)
    from taxi_platform.sources.http import HttpSource

    try:
        parts = urlsplit(url)
        whole = parts.hostname and parts.port != 0 and "@" not in parts.path
    except ValueError:
        whole = False
    if not whole:  # a part of the password went astray
        _wrong(f"the {scheme}:// address has no host, or an @, /, [ or other special character that is not %-encoded")
    return HttpSource(url)


def _open_sample(url: str) -> Source:
    from taxi_platform.sources.sample.source import SampleSource

    rest, _, query = url.removeprefix("sample://").partition("?")
    given = parse_qsl(query, keep_blank_values=True)
    if rest or any(name != "rows" for name, _ in given) or len(given) > 1:
        _wrong("sample:// takes nothing but rows")
    if not given:
        return SampleSource()
    rows = given[0][1]
    if not re.fullmatch(r"[0-9]{1,9}", rows) or not 1 <= int(rows) <= MAX_SAMPLE_ROWS:
        _wrong(f"rows is not a whole number from 1 to {MAX_SAMPLE_ROWS:,}")
    return SampleSource(int(rows))


def _check_placeholders(url: str, datasets: Sequence[Dataset]) -> None:
    for found in re.findall(r"\{[^{}]*\}|[{}]", url):
        if found not in ("{dataset}", "{month}"):
            public = found in re.split("[?#]", url)[0] and found in url.rpartition("@")[2]
            _wrong(f"{found if public else 'something in braces'} is no placeholder")
    if "{month}" not in url:
        _wrong("the template has no {month}")
    if "{dataset}" not in url and len(datasets) != 1:
        _wrong("the template has no {dataset}, which may be left out only if TAXI_DATASETS names one dataset")


def _wrong(problem: str) -> NoReturn:
    """Say what is wrong without the value, which may hold a password."""
    raise SettingError(f"TAXI_SOURCE_URL: {problem}.", TAKES)
