"""Random values of every variable, and arguments: parsed, and what they name used as far as this folder reaches."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from unittest.mock import patch
from urllib.parse import urlsplit

import duckdb

from taxi_platform.ingestion.work_folder import work_folder
from taxi_platform.lake import open_lake
from taxi_platform.lake.local import LocalLake
from taxi_platform.notifications.channels import check_notify_urls
from taxi_platform.settings import Settings, check_urls, load_settings
from taxi_platform.sources import open_source
from taxi_platform.sources.file import FileSource
from taxi_platform.sources.http import HttpSource
from taxi_platform.trips.contract import all_rules, contract_of
from taxi_platform.trips.errors import SourceUnavailable
from taxi_platform.trips.months import Dataset, DatasetMonth, Month
from taxi_platform.ui.access import load_access
from taxi_platform.warehouse import open_warehouse
from taxi_platform.warehouse.duckdb import DuckDBWarehouse
from taxi_platform_tests.support.fuzz_targets import SECRET

ODD = [
    "",
    " ",
    "/",
    "//",
    "..",
    "../..",
    ".",
    "~",
    "~nobody",
    "@",
    "@@",
    ":",
    "?",
    "#",
    "&",
    "=",
    "%",
    "%00",
    "%ff",
    "%2e%2e",
]
ODD += [
    "[",
    "]",
    "[::1]",
    "{",
    "}",
    "{x}",
    "{month}",
    "{dataset}",
    "\\",
    "'",
    '"',
    ";",
    "é",
    "€",
    "℀",
    "\u202e",
    "\udcff",
]
ODD += [
    "\t",
    "\n",
    "\r",
    "\x1b[2J",
    "x" * 300,
    "x" * 70_000,
    "9" * 5000,
    "0",
    "-1",
    "1",
    "٣",
    "５",
    "$HOME",
    "nan",
    "a.b",
]
SCHEMES = [
    "http",
    "https",
    "file",
    "sample",
    "tlc",
    "course",
    "gs",
    "s3",
    "duckdb",
    "bigquery",
    "postgresql",
    "postgres",
]
SCHEMES += ["HTTP", "ftp", "", "json", "mailto", "a b"]
NUMBERS = ["1", "64", "257", "512MB", "2GB", "0.2GB", "1e3MB", "129 mib", "-1GB", "128", "128KB", "MB"]
TEXTS = [
    "2009-01",
    "2020-13",
    "20-1",
    "2020-4",
    "0000-01",
    *Dataset,
    "Yellow",
    "zero_passengers",
    "exact_duplicate",
    "*",
]
LOCAL = {"BIGQUERY_EMULATOR_HOST": "http://127.0.0.1:9", "STORAGE_EMULATOR_HOST": "http://127.0.0.1:9"}
"""So that Google's clients ask no metadata server who they are."""


def settings_round(random: Random, folder: Path) -> str:
    environment = _environment(random, folder)
    arguments = [random.choice([*TEXTS, *ODD]) for _ in range(3)]
    (folder / "input").write_text(json.dumps([environment, arguments], indent=1))
    with patch.dict(os.environ, LOCAL):
        settings = load_settings(environment)
        check_urls(settings)
        check_notify_urls(settings.notify_urls)
        load_access(3000, environment)
        shown = _used(settings, folder)
    assert SECRET not in shown, shown
    contract_of(Dataset.GREEN).check_rules(arguments[:1])
    Month.parse(arguments[2])
    DatasetMonth.parse(arguments[1], arguments[2])
    return "accepted"


