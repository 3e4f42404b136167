"""The environment, parsed once: every variable, what it takes, and one clear message when it is wrong."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from taxi_platform.lake import open_lake
from taxi_platform.sources import open_source
from taxi_platform.trips.contract import all_rules
from taxi_platform.trips.errors import SettingError, UserError
from taxi_platform.trips.months import Dataset, Month
from taxi_platform.warehouse import open_warehouse

MEMORY_PATTERN = re.compile(r"([0-9]{1,9}(?:\.[0-9]+)?) *(MB|GB|MiB|GiB)", re.IGNORECASE)


@dataclass(frozen=True)
class Settings:
    """What the platform works with. URLs may hold secrets, so nothing prints this."""

    home: Path
    source_url: str
    lake_url: str
    warehouse_url: str
    serving_url: str | None
    datasets: tuple[Dataset, ...]
    reject: tuple[str, ...]
    notify_urls: tuple[str, ...]
    since: Month | None
    schedule: str | None
    memory_limit: str
    threads: int

    @property
    def dagster_home(self) -> Path:
        return Path(os.environ.get("DAGSTER_HOME") or self.home / "dagster")


def load_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read all variables; raises `SettingError` naming the first that is wrong and what it takes."""

    def value(name: str, default: str) -> str:
        given = environment.get(name, "").strip()
        if re.search("[\ud800-\udfff]", given):  # so Python reads bytes that are no UTF-8
            raise SettingError(f"{name} is not UTF-8.", "Write it in UTF-8; in a URL, bytes may be %-encoded.")
        return given or default

    try:
        home = Path(value("TAXI_HOME", "data")).expanduser().absolute()
    except RuntimeError:
        raise SettingError("TAXI_HOME begins with ~ and a name that no user has.", "It takes a folder.") from None
    return Settings(
        home=home,
        source_url=value("TAXI_SOURCE_URL", "sample://"),
        lake_url=value("TAXI_LAKE_URL", (home / "lake").as_uri()),
        warehouse_url=value("TAXI_WAREHOUSE_URL", f"duckdb://{home / 'warehouse.duckdb'}"),
        serving_url=value("TAXI_SERVING_URL", "") or None,
        datasets=_datasets(value("TAXI_DATASETS", ",".join(Dataset))),
        reject=_rules(value("TAXI_REJECT", "")),
        notify_urls=tuple(value("TAXI_NOTIFY_URLS", "").split()),
        since=_since(value("TAXI_SINCE", "")),
        schedule=_cron(value("TAXI_SCHEDULE", "")),
        memory_limit=_memory(value("TAXI_MEMORY_LIMIT", "512MB")),
        threads=_threads(value("TAXI_THREADS", str(os.cpu_count() or 1))),
    )


def check_urls(settings: Settings) -> None:
    """Raise `SettingError` for a URL that names nothing, before anything runs."""
    open_source(settings.source_url, settings.datasets)
    open_lake(settings.lake_url)
    open_warehouse(settings.warehouse_url)
    if settings.serving_url:
        open_warehouse(settings.serving_url, "TAXI_SERVING_URL")


def listed(text: str) -> list[str]:
    """The entries of a comma-separated list."""
    return [entry.strip() for entry in text.split(",") if entry.strip()]


def _datasets(text: str) -> tuple[Dataset, ...]:
    try:
        chosen = {Dataset.parse(name) for name in listed(text)}
    except UserError as error:
        raise SettingError(f"TAXI_DATASETS: {error.problem}", error.remedy) from None
    return tuple(dataset for dataset in Dataset if dataset in chosen)


def _rules(text: str) -> tuple[str, ...]:
    rules = listed(text)
    for rule in rules:
        if rule not in all_rules():
            raise SettingError(
                f"TAXI_REJECT: {rule!r} is not a suspicious rule.", f"It takes a list of {', '.join(all_rules())}."
            )
    return tuple(sorted(set(rules)))


def _since(text: str) -> Month | None:
    try:
        return Month.parse(text) if text else None
    except UserError as error:
        raise SettingError(f"TAXI_SINCE: {error.problem}", error.remedy) from None


def _cron(text: str) -> str | None:
    if not text:
        return None
    from dagster._utils.schedules import is_valid_cron_string  # a second of imports: only for those who set it

    if not is_valid_cron_string(text):
        raise SettingError(
            f"TAXI_SCHEDULE is {text!r}.", "It takes a cron line in New York's time, such as 30 6 * * *."
        )
    return text


def _memory(text: str) -> str:
    found = MEMORY_PATTERN.fullmatch(text)
    if not found:
        raise SettingError(f"TAXI_MEMORY_LIMIT is {text!r}.", "It takes an amount such as 512MB or 2GB.")
    megabytes = float(found[1]) * (1024 if found[2].upper().startswith("G") else 1)
    if megabytes < 128:
        raise SettingError(f"TAXI_MEMORY_LIMIT is {text!r}, too little to clean with.", "It takes 128MB or more.")
    return text


def _threads(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= 256:
        raise SettingError(f"TAXI_THREADS is {text!r}.", "It takes a number from 1 to 256.")
    return int(text)
