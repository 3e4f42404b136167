"""Web addresses: how they are shown without secrets, named as files, and where a redirect may lead."""

from __future__ import annotations

import ipaddress
import re
import socket
from contextlib import suppress
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from taxi_platform.trips.errors import SourceRefused, SourceUnavailable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

CHECK = "Check TAXI_SOURCE_URL."
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
IPV4_COMPATIBLE = ipaddress.IPv6Network("::/96")
MAX_ADDRESS_LENGTH = 1000
"""The longest address, in characters without its query, that a redirect may lead to."""


def redact(url: str) -> str:
    """The address without the parts that may be secret: user, password, query and fragment."""
    try:
        parts = urlsplit(url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:
        return "(an address that cannot be parsed)"


def file_name(url: str, default: str) -> str:
    """The last part of the address as a safe name of at most 128 characters that keeps the suffix."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", unquote(urlsplit(url).path.rpartition("/")[2]))
    return name[-128:].lstrip(".") or default


def look_up(host: str) -> tuple[str, ...]:
    """The numeric addresses of a host; raises `OSError` or `UnicodeError` if it has none."""
    return tuple(dict.fromkeys(str(info[4][0]) for info in socket.getaddrinfo(host, None)))


def network_kinds(*addresses: str) -> set[str]:
    """The kinds of non-public networks that numeric addresses are in: `loopback`, `link_local`, `private`, …."""
    numbers = [ipaddress.ip_address(address.partition("%")[0]) for address in addresses]
    return {kind for number in numbers for reached in _reached(number) if (kind := _kind(reached))}


def _reached(address: Address) -> tuple[Address, ...]:
    """Where packets to an address end: an IPv6 address may contain the IPv4 address that a gateway sends them to."""
    if isinstance(address, ipaddress.IPv4Address):
        return (address,)
    last_bits = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address.teredo:
        return (*address.teredo, address)
    if address.sixtofour:
        return (address.sixtofour,)
    if address in NAT64 or address.ipv4_mapped or (address in IPV4_COMPATIBLE and int(address) > 1):
        return (last_bits,)
    return (address,)


def _kind(address: Address) -> str | None:
    """The kind of network, None if it is public."""
    if isinstance(address, ipaddress.IPv6Address) and (address in LOCAL_NAT64 or address.is_site_local):
        return "private"
    if address.is_global and not address.is_multicast:
        return None
    kinds = ("loopback", "link_local", "unspecified", "multicast", "private", "reserved")
    return next((kind for kind in kinds if getattr(address, f"is_{kind}")), "shared")


def next_hop(url: str, location: str) -> str:
    """The address that `url` redirects to; raises `SourceRefused` if it is none, or leads from https to http."""
    try:
        target = urlsplit(urljoin(url, location))
        host, shown = target.hostname, redact(target.geturl())
    except ValueError:
        host = None
    if not location or not host or len(shown) > MAX_ADDRESS_LENGTH or not shown.isprintable():
        raise SourceRefused(f"{redact(url)} redirects to an address that is not valid.", CHECK)
    if target.scheme not in ("http", "https") or (urlsplit(url).scheme == "https" and target.scheme == "http"):
        hop = f"{redact(url)} redirects to {shown}"
        raise SourceRefused(f"{hop}: https may redirect only to https, and http only to http or https.", CHECK)
    return target.geturl()


class Hosts:
    """The hosts of a request and its redirects. Each is looked up once, so that what was checked is connected to.

    A private or link-local address is allowed only if the source's own host, which TAXI_SOURCE_URL names, is in such a
    network itself.
    """

    def __init__(self, source_url: str) -> None:
        self._source = urlsplit(source_url).hostname or ""
        self._addresses: dict[str, tuple[str, ...]] = {}

    def _look_up(self, host: str) -> tuple[str, ...]:
        if host not in self._addresses:
            self._addresses[host] = look_up(host)
        return self._addresses[host]

    def of_source(self) -> tuple[str, ...]:
        """Its addresses; none if the name does not resolve here: then connecting fails."""
        with suppress(OSError, UnicodeError):
            return self._look_up(self._source)
        return ()

    def of_redirect(self, url: str, target: str, has_proxy: bool) -> tuple[str, ...]:
        """The addresses of `target`, to which `url` redirects; raises `SourceRefused` or `SourceUnavailable`.

        A name that does not resolve here is left to a proxy, if there is one.
        """
        hop = f"{redact(url)} redirects to {redact(target)}"
        try:
            addresses = self._look_up(urlsplit(target).hostname or "")
        except (OSError, UnicodeError) as error:
            if has_proxy:
                return ()
            if getattr(error, "errno", None) == socket.EAI_AGAIN:
                raise SourceUnavailable(f"{hop}, whose name cannot be looked up now.", "Try again later.") from None
            raise SourceRefused(f"{hop}, whose name does not exist.", CHECK) from None
        # Redirects inside a private network may stay in it, but loopback may not lead to a link-local address.
        if blocked := network_kinds(*addresses) - network_kinds(*self.of_source()):
            raise SourceRefused(f"{hop}, a {' and '.join(sorted(blocked))} address, which is blocked.", CHECK)
        return addresses