def _environment(random: Random, folder: Path) -> dict[str, str]:
    """One to three variables that hold something; TAXI_HOME is in the folder unless it is one of them."""
    values = {
        "TAXI_HOME": lambda: random.choice(
            [f"{folder}/{_odd(random)}", _odd(random), f"{_odd(random)}/{_odd(random)}"]
        ),
        "TAXI_SOURCE_URL": lambda: _url(random, folder),
        "TAXI_LAKE_URL": lambda: _url(random, folder),
        "TAXI_WAREHOUSE_URL": lambda: _url(random, folder),
        "TAXI_SERVING_URL": lambda: _url(random, folder),
        "TAXI_NOTIFY_URLS": lambda: f"{_url(random, folder)} {_url(random, folder)}",
        "TAXI_DATASETS": lambda: _list(random),
        "TAXI_SET_ASIDE": lambda: random.choice(["yes", "no", _odd(random)]),
        "TAXI_REJECT": lambda: _list(random),
        "TAXI_SINCE": lambda: random.choice([*TEXTS, _odd(random)]),
        "TAXI_MEMORY_LIMIT": lambda: random.choice([*NUMBERS, _odd(random) + "GB", _odd(random)]),
        "TAXI_THREADS": lambda: random.choice([*NUMBERS, _odd(random)]),
        "TAXI_UI_TOKEN": lambda: SECRET + random.choice(["0123456789", _odd(random)]),
        "TAXI_UI_HOSTS": lambda: _list(random),
        "TAXI_UI_READ_ONLY": lambda: _odd(random),
    }
    chosen = random.sample(sorted(values), random.choice([1, 1, 2, 3]))
    return {"TAXI_HOME": str(folder / "home")} | {name: values[name]() for name in chosen}


def _odd(random: Random) -> str:
    return "".join(random.choices([*ODD, "a", "b1", "2"], k=random.choice([1, 1, 2])))


def _list(random: Random) -> str:
    return random.choice([",", ", ", " "]).join(random.choices([*TEXTS, *all_rules(), _odd(random)], k=2))


def _url(random: Random, folder: Path) -> str:
    """A URL as people write it who do not encode what they should; the secret is in the password or the query."""
    scheme = random.choice(SCHEMES)
    secret = random.choice(["", _odd(random)]) + SECRET + random.choice(["", _odd(random)])
    if scheme in ("file", "duckdb"):  # a path, all of which is shown
        secret = ""
    login = random.choice(["", "", f"user:{secret}@", f"{_odd(random)}:{secret}@"])
    host = random.choice(["127.0.0.1:9", "localhost", "", f"127.0.0.1:{_odd(random)}", _odd(random)])
    path = random.choice(["/{dataset}/{month}.csv", f"{folder}/a", f"{folder}/{_odd(random)}", f"/{_odd(random)}", ""])
    name = random.choice(["token", "password", "rows", "schema", "location", "sslmode", "host", _odd(random)])
    value = secret if name in ("token", "password") else _odd(random)
    query = random.choice(["", "", f"?{name}={value}", f"?rows=1&{name}={value}"])
    return random.choice(
        [f"{scheme}://{login}{host}{path}{query}"] * 9 + [f"//{login}{host}{path}", f"{scheme}:{path}"]
    )


def _used(settings: Settings, folder: Path) -> str:
    """What is shown of it all; what lies in the folder or is this machine's is looked at as well."""
    duckdb.connect(config={"memory_limit": settings.memory_limit}).close()
    source, month = open_source(settings.source_url, settings.datasets), DatasetMonth(Dataset.GREEN, Month(2020, 4))
    if isinstance(source, FileSource):
        source.stat(month)
    if isinstance(source, HttpSource) and urlsplit(source.template).hostname == "127.0.0.1":
        source = replace(source, stat_attempts=1)
        with suppress(SourceUnavailable):
            source.stat(month)
    lake, warehouse = open_lake(settings.lake_url), open_warehouse(settings.warehouse_url)
    if isinstance(lake, LocalLake) and lake.root.resolve().is_relative_to(folder):
        lake.check_access()
    if isinstance(warehouse, DuckDBWarehouse) and warehouse.path.resolve().is_relative_to(folder):
        warehouse.loaded_months("green_trips")
    if settings.home.resolve().is_relative_to(folder):
        with work_folder(settings.home, month):
            pass
    return f"{source!r} {lake.url} {warehouse.url} {warehouse.example_query('green_trips')}"
