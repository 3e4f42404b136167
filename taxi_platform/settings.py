"""The environment, parsed once: every variable, what it accepts, and one clear message if it is wrong."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from pathlib import Path

from taxi_platform.lake import folder_of, open_lake
from taxi_platform.sources import open_source
from taxi_platform.trips.contract import check_rules, contract_of
from taxi_platform.trips.errors import SettingError, UserError
from taxi_platform.trips.machine import this_machine
from taxi_platform.trips.months import Dataset, Month
from taxi_platform.warehouse import open_warehouse
from taxi_platform.warehouse.base import Warehouse

NAMES = (
    "TAXI_HOME",
    "TAXI_SOURCE_URL",
    "TAXI_LAKE_URL",
    "TAXI_WAREHOUSE_URL",
    "TAXI_SERVING_URL",
    "TAXI_DATASETS",
    "TAXI_REJECT",
    "TAXI_SET_ASIDE",
    "TAXI_SINCE",
    "TAXI_SCHEDULE",
    "TAXI_NOTIFY_URLS",
    "TAXI_UI_URL",
    "TAXI_UI_TOKEN",
    "TAXI_UI_HOSTS",
    "TAXI_UI_READ_ONLY",
    "TAXI_REPORT_TOKEN",
    "TAXI_METRICS_TOKEN",
    "TAXI_MEMORY_LIMIT",
    "TAXI_THREADS",
    "TAXI_BROKER_URL",
    "TAXI_QUEUES",
    "TAXI_FAULT_POINT",
)
"""Every variable that the platform reads. Names that begin with TAXI_TEST_ belong to tests."""

VIEWS_FILE = "trips.duckdb"
"""In TAXI_HOME: views over the lake, which a run replaces as a whole."""

TYPO_CUTOFF = 0.76
"""From this similarity on a name counts as mistyped: TOKEN is UI_TOKEN (0.77), FARE_URL is not LAKE_URL (0.75)."""

DEFAULT_QUEUE = "default"
EVERY_OTHER = "*"
"""In TAXI_QUEUES: every run whose dataset has no entry, and runs of no dataset."""
QUEUE_PATTERN = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
BROKER_PATTERN = re.compile(r"(rediss?|redis\+socket)://\S+")

MEMORY_PATTERN = re.compile(r"([0-9]{1,9}(?:\.[0-9]+)?) *(MB|GB|MiB|GiB)", re.IGNORECASE)


@dataclass(frozen=True)
class Settings:
    """Where the platform reads and writes, and how. URLs may hold secrets, so this is never printed."""

    home: Path
    source_url: str
    lake_url: str
    warehouse_url: str
    serving_url: str | None
    datasets: tuple[Dataset, ...]
    reject: tuple[str, ...]
    set_aside: bool
    """Whether versions that look wrong are set aside instead of loaded."""
    notify_urls: tuple[str, ...]
    ui_url: str
    since: Month | None
    schedule: str | None
    memory_limit: str
    threads: int
    broker_url: str | None
    """Where runs wait for agents; None without agents."""
    queues: Mapping[str, str]
    """Dataset, or `*`, → the queue that its runs wait in, in the order that was written."""

    def queue_for(self, datasets: Collection[str]) -> str:
        """The queue of a run of these datasets: that of the first entry that names one of them, else everybody's."""
        other = self.queues.get(EVERY_OTHER, DEFAULT_QUEUE)
        return next((queue for name, queue in self.queues.items() if name in datasets), other)

    def disks(self) -> dict[str, Path]:
        """A folder on each disk of this machine that months are written to, by what it is for: first the home."""
        places = {"home": self.home}
        if self.lake_url.startswith("file:"):
            places["lake"] = folder_of(self.lake_url)
        for name, url in (("warehouse", self.warehouse_url), ("serving", self.serving_url or "")):
            if url.startswith("duckdb:"):
                places[name] = Path(url.partition("://")[2])
        found: dict[int, tuple[str, Path]] = {}
        for name, path in places.items():
            folder = next(folder for folder in (path, *path.parents) if os.access(folder, os.F_OK))
            found.setdefault(folder.stat().st_dev, (name, folder))
        return dict(found.values())

    @property
    def dagster_home(self) -> Path:
        """Where Dagster keeps its files. Raises `SettingError` for a relative path, which Dagster does not take."""
        home = os.environ.get("DAGSTER_HOME")
        if home and not Path(home).is_absolute():
            raise SettingError(f"DAGSTER_HOME is {home!r}.", "It takes an absolute path, or is not set.")
        return Path(home or self.home / "dagster")


