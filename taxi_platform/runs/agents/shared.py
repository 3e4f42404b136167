"""What the agents and the code server must share: the version, the contracts, and where data is read and stored.

Both hash the same values. The hash is part of the names of Celery's queues, so that an agent that differs takes
nothing; the values themselves are never sent or stored.
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import dagster as dg

from taxi_platform import __version__
from taxi_platform.settings import Settings
from taxi_platform.trips.contract import contract_of
from taxi_platform.trips.errors import UserError

KEY = "taxi/code_server"
"""Under this key of Dagster's storage the code server says what it has."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Release:
    """What must be equal. `settings` has a hash for each variable: 48 bits of it, without passwords."""

    version: str
    contracts: str
    settings: Mapping[str, str]

    @property
    def name(self) -> str:
        """Such as `1.2.0-0f3a9c41`: the version, and a hash of everything."""
        return f"{self.version}-{_digest(json.dumps(asdict(self), sort_keys=True))[:8]}"

    def differences(self, other: Release) -> list[str]:
        """What `other` has that this one has not, for people; empty if they are equal."""
        found = []
        if self.version != other.version:
            found.append(f"taxi_platform {other.version} instead of {self.version}")
        if self.contracts != other.contracts:
            found.append("other contracts (taxi_platform/trips/contracts)")
        names = sorted({*self.settings, *other.settings})
        return found + [f"another {name}" for name in names if self.settings.get(name) != other.settings.get(name)]


@dataclass(frozen=True)
class Host:
    """The machine that a process runs on: its name, and what no other has."""

    name: str
    identity: str


@dataclass(frozen=True)
class CodeServer:
    """What the code server says of itself: what agents must have, its machine, and the queues it sends runs to."""

    release: Release
    machine: Host
    queues: list[str]


def release_of(settings: Settings) -> Release:
    """The release of this process."""
    values = {
        "TAXI_SOURCE_URL": without_password(settings.source_url),
        "TAXI_LAKE_URL": settings.lake_url,
        "TAXI_WAREHOUSE_URL": without_password(settings.warehouse_url),
        "TAXI_SERVING_URL": without_password(settings.serving_url or ""),
        "TAXI_DATASETS": ",".join(settings.datasets),
        "TAXI_REJECT": ",".join(sorted(settings.reject)),
        "TAXI_SET_ASIDE": str(settings.set_aside),
    }
    contracts = ",".join(contract_of(dataset).version for dataset in settings.datasets)
    hashes = {name: _digest(f"{name}={value}")[:12] for name, value in values.items()}
    return Release(__version__, _digest(contracts)[:12], hashes)


def this_host() -> Host:
    """Containers on one host share the boot id, not the name; machines with one name share no boot id."""
    name = socket.gethostname()
    try:
        boot = BOOT_ID.read_text("ascii").strip()
    except OSError:
        boot = ""
    return Host(name, _digest(f"{name}/{boot}")[:12])


def code_server_of(settings: Settings) -> CodeServer:
    """What a code server with these settings says of itself here."""
    return CodeServer(release_of(settings), this_host(), used_queues(settings))


def used_queues(settings: Settings) -> list[str]:
    """The queues that TAXI_QUEUES sends runs to."""
    return sorted({settings.queue_for(()), *(settings.queue_for((dataset.value,)) for dataset in settings.datasets)})


def publish(instance: dg.DagsterInstance, server: CodeServer) -> None:
    """Called in the code server: store what agents must have, and serve."""
    instance.daemon_cursor_storage.set_cursor_values({KEY: json.dumps(asdict(server), sort_keys=True)})


def published(instance: dg.DagsterInstance) -> CodeServer | None:
    """What the code server stored last; None if there was none yet, or if it was of a version that stored otherwise."""
    text = instance.daemon_cursor_storage.get_cursor_values({KEY}).get(KEY)
    try:
        value = json.loads(text or "")
        return CodeServer(Release(**value["release"]), Host(**value["machine"]), list(value["queues"]))
    except (ValueError, KeyError, TypeError):
        return None


def check_shareable(settings: Settings, storage_is_local: bool, server: Host | None, machine: Host) -> None:
    """Raise `UserError` if an agent here would write where the code server's machine cannot read.

    `server` is the machine of the code server if it is known; before its first start, a broker on loopback tells that
    there is only one machine. Also if another machine has the name of this one: its processes would count as killed
    there, because none has their number.
    """
    if server and server != machine and server.name == machine.name:
        raise UserError(
            f"This machine is called {machine.name}, as that of the code server is.",
            "Give it a host name of its own; or, if it is the same machine after a restart, start taxi serve first.",
        )
    local = local_parts(settings, storage_is_local)
    if not local or server == machine or (server is None and on_loopback(settings.broker_url or "")):
        return
    where = f"the code server runs on {server.name}" if server else "the broker is on another machine"
    raise UserError(
        f"An agent on {machine.name} cannot share {', '.join(local)}: {'it is' if len(local) == 1 else 'they are'} on "
        f"one machine, and {where}.",
        "Use a lake in a bucket (gs://…), a warehouse in PostgreSQL or BigQuery, and Dagster's storage in PostgreSQL; "
        "or run this agent on the machine of the code server.",
    )


def local_parts(settings: Settings, storage_is_local: bool) -> list[str]:
    """What lies on a disk of one machine, by the names of its settings."""
    urls = {
        "TAXI_LAKE_URL": settings.lake_url,
        "TAXI_WAREHOUSE_URL": settings.warehouse_url,
        "TAXI_SERVING_URL": settings.serving_url or "",
    }
    parts = [f"the {name} {url}" for name, url in urls.items() if url.startswith(("file:", "duckdb:"))]
    return [*parts, *(["Dagster's storage in SQLite"] if storage_is_local else [])]


def on_loopback(broker_url: str) -> bool:
    """Whether only processes of this machine reach the broker at this address."""
    parts = urlsplit(broker_url)
    return parts.scheme == "redis+socket" or (parts.hostname or "") in LOOPBACK


def without_password(url: str) -> str:
    """The URL without the password: it may be another one for each machine, and no hash of it leaves the process."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    user, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}@{host}"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
