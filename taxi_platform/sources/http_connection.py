"""HTTP connections that cannot hold us for ever, and network errors as ours.

`requests` is kept for what it adds to urllib3: proxies and certificate bundles from the environment, and the user and
password of an address. urllib3's `Retry` is not used: an attempt ends only after its body was read, and resumes it.
"""

from __future__ import annotations

import email.utils
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial

import requests
import urllib3

from taxi_platform import __version__
from taxi_platform.sources.addresses import CHECK, redact
from taxi_platform.trips.errors import SourceRefused, SourceUnavailable

OFFLINE = "Try again later, or check the network of this machine; TAXI_SOURCE_URL=sample:// needs none."


@contextmanager
def shut_down_after(seconds: float, shutdown: Callable[[], object]) -> Iterator[None]:
    """Shut the connection down when the block takes longer.

    Needed because inside a head, a chunk's size or a trailer every byte resets the read timeout, and the call that
    reads them does not return in between; a server may also send 100 Continue for ever.
    """

    def shut_down() -> None:
        with suppress(OSError, RuntimeError, ValueError):  # closed at this moment
            shutdown()

    timer = threading.Timer(seconds, shut_down)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


_addresses: ContextVar[tuple[str, ...]] = ContextVar("addresses", default=())


@contextmanager
def connecting_to(addresses: tuple[str, ...]) -> Iterator[None]:
    """New connections of this thread go to one of these numeric addresses, whatever the name of the host is then.

    TLS still verifies the name. Connections to a proxy are not affected: `requests` makes them by other classes.
    """
    token = _addresses.set(addresses)
    try:
        yield
    finally:
        _addresses.reset(token)


def has_proxy(url: str) -> bool:
    """Whether the environment names a proxy for this address."""
    return bool(requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url)))


class _Connection(urllib3.connection.HTTPConnection):
    """Connects as `connecting_to` says, and applies the read timeout to a response's whole head, not to each byte."""

    def _new_conn(self) -> socket.socket:
        addresses, name = _addresses.get(), self._dns_host
        if not addresses:
            return super()._new_conn()
        problem: urllib3.exceptions.HTTPError | None = None
        for address in addresses:
            try:
                self._dns_host = address
                return super()._new_conn()
            except urllib3.exceptions.HTTPError as error:
                problem = error
            finally:
                self._dns_host = name
        assert problem
        raise problem

    def getresponse(self) -> urllib3.response.HTTPResponse:  # type: ignore[override]  # as urllib3 declares it
        started, limit = time.monotonic(), float(self.timeout or 0)
        try:
            # `socket.socket.shutdown` also under TLS, where the subclass would wait for the peer.
            with shut_down_after(limit, partial(socket.socket.shutdown, self.sock, socket.SHUT_RDWR)):
                return super().getresponse()
        finally:
            if time.monotonic() - started > limit:  # a truncated head parses as a complete one
                raise TimeoutError


class _SecureConnection(_Connection, urllib3.connection.HTTPSConnection):
    pass


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class Session(requests.Session):
    """Sends our headers over connections with a bounded head, and never follows a redirect by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.headers.update({"User-Agent": f"taxi_platform/{__version__}", "Accept-Encoding": "identity"})
        for scheme in ("http://", "https://"):
            adapter = requests.adapters.HTTPAdapter()
            adapter.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
            self.mount(scheme, adapter)

    def get_redirect_target(self, resp: requests.Response) -> None:
        """None, because requests would read the whole body of a redirect and follow it unchecked."""


@contextmanager
def network_errors(url: str) -> Iterator[None]:
    """Turn errors of requests and urllib3 into `SourceRefused` or `SourceUnavailable`.

    Their own messages contain the query, which may be secret, and are left out.
    """
    try:
        yield
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, UnicodeError) as error:
        raise SourceRefused(f"{redact(url)} is not a valid address ({type(error).__name__}).", CHECK) from None
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise SourceUnavailable(f"{redact(url)} did not answer or broke off: {_reason(error)}.", OFFLINE) from None


def _reason(error: BaseException) -> str:
    """The operating system's reason at the root of the error, otherwise the error's type."""
    cause: BaseException | None = error
    while cause:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


def retry_after(response: requests.Response) -> float:
    """The seconds that the server asks us to wait, 0 if it does not."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return 0.0