def load_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read all variables; raises `SettingError`, which names the first wrong one and says what it accepts."""
    for name in unknown_names(environment):
        _check_name(name)

    def value(name: str, default: str) -> str:
        text = environment.get(name, "").strip()
        if re.search("[\ud800-\udfff]", text):  # Python decodes bytes that are not UTF-8 to these
            raise SettingError(f"{name} is not UTF-8.", "Write it in UTF-8; in a URL, bytes may be %-encoded.")
        return text or default

    try:
        home = Path(value("TAXI_HOME", "data")).expanduser().absolute()
    except RuntimeError:
        raise SettingError("TAXI_HOME begins with ~ and the name of an unknown user.", "It takes a folder.") from None
    if "?" in str(home):
        raise SettingError(
            f"TAXI_HOME is {home}: DuckDB takes a ? for the end of a file's name.", "It takes a folder without a ?."
        )
    machine = this_machine()
    datasets = _datasets(value("TAXI_DATASETS", ",".join(Dataset)))
    return Settings(
        home=home,
        source_url=value("TAXI_SOURCE_URL", "sample://"),
        lake_url=value("TAXI_LAKE_URL", (home / "lake").as_uri()),
        warehouse_url=value("TAXI_WAREHOUSE_URL", f"duckdb://{home / 'warehouse.duckdb'}"),
        serving_url=value("TAXI_SERVING_URL", "") or None,
        datasets=datasets,
        reject=_rules(value("TAXI_REJECT", ""), datasets),
        set_aside=_yes_or_no("TAXI_SET_ASIDE", value("TAXI_SET_ASIDE", "yes")),
        notify_urls=tuple(value("TAXI_NOTIFY_URLS", "").split()),
        ui_url=_ui_url(value("TAXI_UI_URL", "http://127.0.0.1:3000")),
        since=_since(value("TAXI_SINCE", "")),
        schedule=value("TAXI_SCHEDULE", "") or None,
        memory_limit=_memory(value("TAXI_MEMORY_LIMIT", f"{machine.engine_megabytes}MB")),
        threads=_threads(value("TAXI_THREADS", str(machine.cores))),
        broker_url=_broker(value("TAXI_BROKER_URL", "")),
        queues=_queues(value("TAXI_QUEUES", "")),
    )


def check_urls(settings: Settings) -> None:
    """Raise `SettingError` for a URL that is not supported, or if both warehouse URLs name the same one."""
    open_source(settings.source_url, settings.datasets)
    open_lake(settings.lake_url)
    list(open_warehouses(settings))


def open_warehouses(settings: Settings) -> Iterator[tuple[str, Warehouse]]:
    """The warehouse, and the serving warehouse if it is configured, each with its resource's key."""
    warehouse = open_warehouse(settings.warehouse_url)
    _check_is_not_views(settings, "TAXI_WAREHOUSE_URL", warehouse)
    yield "warehouse", warehouse
    if settings.serving_url:
        serving = open_warehouse(settings.serving_url, "TAXI_SERVING_URL")
        _check_is_not_views(settings, "TAXI_SERVING_URL", serving)
        if serving.url == warehouse.url:
            raise SettingError("TAXI_SERVING_URL names the same warehouse as TAXI_WAREHOUSE_URL.", "Name another one.")
        yield "serving", serving


def _check_is_not_views(settings: Settings, variable: str, warehouse: Warehouse) -> None:
    if warehouse.url == f"duckdb://{settings.home / VIEWS_FILE}":
        raise SettingError(f"{variable} names {VIEWS_FILE} in TAXI_HOME, which holds the views.", "Name another file.")


def queue_name(text: str, where: str) -> str:
    """The name of a queue; raises `SettingError`, which says where it was found, for anything else."""
    if not QUEUE_PATTERN.fullmatch(text):
        raise SettingError(
            f"{where} names the queue {text!r}.", "A queue has up to 40 small letters, digits, - and _, such as heavy."
        )
    return text


def unknown_names(environment: Mapping[str, str]) -> list[str]:
    """The variables that look like settings but are not, sorted."""
    return sorted(
        name
        for name in environment
        if name.startswith("TAXI_") and not name.startswith("TAXI_TEST_") and name not in NAMES
    )


def listed(text: str) -> list[str]:
    """The entries of a comma-separated list."""
    return [entry.strip() for entry in text.split(",") if entry.strip()]


