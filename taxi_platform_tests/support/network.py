"""Hosts with addresses of their own on this machine: network namespaces joined by a bridge, as cables join a switch."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

NUMBER = os.getpid()
NETWORK = f"198.18.{NUMBER % 256}"
"""Of a range that is kept for tests of networks, so that no real host has one of its addresses."""


@dataclass
class Host:
    """A network namespace; the command `prefix` runs another one as on that host."""

    name: str

    @property
    def prefix(self) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self.name)

    def cut_off(self) -> None:
        """Pull its cable: packets get lost on the way, and connections stay as they are."""
        ip("link", "set", f"{self.name}-sw", "down")

    def reconnect(self) -> None:
        ip("link", "set", f"{self.name}-sw", "up")


@dataclass
class Network:
    """The switch: this machine has `address` on it."""

    bridge: str = f"taxi{NUMBER}"
    address: str = f"{NETWORK}.1"
    hosts: list[Host] = field(default_factory=list)

    def add_host(self) -> Host:
        number = len(self.hosts) + 2
        host = Host(f"t{NUMBER}h{number}")
        ip("netns", "add", host.name)
        self.hosts.append(host)
        ip("link", "add", f"{host.name}-sw", "type", "veth", "peer", "name", "eth0", "netns", host.name)
        ip("link", "set", f"{host.name}-sw", "master", self.bridge, "up")
        ip("-n", host.name, "addr", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-n", host.name, "link", "set", device, "up")
        return host


@contextmanager
def network() -> Iterator[Network]:
    """A switch without hosts yet; skips where namespaces and bridges are not permitted."""
    if not shutil.which("ip"):
        pytest.skip("the command ip (iproute2) is not installed")
    switch = Network()
    try:
        ip("netns", "add", switch.bridge)
        ip("netns", "delete", switch.bridge)
        ip("link", "add", switch.bridge, "type", "bridge")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces and bridges are not permitted here: {error.stderr.decode().strip()}")
    try:
        ip("addr", "add", f"{switch.address}/24", "dev", switch.bridge)
        ip("link", "set", switch.bridge, "up")
        yield switch
    finally:
        for host in switch.hosts:
            ip("netns", "delete", host.name)
        ip("link", "delete", switch.bridge)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
