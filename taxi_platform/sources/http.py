"""Months published on the web: the TLC's own files, the course's mirror, or any address with a month in it.

Servers fail in many ways, so every answer is put into one of four classes: not published, busy (tried again), final,
or bytes that are no trips. What is fetched is hashed, recognised and counted while it arrives.
"""

from __future__ import annotations

import email.utils
import ipaddress
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from http.client import responses
from pathlib import Path
from typing import BinaryIO, TypeVar
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

import requests
import tenacity
import urllib3

from taxi_platform import __version__
from taxi_platform.sources.base import FetchedFile, Progress, Publication, Source
from taxi_platform.trips.errors import NotData, NotPublished, SourceRefused, SourceUnavailable
from taxi_platform.trips.files import Inspector, received
from taxi_platform.trips.months import DatasetMonth

T = TypeVar("T")
CHUNK_BYTES = 256 << 10
ERROR_BODY_BYTES = 4 << 10
MAX_SHOWN = 1000
"""The longest address, in characters without its query, that a redirect may lead to."""
LATER = "Try again later."
OFFLINE = "Try again later, or check the network here; TAXI_SOURCE_URL=sample:// needs none."
CHECK = "Check TAXI_SOURCE_URL."


class Busy(SourceUnavailable):
    """The source asks for patience, possibly for a time it names."""

    def __init__(self, problem: str, wait: float = 0) -> None:
        super().__init__(problem, LATER)
        self.wait = wait


class _NotThere(Exception):
    """The server says that it has no such file."""


@contextmanager
def _cut_after(seconds: float, shutdown: Callable[[], object]) -> Iterator[None]:
    """Shut a connection down that keeps us for longer.

    Inside a head, a chunk's size or a trailer a byte now and then resets the read timeout, and returns to nobody who
    could measure it; 100 Continue may come for ever.
    """

    def cut() -> None:
        with suppress(OSError, RuntimeError, ValueError):  # closed in this moment
            shutdown()

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class _Connection(urllib3.connection.HTTPConnection):
    """Takes the read timeout for an answer's whole head, not for each of its bytes."""

    def getresponse(self) -> urllib3.response.HTTPResponse:  # type: ignore[override]  # as urllib3 has it
        started, limit = time.monotonic(), float(self.timeout or 0)
        try:
            # The plain socket's own shutdown, also under TLS.
            with _cut_after(limit, partial(socket.socket.shutdown, self.sock, socket.SHUT_RDWR)):
                return super().getresponse()
        finally:
            if time.monotonic() - started > limit:  # a head that was cut looks like a whole one
                raise TimeoutError


class _SecureConnection(_Connection, urllib3.connection.HTTPSConnection):
    pass


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


class _Session(requests.Session):
    def __init__(self) -> None:
        super().__init__()
        for scheme in ("http://", "https://"):
            self.mount(scheme, adapter := requests.adapters.HTTPAdapter())
            adapter.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Never: requests would read the whole body of a redirect, and follow it unchecked."""


def redact(url: str) -> str:
    """The address without what may be secret: user, password, query and fragment."""
    try:
        parts = urlsplit(url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:
        return "(an address that cannot be read)"


def file_name(url: str, otherwise: str) -> str:
    """The last part of the address as a safe name of at most 128 characters, its ending kept."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", unquote(urlsplit(url).path.rpartition("/")[2]))
    return name[-128:].lstrip(".") or otherwise