def _check_name(name: str) -> None:
    """Raise `SettingError` if a name is probably a setting, mistyped or cut short; others may be another program's."""
    longer = [known for known in NAMES if known.startswith(f"{name}_")]
    endings = [known.removeprefix("TAXI_") for known in NAMES]
    similar = get_close_matches(name.removeprefix("TAXI_"), endings, cutoff=TYPO_CUTOFF)
    swapped = [known for known in NAMES if sorted(known) == sorted(name)]  # HOEM is HOME, of similarity 0.75
    candidates = longer or swapped or [f"TAXI_{ending}" for ending in similar]
    if candidates:
        raise SettingError(f"{name} is not a setting.", f"Did you mean {candidates[0]}?")


def _datasets(text: str) -> tuple[Dataset, ...]:
    try:
        chosen = {Dataset.parse(name) for name in listed(text)}
    except UserError as error:
        raise SettingError(f"TAXI_DATASETS: {error.problem}", error.remedy) from None
    if not chosen:
        raise SettingError("TAXI_DATASETS names no dataset.", f"It takes a list of {', '.join(Dataset)}.")
    return tuple(dataset for dataset in Dataset if dataset in chosen)


def _rules(text: str, datasets: Sequence[Dataset]) -> tuple[str, ...]:
    """Rules that at least one of the datasets has; each rejects where it exists."""
    if not text:
        return ()  # without reading the contracts, which takes 7 ms
    try:
        return check_rules([contract_of(dataset) for dataset in datasets], listed(text))
    except UserError as error:
        raise SettingError(f"TAXI_REJECT: {error.problem}", error.remedy) from None


def _yes_or_no(name: str, text: str) -> bool:
    if text.lower() not in ("yes", "no"):
        raise SettingError(f"{name} is {text!r}.", "It takes yes or no.")
    return text.lower() == "yes"


def _since(text: str) -> Month | None:
    try:
        since = Month.parse(text) if text else None
    except UserError as error:
        raise SettingError(f"TAXI_SINCE: {error.problem}", error.remedy) from None
    if since and since > Month.of(date.today()):
        raise SettingError(f"TAXI_SINCE is {since}, which is in the future.", "It takes a month such as 2009-01.")
    return since


def _ui_url(text: str) -> str:
    """Where people open the UI; messages link to it."""
    if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#@]*)?", text):
        raise SettingError(
            "TAXI_UI_URL is not an address that a message can link to.",
            "It takes http://host:port or https://host/path, without user, password or query.",
        )
    return text.rstrip("/")


def _memory(text: str) -> str:
    amount = MEMORY_PATTERN.fullmatch(text)
    if not amount:
        raise SettingError(f"TAXI_MEMORY_LIMIT is {text!r}.", "It takes an amount such as 512MB or 2GB.")
    megabytes = float(amount[1]) * (1024 if amount[2].upper().startswith("G") else 1)
    if megabytes < 128:
        raise SettingError(f"TAXI_MEMORY_LIMIT is {text!r}, too little for cleaning.", "It takes 128MB or more.")
    return text


def _threads(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= 256:
        raise SettingError(f"TAXI_THREADS is {text!r}.", "It takes a number from 1 to 256.")
    return int(text)


def _broker(text: str) -> str | None:
    if text and not BROKER_PATTERN.fullmatch(text):  # the value is not shown: it may hold a password
        raise SettingError(
            "TAXI_BROKER_URL is not the URL of a Redis.",
            "It takes redis://:password@host:6379/0, rediss:// for TLS, or redis+socket:///folder/redis.sock.",
        )
    return text or None


def _queues(text: str) -> Mapping[str, str]:
    takes = "It takes a list such as yellow=heavy,fhvhv=heavy,*=default."
    queues: dict[str, str] = {}
    for entry in listed(text):
        name, equals, queue = (part.strip() for part in entry.partition("="))
        if not equals:
            raise SettingError(f"TAXI_QUEUES has the entry {entry!r}.", takes)
        if name != EVERY_OTHER:
            try:
                name = Dataset.parse(name).value
            except UserError as error:
                raise SettingError(f"TAXI_QUEUES: {error.problem}", f"{error.remedy} {takes}") from None
        if name in queues:
            raise SettingError(f"TAXI_QUEUES names {name} twice.", takes)
        queues[name] = queue_name(queue, "TAXI_QUEUES")
    return queues
