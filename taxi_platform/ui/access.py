"""Who may reach the UI: the settings that the guard enforces."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from taxi_platform.settings import listed
from taxi_platform.trips.errors import SettingError

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
TOKEN_PATTERN = re.compile(r"[!-~]{16,}")


@dataclass(frozen=True)
class Access:
    """The host names, tokens and permissions of one webserver. An empty token means that none is set."""

    port: int
    hosts: frozenset[str]
    """Allowed values of `Host`, in lower case, with the port where the browser sends one."""
    token: str = field(repr=False)
    report_token: str = field(repr=False)
    metrics_token: str = field(repr=False)
    is_shared: bool
    """Whether TAXI_UI_HOSTS names another host than this machine: a proxy lets people in from elsewhere."""
    read_only: bool

    @property
    def is_open(self) -> bool:
        """Whether everybody who reaches this server is trusted: only this machine does, and no token says otherwise."""
        return not (self.is_shared or self.token or self.metrics_token)

    @property
    def closes_metrics(self) -> bool:
        """Whether nobody may read /metrics: others reach this server, and no token tells who they are."""
        return self.is_shared and not (self.token or self.metrics_token)


def load_access(port: int, environment: Mapping[str, str] = os.environ) -> Access:
    """Read TAXI_UI_HOSTS, TAXI_UI_TOKEN, TAXI_UI_READ_ONLY and the other tokens; raises `SettingError`."""
    # Browsers omit port 80, the default of http, in Host and Origin.
    loopback = [f"{name}:{port}".removesuffix(":80") for name in LOOPBACK_NAMES]
    configured = [
        host.removeprefix("https://").rstrip("/") for host in listed(environment.get("TAXI_UI_HOSTS", "").lower())
    ]
    return Access(
        port=port,
        hosts=frozenset([*loopback, *configured]),
        token=_token("TAXI_UI_TOKEN", environment),
        report_token=_token("TAXI_REPORT_TOKEN", environment),
        metrics_token=_token("TAXI_METRICS_TOKEN", environment),
        is_shared=any(re.sub(r":\d+$", "", host) not in LOOPBACK_NAMES for host in configured),
        read_only=environment.get("TAXI_UI_READ_ONLY", "").strip().lower() not in {"", "0", "false"},
    )


def _token(name: str, environment: Mapping[str, str]) -> str:
    token = environment.get(name, "").strip()
    if token and not TOKEN_PATTERN.fullmatch(token):
        raise SettingError(
            f"{name} is too short, or contains a space or a character outside ASCII.",
            "Use 16 characters or more; `openssl rand -hex 24` generates a token.",
        )
    return token
