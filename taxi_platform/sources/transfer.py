"""One file from the web, over several attempts, and the proof that it is what the source has.

A transfer that breaks off goes on where it did, if the server can prove that the file is still the same. A complete one
is compared with what the server says about the file afterwards, and with the MD5 that it sends along. What is in doubt
is downloaded once more: twice the same bytes are what the source has, even if they are damaged.
"""

from __future__ import annotations

import base64
import email.utils
import hashlib
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import requests

from taxi_platform.sources.addresses import redact
from taxi_platform.sources.base import Progress, Publication
from taxi_platform.trips.errors import DamagedRaw, NotData, SourceUnavailable
from taxi_platform.trips.files import InspectedFile, Inspector

if TYPE_CHECKING:
    from taxi_platform.sources.http import HttpSource

LATER = "Try again later."
MD5 = "[A-Za-z0-9+/]{22}=="
OTHER_BYTES_EACH_TIME = "Check what lies between this machine and the source, such as a proxy, and try again later."


class Busy(SourceUnavailable):
    """The source asks us to wait, possibly for `wait` seconds that it names."""

    def __init__(self, problem: str, wait: float = 0) -> None:
        super().__init__(problem, LATER)
        self.wait = wait


class Unsteady(SourceUnavailable):
    """What was downloaded is not what the source describes, twice. A third download at once would not help."""


class Changed(Unsteady):
    """The source described another version after the download than with it."""


class NotFound(Exception):
    """The server answers that it has no such file."""


class Transfer:
    """The transfer of the file at `url` into `file`, which is open at `path`.

    `run` is called until it no longer raises. Then `publication` and `content` describe the file.
    """

    def __init__(self, source: HttpSource, url: str, file: BinaryIO, path: Path, progress: Progress) -> None:
        self.source, self.url, self.file, self.path, self.progress = source, url, file, path, progress
        self.deadline = time.monotonic() + source.deadline
        self.publication: Publication | None = None
        self.content: InspectedFile | None = None
        self._doubted: str | None = None
        """The sha256 of an earlier complete download that was in doubt."""
        self._start_over()

    def _start_over(self) -> None:
        self.file.seek(0)
        self.file.truncate()
        self.inspector = Inspector()
        self._complete = False
        self._damage: DamagedRaw | None = None
        self._validator: str | None = None
        self._announced_md5, self._md5 = "", hashlib.md5(usedforsecurity=False)

    def run(self) -> None:
        """Make one attempt; raises `SourceUnavailable` if another one may help."""
        if not self._complete:
            self._download()
            self._finish()
        if doubt := self._doubt():
            self._decide(doubt)

    def _download(self) -> None:
        done, headers = self.inspector.size, {}
        if done and self.publication and self._validator:
            headers = {"Range": f"bytes={done}-", "If-Range": self._validator}
        with self.source.answer("GET", self.url, headers) as response:
            resumed = response.headers.get("Content-Range", "").startswith(f"bytes {done}-")
            if headers and response.status_code == 416:
                self._start_over()
                raise Busy(f"{redact(self.url)} became shorter while it was fetched.")
            self.source.check(response, self.url)
            current, before = publication(response, self.url), self.publication
            if response.status_code == 206 and not (
                headers and resumed and before and current.version == before.version and agree(current, before)
            ):
                self._start_over()
                raise Busy(f"{redact(self.url)} changed while it was fetched.")
            if response.status_code == 200:
                self._start_over()
                self._validator = resume_validator(response)
                self._announced_md5 = announced_md5(response)
            self.publication = current
            self._receive(response, current.size)

    def _receive(self, response: requests.Response, expected: int | None) -> None:
        limit = self.source.max_bytes
        if (expected or 0) > limit:
            raise NotData(f"The file has {expected:,} bytes.", f"The limit is {limit:,} bytes.")
        for chunk in self.source.body(response, limit + 1, self.deadline):
            self.inspector.feed(chunk)
            self.file.write(chunk)
            if self._announced_md5:
                self._md5.update(chunk)
            self.progress(self.inspector.size, expected)
            if self.inspector.size > limit:
                raise NotData(f"The file has more than {limit:,} bytes.", "That is the limit.")
        if expected is not None and self.inspector.size != expected:
            raise Busy(f"{redact(self.url)} sent {self.inspector.size:,} of {expected:,} bytes.")

    def _finish(self) -> None:
        self.file.flush()
        try:
            self.content = self.inspector.finish(self.path)
        except DamagedRaw as error:
            self._damage = error
        self._complete = True

    def _doubt(self) -> Unsteady | DamagedRaw | None:
        """What speaks against the complete download, which may also be a server that describes its file wrongly."""
        shown, size = redact(self.url), self.inspector.size
        assert self.publication is not None
        try:
            after = self.source.describe(self.url)
        except NotFound:
            return Changed(f"{shown} disappeared while it was fetched.", LATER)
        if after.size and after.size > size:
            return Unsteady(f"{shown} sent {size:,} bytes, and announces {after.size:,}.", LATER)
        if not agree(after, self.publication) or after.size not in (None, 0, size):
            return Changed(f"{shown} changed while it was fetched.", LATER)
        if self._announced_md5 and self._announced_md5 != base64.b64encode(self._md5.digest()).decode():
            return Unsteady(f"{shown} does not have the MD5 that the server sends with it.", OTHER_BYTES_EACH_TIME)
        self.publication = after  # as `stat` describes it, or the month would count as republished
        return self._damage

    def _decide(self, doubt: Unsteady | DamagedRaw) -> None:
        """Have a doubtful file downloaded once more; the second time, judge by both downloads."""
        earlier, self._doubted = self._doubted, self.inspector.sha256
        if earlier is None:
            self._start_over()
            raise Busy(doubt.problem)
        is_same = earlier == self._doubted
        if isinstance(doubt, DamagedRaw):
            if is_same:
                problem = f"{doubt.problem} Two downloads are the same: the published file itself is damaged."
                raise DamagedRaw(problem, "Tell the publisher.")
            raise Unsteady(f"{redact(self.url)}: two downloads differ. {doubt.problem}", OTHER_BYTES_EACH_TIME)
        if isinstance(doubt, Changed) and is_same and self.content:
            return  # its headers change, its bytes do not
        raise doubt