def network_kinds(host: str) -> set[str]:
    """What is not public about the host's addresses: `loopback`, `link_local`, `private` and so on.

    Empty where all are public, and where the name is unknown here: then only a proxy can reach it.
    """
    try:
        found = {ipaddress.ip_address(str(info[4][0]).partition("%")[0]) for info in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return set()
    kinds = ("loopback", "link_local", "unspecified", "multicast", "private", "reserved")
    addresses = {getattr(address, "ipv4_mapped", None) or address for address in found}
    return {
        next((kind for kind in kinds if getattr(address, f"is_{kind}")), "shared")
        for address in addresses
        if not address.is_global or address.is_multicast
    }


@dataclass(frozen=True)
class HttpSource(Source):
    """Months at `template`, an http(s) address with `{dataset}` and `{month}`. Times in seconds, sizes in bytes."""

    template: str
    connect_timeout: float = 10
    read_timeout: float = 30
    deadline: float = 2 * 3600
    """For one month in all, waiting between attempts included."""
    min_rate: float = 1024
    """Bytes per second, averaged over each `rate_window`."""
    rate_window: float = 60
    max_bytes: int = 8 << 30
    max_redirects: int = 5
    attempts: int = 5
    stat_attempts: int = 3
    backoff: float = 2
    """The wait before the second attempt; each further one is three times as long, and jittered."""
    max_wait: float = 120
    """The longest wait between attempts, also where the server asks for more."""
    pause: Callable[[], None] = lambda: None
    """Called before a month is asked about."""
    session: requests.Session = field(default_factory=_Session, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.session.headers.update({"User-Agent": f"taxi_platform/{__version__}", "Accept-Encoding": "identity"})

    def __repr__(self) -> str:
        return f"HttpSource({redact(self.template)!r})"

    def url(self, dataset_month: DatasetMonth) -> str:
        return self.template.replace("{dataset}", dataset_month.dataset).replace("{month}", str(dataset_month.month))

    def for_polling(self, pause: Callable[[], None]) -> Source:
        return replace(self, stat_attempts=1, connect_timeout=5, read_timeout=10, pause=pause)

    def stat(self, dataset_month: DatasetMonth) -> Publication | None:
        self.pause()
        try:
            return self._tried(self.stat_attempts, lambda: self._stat(self.url(dataset_month)))
        except _NotThere:
            return None

    def fetch(
        self, dataset_month: DatasetMonth, folder: Path, progress: Progress = lambda done, total: None
    ) -> FetchedFile:
        url = self.url(dataset_month)
        name = file_name(url, dataset_month.stem)
        with received(folder, name) as part:
            try:
                with part.open("wb") as file:
                    transfer = _Transfer(self, url, file, progress)
                    self._tried(self.attempts, transfer.run)
                found = transfer.inspector.finish(part)
            except _NotThere:
                raise NotPublished(f"{dataset_month} is not published at {redact(url)}.", LATER) from None
            except NotData as error:
                raise NotData(f"{redact(url)}: {error.problem}", error.remedy) from error
        assert transfer.publication is not None
        return FetchedFile(folder / name, transfer.publication, found.size, found.sha256, found.rows, found.plain)

    def _stat(self, url: str) -> Publication:
        with self.answer("HEAD", url, {}) as head:
            if head.status_code not in (403, 405, 501):
                self.check(head, url)
                return publication(head, url)
        # No body tells why it is forbidden, and an address signed for GET forbids HEAD: ask for the first byte.
        with self.answer("GET", url, {"Range": "bytes=0-0"}) as first_byte:
            self.check(first_byte, url)
            return publication(first_byte, url)

    def _tried(self, attempts: int, work: Callable[[], T]) -> T:
        back_off = tenacity.wait_exponential(self.backoff, exp_base=3, max=self.max_wait)
        jitter = tenacity.wait_random(0, self.backoff)

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.wait if isinstance(error, Busy) else 0
            return min(self.max_wait, max(asked, back_off(state)) + jitter(state))

        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(SourceUnavailable),
            stop=tenacity.stop_after_attempt(attempts) | tenacity.stop_before_delay(self.deadline),
            wait=wait,
            reraise=True,
        )(work)

    @contextmanager
    def answer(self, method: str, url: str, headers: dict[str, str]) -> Iterator[requests.Response]:
        """The server's answer after all redirects, its body still to be read; every hop is checked."""
        for _ in range(self.max_redirects + 1):
            with (
                network_errors(url),
                self.session.request(
                    method,
                    url,
                    headers=headers,
                    stream=True,
                    allow_redirects=False,
                    timeout=(self.connect_timeout, self.read_timeout),
                ) as response,
            ):
                if response.status_code not in (301, 302, 303, 307, 308):
                    yield response
                    return
                url = self._next_hop(url, response.headers.get("Location", ""))
        raise SourceRefused(f"{redact(url)} is redirected more than {self.max_redirects} times.", CHECK)

    def _next_hop(self, url: str, location: str) -> str:
        try:
            target = urlsplit(urljoin(url, location))
            host, before, shown = target.hostname, urlsplit(url), redact(target.geturl())
        except ValueError:
            host = None
        if not location or not host or len(shown) > MAX_SHOWN or not shown.isprintable():
            raise SourceRefused(f"{redact(url)} redirects to no readable address.", CHECK)
        shown = f"{redact(url)} redirects to {shown}"
        if target.scheme not in ("http", "https") or (before.scheme == "https" and target.scheme == "http"):
            raise SourceRefused(f"{shown}: only https may follow https, and http or https http.", CHECK)
        # Inside a private network redirects may stay in it, but a link-local address never follows a loopback one.
        allowed = network_kinds(urlsplit(self.template).hostname or "")
        if found := network_kinds(host) - allowed:
            raise SourceRefused(f"{shown}, a {' and '.join(sorted(found))} address, which is blocked.", CHECK)
        return target.geturl()

    def check(self, response: requests.Response, url: str) -> None:
        """Return for a success; raises `_NotThere`, `Busy` or `SourceRefused` for the other answers."""
        status = response.status_code
        if status in (200, 206):
            return
        # The reason in words is our own: the server's may be 64 KiB, and drive a terminal.
        problem = f"{redact(url)} answered {status} {responses.get(status, '')}".rstrip() + "."
        if status == 404:
            raise _NotThere
        if status == 403:
            # S3 answers 403 and XML for what is not there; a rate limit answers 403 and HTML.
            body = b"".join(self.body(response, ERROR_BODY_BYTES))[:ERROR_BODY_BYTES].lower()
            if b"accessdenied" in body or b"nosuchkey" in body:
                raise _NotThere
        if status in (403, 429) or status >= 500:
            raise Busy(problem, retry_after(response))
        raise SourceRefused(problem, CHECK)

    def body(self, response: requests.Response, at_most: int, deadline: float | None = None) -> Iterator[bytes]:
        """The body as published (undecoded), as it arrives, until `at_most` bytes; raises `SourceUnavailable`."""
        started = window_start = time.monotonic()
        deadline = deadline or started + self.deadline
        done = in_window = 0
        try:
            with _cut_after(deadline - started, response.raw.shutdown):
                # `read1` returns what has arrived, so that a drip of bytes comes back here to be measured.
                while done < at_most and (chunk := response.raw.read1(CHUNK_BYTES, decode_content=False)):
                    done += len(chunk)
                    in_window += len(chunk)
                    yield chunk
                    now = time.monotonic()
                    if now > deadline:
                        break
                    if now - window_start > self.rate_window:
                        if in_window < self.min_rate * (now - window_start):
                            raise Busy(f"{redact(response.url)} sends less than {self.min_rate:g} bytes per second.")
                        window_start, in_window = now, 0
        except urllib3.exceptions.HTTPError:
            if time.monotonic() <= deadline:
                raise
        if time.monotonic() > deadline:
            raise Busy(f"{redact(response.url)} did not send all within the deadline.")


class _Transfer:
    """One file on its way, over as many attempts as it takes; each goes on where the last one broke off."""

    def __init__(self, source: HttpSource, url: str, file: BinaryIO, progress: Progress) -> None:
        self.source, self.url, self.file, self.progress = source, url, file, progress
        self.deadline = time.monotonic() + source.deadline
        self.publication: Publication | None = None
        self._start_afresh()

    def _start_afresh(self) -> None:
        self.file.seek(0)
        self.file.truncate()
        self.inspector = Inspector()

    def run(self) -> None:
        done = self.inspector.size
        headers = {}
        if done and self.publication and (validator := resume_validator(self.publication)):
            headers = {"Range": f"bytes={done}-", "If-Range": validator}
        with self.source.answer("GET", self.url, headers) as response:
            resumed = response.headers.get("Content-Range", "").startswith(f"bytes {done}-")
            if headers and response.status_code == 416:
                self._start_afresh()
                raise Busy(f"{redact(self.url)} became shorter while it was fetched.")
            self.source.check(response, self.url)
            now, before = publication(response, self.url), self.publication
            if response.status_code == 206 and not (headers and resumed and before and now.version == before.version):
                self._start_afresh()
                raise Busy(f"{redact(self.url)} changed while it was fetched.")
            if response.status_code == 200:
                self._start_afresh()
            self.publication = now
            self._receive(response, now.size)

    def _receive(self, response: requests.Response, expected: int | None) -> None:
        limit = self.source.max_bytes
        if (expected or 0) > limit:
            raise NotData(f"The file has {expected:,} bytes.", f"At most {limit:,} are fetched.")
        for chunk in self.source.body(response, limit + 1, self.deadline):
            self.inspector.feed(chunk)
            self.file.write(chunk)
            self.progress(self.inspector.size, expected)
            if self.inspector.size > limit:
                raise NotData(f"The file has more than {limit:,} bytes.", "No more are fetched.")
        if expected is not None and self.inspector.size != expected:
            raise Busy(f"{redact(self.url)} sent {self.inspector.size:,} of {expected:,} bytes.")


def publication(response: requests.Response, url: str) -> Publication:
    """What the headers of a successful answer say about the whole file."""
    headers = response.headers
    length = headers.get("Content-Length", "")
    if response.status_code == 206:
        length = headers.get("Content-Range", "").rpartition("/")[2]
    etag, modified = headers.get("ETag"), headers.get("Last-Modified")
    version = etag or " ".join(filter(None, (modified, length))) or "unknown"
    size = int(length) if re.fullmatch(r"[0-9]{1,19}", length) else None
    return Publication(redact(url), version, size, etag, modified)


def resume_validator(publication: Publication) -> str | None:
    """What `If-Range` may carry; a weak ETag may not (RFC 9110, 13.1.5)."""
    etag = publication.etag
    return etag if etag and not etag.startswith("W/") else publication.last_modified


def retry_after(response: requests.Response) -> float:
    """The seconds the server asks to wait, 0 where it does not."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return 0.0


@contextmanager
def network_errors(url: str) -> Iterator[None]:
    """Turn what requests and urllib3 raise into our errors; their own texts hold the query and are left out."""
    try:
        yield
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, UnicodeError) as error:
        raise SourceRefused(f"{redact(url)} is no address ({type(error).__name__}).", CHECK) from None
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise SourceUnavailable(f"{redact(url)} did not answer or broke off: {_reason(error)}.", OFFLINE) from None


def _reason(error: BaseException) -> str:
    cause: BaseException | None = error
    while cause:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__
