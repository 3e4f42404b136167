"""Web addresses: how they are shown without secrets, named as files, and where a redirect may lead."""

from __future__ import annotations

import ipaddress
import re
import socket
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from taxi_platform.trips.errors import SourceRefused

CHECK = "Check TAXI_SOURCE_URL."
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


def network_kinds(host: str) -> set[str]:
    """The kinds of non-public networks that the host's addresses are in: `loopback`, `link_local`, `private`, ….

    Empty if all addresses are public, and if the name does not resolve here: then only a proxy can reach it.
    """
    try:
        infos = socket.getaddrinfo(host, None)
    except (OSError, UnicodeError):
        return set()
    resolved = {ipaddress.ip_address(str(info[4][0]).partition("%")[0]) for info in infos}
    addresses = {getattr(address, "ipv4_mapped", None) or address for address in resolved}
    kinds = ("loopback", "link_local", "unspecified", "multicast", "private", "reserved")
    return {
        next((kind for kind in kinds if getattr(address, f"is_{kind}")), "shared")
        for address in addresses
        if not address.is_global or address.is_multicast
    }


def next_hop(url: str, location: str, source_host: str) -> str:
    """The address that `url` redirects to; raises `SourceRefused` if a redirect may not lead there.

    https may lead only to https, and a private or link-local address is allowed only if `source_host`, the host that
    TAXI_SOURCE_URL names, is in such a network itself.
    """
    try:
        target = urlsplit(urljoin(url, location))
        host, shown = target.hostname, redact(target.geturl())
    except ValueError:
        host = None
    if not location or not host or len(shown) > MAX_ADDRESS_LENGTH or not shown.isprintable():
        raise SourceRefused(f"{redact(url)} redirects to an address that is not valid.", CHECK)
    hop = f"{redact(url)} redirects to {shown}"
    if target.scheme not in ("http", "https") or (urlsplit(url).scheme == "https" and target.scheme == "http"):
        raise SourceRefused(f"{hop}: https may redirect only to https, and http only to http or https.", CHECK)
    # Redirects inside a private network may stay in it, but loopback may not lead to a link-local address.
    if blocked := network_kinds(host) - network_kinds(source_host):
        raise SourceRefused(f"{hop}, a {' and '.join(sorted(blocked))} address, which is blocked.", CHECK)
    return target.geturl()