def publication(response: requests.Response, url: str) -> Publication:
    """The publication that a successful response's headers describe: of the whole file, also if the body is a part."""
    headers = response.headers
    length = headers.get("Content-Length", "")
    if response.status_code == 206:
        length = headers.get("Content-Range", "").rpartition("/")[2]
    etag, modified = headers.get("ETag"), headers.get("Last-Modified")
    version = etag or " ".join(filter(None, (modified, length))) or "unknown"
    size = int(length) if re.fullmatch(r"[0-9]{1,19}", length) else None
    return Publication(redact(url), version, size, etag, modified)


def agree(one: Publication, other: Publication) -> bool:
    """Whether both may describe the same bytes: what both tell is equal. ETags decide over dates."""
    if one.size and other.size and one.size != other.size:
        return False
    if one.etag and other.etag:
        return one.etag.removeprefix("W/") == other.etag.removeprefix("W/")
    return not (one.last_modified and other.last_modified) or one.last_modified == other.last_modified


def resume_validator(response: requests.Response) -> str | None:
    """The value for `If-Range`, None if there is none: it has to be a strong validator (RFC 9110, 13.1.5).

    A date is strong if the response is at least a second younger: then no later change has the same date.
    """
    etag, modified = response.headers.get("ETag"), response.headers.get("Last-Modified")
    if etag and not etag.startswith("W/"):
        return etag
    try:
        changed, sent = (
            email.utils.parsedate_to_datetime(text or "").timestamp()
            for text in (modified, response.headers.get("Date"))
        )
    except (TypeError, ValueError, OverflowError):
        return None
    return modified if sent - changed >= 1 else None


def announced_md5(response: requests.Response) -> str:
    """The MD5 of the body as base64, from `Content-MD5` or Google's `x-goog-hash`; empty if there is none."""
    headers = response.headers
    if re.fullmatch(MD5, md5 := headers.get("Content-MD5", "").strip()):
        return md5
    # Google's is of the stored bytes, which it unpacks for clients that do not accept gzip.
    if headers.get("x-goog-stored-content-encoding", "identity") not in ("identity", headers.get("Content-Encoding")):
        return ""
    found = re.search(rf"(?:\A|[,\s])md5=({MD5})", headers.get("x-goog-hash", ""))
    return found[1] if found else ""
