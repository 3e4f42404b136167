"""Months published on the web: the TLC's own files, the course's mirror, or any address with a month in it.

Servers fail in many ways, so every answer falls into one of four classes: not published, busy (tried again), final, or
bytes that are not trips. Files are hashed, recognized and counted while they arrive.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.client import responses
from pathlib import Path
from typing import TypeVar

import requests
import tenacity
import urllib3

from taxi_platform.sources.addresses import CHECK, Hosts, file_name, next_hop, redact
from taxi_platform.sources.base import FetchedFile, Progress, Publication, Source
from taxi_platform.sources.http_connection import (
    Session,
    connecting_to,
    has_proxy,
    network_errors,
    retry_after,
    shut_down_after,
)
from taxi_platform.sources.transfer import LATER, Busy, NotFound, Transfer, Unsteady, publication
from taxi_platform.trips.errors import NotData, NotPublished, SourceRefused, SourceUnavailable
from taxi_platform.trips.files import received
from taxi_platform.trips.months import DatasetMonth

T = TypeVar("T")
CHUNK_BYTES = 256 << 10
ERROR_BODY_BYTES = 4 << 10


@dataclass(frozen=True)
class HttpSource(Source):
    """Months at `template`, an http(s) address with `{dataset}` and `{month}`. Times in seconds, sizes in bytes."""

    template: str
    connect_timeout: float = 10
    read_timeout: float = 30
    deadline: float = 2 * 3600
    """For one month in total, including the waits between attempts."""
    min_rate: float = 1024
    """Bytes per second, averaged over each `rate_window`."""
    rate_window: float = 60
    max_bytes: int = 8 << 30
    max_redirects: int = 5
    attempts: int = 5
    stat_attempts: int = 3
    backoff: float = 2
    """The wait before the second attempt; each later one is three times as long, plus jitter."""
    max_wait: float = 120
    """The longest wait between attempts, even if the server asks for more."""
    pause: Callable[[], None] = lambda: None
    """Called before each `stat`."""
    session: requests.Session = field(default_factory=Session, repr=False, compare=False)

    def __repr__(self) -> str:
        return f"HttpSource({redact(self.template)!r})"

    def url(self, dataset_month: DatasetMonth) -> str:
        """The month's address, which may contain secrets."""
        return self.template.replace("{dataset}", dataset_month.dataset).replace("{month}", str(dataset_month.month))

    def address(self, dataset_month: DatasetMonth) -> str:
        return redact(self.url(dataset_month))

    def for_polling(self, pause: Callable[[], None]) -> Source:
        return replace(self, stat_attempts=1, connect_timeout=5, read_timeout=10, pause=pause)

    def stat(self, dataset_month: DatasetMonth) -> Publication | None:
        self.pause()
        try:
            return self._retry(self.stat_attempts, lambda: self.describe(self.url(dataset_month)))
        except NotFound:
            return None

    def fetch(
        self, dataset_month: DatasetMonth, folder: Path, progress: Progress = lambda done, total: None
    ) -> FetchedFile:
        url = self.url(dataset_month)
        name = file_name(url, dataset_month.stem)
        with received(folder, name) as part:
            try:
                with part.open("wb") as file:
                    transfer = Transfer(self, url, file, part, progress)
                    self._retry(self.attempts, transfer.run)
            except NotFound:
                raise NotPublished(f"{dataset_month} is not published at {redact(url)}.", LATER) from None
            except NotData as error:
                raise type(error)(f"{redact(url)}: {error.problem}", error.remedy) from error
        content = transfer.content
        assert transfer.publication and content
        return FetchedFile(
            folder / name, transfer.publication, content.size, content.sha256, content.rows, content.plain
        )

    def describe(self, url: str) -> Publication:
        """The publication at an address; raises `NotFound`, `SourceUnavailable` or `SourceRefused`."""
        with self.answer("HEAD", url, {}) as head:
            if head.status_code not in (403, 405, 501):
                self.check(head, url)
                return publication(head, url)
        # HEAD has no body that says why it is forbidden, and an address signed for GET forbids HEAD: so GET one byte.
        with self.answer("GET", url, {"Range": "bytes=0-0"}) as first_byte:
            self.check(first_byte, url)
            return publication(first_byte, url)

    def _retry(self, attempts: int, work: Callable[[], T]) -> T:
        """Try `work` up to `attempts` times within the deadline, again after a `SourceUnavailable` but `Unsteady`."""
        back_off = tenacity.wait_exponential(self.backoff, exp_base=3, max=self.max_wait)
        jitter = tenacity.wait_random(0, self.backoff)

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            requested = error.wait if isinstance(error, Busy) else 0
            return min(self.max_wait, max(requested, back_off(state)) + jitter(state))

        return tenacity.Retrying(
            retry=tenacity.retry_if_exception(
                lambda error: isinstance(error, SourceUnavailable) and not isinstance(error, Unsteady)
            ),
            stop=tenacity.stop_after_attempt(attempts) | tenacity.stop_before_delay(self.deadline),
            wait=wait,
            reraise=True,
        )(work)

    @contextmanager
    def answer(self, method: str, url: str, headers: dict[str, str]) -> Iterator[requests.Response]:
        """The response after all redirects, with its body unread; every hop is checked before it is followed."""
        hosts = Hosts(url)
        addresses = () if has_proxy(url) else hosts.of_source()
        for _ in range(self.max_redirects + 1):
            with (
                network_errors(url),
                connecting_to(addresses),
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
                target = next_hop(url, response.headers.get("Location", ""))
                addresses = hosts.of_redirect(url, target, has_proxy(target))
                url = target
        raise SourceRefused(f"{redact(url)} is redirected more than {self.max_redirects} times.", CHECK)

    def check(self, response: requests.Response, url: str) -> None:
        """Return if the response is a success; raises `NotFound`, `Busy` or `SourceRefused` otherwise."""
        status = response.status_code
        if status in (200, 206):
            return
        # Our own reason phrase: the server's may be 64 KiB long and contain terminal control characters.
        problem = f"{redact(url)} answered {status} {responses.get(status, '')}".rstrip() + "."
        if status == 404:
            raise NotFound
        if status == 403:
            # S3 answers 403 with XML for a missing object; a rate limit answers 403 with HTML.
            body = b"".join(self.body(response, ERROR_BODY_BYTES))[:ERROR_BODY_BYTES].lower()
            if b"accessdenied" in body or b"nosuchkey" in body:
                raise NotFound
        if status in (403, 429) or status >= 500:
            raise Busy(problem, retry_after(response))
        raise SourceRefused(problem, CHECK)

    def body(self, response: requests.Response, at_most: int, deadline: float | None = None) -> Iterator[bytes]:
        """Yield the body undecoded, as it arrives, until at least `at_most` bytes; raises `SourceUnavailable`.

        `deadline` is a time of `time.monotonic()`; without one, the source's own deadline starts now.
        """
        started = window_start = time.monotonic()
        deadline = deadline or started + self.deadline
        done = in_window = 0
        try:
            with shut_down_after(deadline - started, response.raw.shutdown):
                # `read1` returns as soon as bytes have arrived, so that the rate of a slow server can be measured here.
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
            raise Busy(f"{redact(response.url)} did not send the whole file within the deadline.")
