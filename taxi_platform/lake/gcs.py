"""The lake as a bucket of Google Cloud Storage: generations decide who may replace what, checksums what arrived."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import google_crc32c
import requests
from google.api_core import exceptions as api
from google.api_core.retry import Retry
from google.auth import exceptions as auth
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption
from google.cloud.storage.fileio import BlobReader
from google.cloud.storage.retry import DEFAULT_RETRY

from taxi_platform.lake.base import ANY_VERSION, NEW, Lake, StoredObject
from taxi_platform.trips.errors import Conflict, IntegrityError, LakeBusy, LakeError
from taxi_platform.trips.faults import fault_point
from taxi_platform.trips.plan import Change

CHUNK_BYTES = 8 * 1024 * 1024
"""Of an upload: what memory holds, and what a retry sends again."""

READ_AHEAD_BYTES = 256 * 1024
"""Of an open object: a month's Parquet footer, or its first rows, in one request."""

TIMEOUT_SECONDS = (10, 60)
"""To connect, and of silence."""

OVERWRITE_ATTEMPTS = 5


class GCSLake(Lake):
    """Objects as blobs under a prefix of a bucket; an object's version is its generation."""

    def __init__(self, client: storage.Client, bucket: str, prefix: str = "", retry: Retry = DEFAULT_RETRY) -> None:
        self.client = client
        self.bucket = client.bucket(bucket)
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.url = f"gs://{bucket}/{self.prefix}".rstrip("/")
        self._options: dict[str, Any] = {"timeout": TIMEOUT_SECONDS, "retry": retry}

    def stat(self, key: str) -> StoredObject | None:
        blob = self._there(key)
        return _stored(key, blob) if blob else None

    def read(self, key: str) -> tuple[bytes, StoredObject] | None:
        if (blob := self._there(key)) is None:
            return None
        stored = _stored(key, blob)  # a download changes what the blob says of itself
        with explained("read", self.uri(key)):
            return blob.download_as_bytes(**self._reading(blob)), stored

    def open(self, key: str) -> BinaryIO:
        blob = self._existing(key)
        reader = _Reader(partial(explained, "read", self.uri(key)), blob, READ_AHEAD_BYTES, **self._reading(blob))
        return cast(BinaryIO, reader)

    def write(self, key: str, data: bytes, if_version: str = ANY_VERSION) -> StoredObject:
        return self._store(key, io.BytesIO(data), if_version)

    def upload(self, key: str, path: Path, if_version: str = ANY_VERSION) -> StoredObject:
        with path.open("rb") as file:
            return self._store(key, file, if_version)

    def delete(self, key: str, if_version: str = ANY_VERSION) -> None:
        condition = {} if if_version == ANY_VERSION else {"if_generation_match": int(if_version)}
        with explained("delete", self.uri(key)), suppress(api.NotFound, api.PreconditionFailed):
            self.bucket.delete_blob(self.prefix + key, **condition, **self._options)

    def list(self, prefix: str) -> list[str]:
        with explained("list", self.uri(prefix)):
            blobs = self.client.list_blobs(self.bucket, prefix=self.prefix + prefix, **self._options)
            return sorted(blob.name.removeprefix(self.prefix) for blob in blobs)

    @contextmanager
    def local_copy(self, key: str, folder: Path) -> Iterator[Path]:
        blob = self._existing(key)
        expected, path = (blob.size, blob.crc32c), folder / key.replace("/", "~")
        try:
            with explained("read", self.uri(key)):
                blob.download_to_filename(str(path), checksum=None, **self._reading(blob))
                with path.open("rb") as file:
                    arrived = _measured(file)
            if arrived != expected:
                raise IntegrityError(
                    f"{self.uri(key)} arrived as {arrived} instead of {expected} (bytes and CRC32C).",
                    "Materialize again; if it stays so, also the asset that makes this object.",
                )
            yield path
        finally:
            path.unlink(missing_ok=True)

    def plan(self) -> Iterator[Change]:
        with explained("read", self.url):
            found = self.client.lookup_bucket(self.bucket.name, **self._options)
        yield Change(f"bucket {self.bucket.name}", found is None, self._make_bucket)

    def _make_bucket(self) -> None:
        """In Google's default location; make it yourself for another one."""
        project = self.client.project or os.environ.get("GOOGLE_CLOUD_PROJECT")
        if not project and not os.environ.get("STORAGE_EMULATOR_HOST"):
            raise LakeError(
                f"The bucket {self.bucket.name} is to be made, but in which project?",
                "Set GOOGLE_CLOUD_PROJECT, or make the bucket yourself.",
            )
        with explained("create", self.url), suppress(api.Conflict):
            self.client.create_bucket(self.bucket, project=project or "emulator", **self._options)

    def _there(self, key: str) -> storage.Blob | None:
        with explained("read", self.uri(key)):
            return self.bucket.get_blob(self.prefix + key, **self._options)

    def _existing(self, key: str) -> storage.Blob:
        if (blob := self._there(key)) is None:
            raise self.missing(key)
        return blob

    def _holding(self, key: str, sent: tuple[int, str]) -> StoredObject | None:
        """The object, if it is what we sent."""
        blob = self._there(key)
        return _stored(key, blob) if blob and (blob.size, blob.crc32c) == sent else None

    def _reading(self, blob: storage.Blob) -> dict[str, Any]:
        """Read this generation only, so that no range comes from another, and its bytes as they are stored."""
        return {"if_generation_match": blob.generation, "raw_download": True, **self._options}

    def _store(self, key: str, data: BinaryIO, if_version: str) -> StoredObject:
        """Upload where the version still holds, then look at what is there: that alone tells whose bytes won.

        Always under a precondition, which makes the client's own retries safe: after a lost answer a retry meets what
        it stored itself and is refused, though it has won.
        """
        sent = _measured(data)
        for _ in range(OVERWRITE_ATTEMPTS if if_version == ANY_VERSION else 1):
            if if_version == ANY_VERSION:
                there = self.stat(key)
                expected = there.version if there else NEW
            else:
                expected = if_version
            blob = self.bucket.blob(self.prefix + key, chunk_size=CHUNK_BYTES)
            blob.crc32c = sent[1]  # the server refuses other bytes
            data.seek(0)
            with explained("write", self.uri(key)):
                try:
                    condition = {"if_generation_match": int(expected or 0)}
                    blob.upload_from_file(data, size=sent[0], checksum=None, **condition, **self._options)
                    fault_point("uploaded")
                except api.PreconditionFailed:
                    pass
                except api.NotFound:  # no bucket; or no longer an upload in chunks, because it was complete
                    if not self._holding(key, sent):
                        raise
            if stored := self._holding(key, sent):
                return stored
        raise Conflict(f"{self.uri(key)} was replaced by another run.", "Run the month again.")


def connect(url: str, client: storage.Client | None = None) -> GCSLake:
    """The lake at `gs://bucket/prefix`, by this client or one with the credentials of the environment."""
    bucket, _, prefix = url.removeprefix("gs://").partition("/")
    with explained("open", url):
        return GCSLake(client or storage.Client(project=None), bucket, prefix)  # objects need no project, buckets do


class _Reader(BlobReader):
    """A seekable stream over ranges of a blob, with the lake's own errors."""

    def __init__(self, explain: Callable[[], AbstractContextManager[None]], *blob: Any, **options: Any) -> None:
        super().__init__(*blob, **options)
        self._explain = explain

    def read(self, size: int = -1) -> bytes:
        with self._explain():
            return cast(bytes, super().read(size))


@contextmanager
def explained(action: str, uri: str) -> Iterator[None]:
    """Turn what Google's client raises into the lake's errors."""
    problem = f"Cannot {action} {uri}"
    try:
        yield
    except (api.NotFound, api.PreconditionFailed) as error:
        if action == "read":  # it was there a moment ago
            raise Conflict(f"{uri} was replaced while it was read.", "Run the month again.") from error
        raise LakeError(f"{problem}: there is no such bucket.", "Create it, or correct TAXI_LAKE_URL.") from error
    except api.Forbidden as error:
        remedy = "Grant the account roles/storage.objectUser on the bucket that TAXI_LAKE_URL names."
        raise LakeError(f"{problem}: permission is missing ({error.message}).", remedy) from error
    except (api.Unauthorized, auth.DefaultCredentialsError, auth.RefreshError) as error:
        remedy = "Run `gcloud auth application-default login`, or give the machine a service account."
        raise LakeError(f"{problem}: no Google credentials are accepted for TAXI_LAKE_URL.", remedy) from error
    except DataCorruption as error:
        raise IntegrityError(f"{uri} does not have the checksum it was stored with.", "Run the month again.") from error
    except (
        api.TooManyRequests,
        api.ServerError,
        api.RetryError,
        auth.TransportError,
        requests.RequestException,
        ConnectionError,
        TimeoutError,
    ) as error:
        raise LakeBusy(f"{problem}: Google Cloud Storage does not answer ({error}).", "Try again later.") from error
    except api.GoogleAPICallError as error:
        raise LakeError(f"{problem}: {error.message}.", "Check TAXI_LAKE_URL.") from error
    except OSError as error:
        raise LakeError(f"{problem}: {error.strerror or error}.", "Check the disk that TAXI_HOME is on.") from error


def _stored(key: str, blob: storage.Blob) -> StoredObject:
    return StoredObject(key, int(blob.size or 0), str(blob.generation))


def _measured(data: BinaryIO) -> tuple[int, str]:
    """Size in bytes and CRC32C as Google writes it; 4 GB take a second."""
    checksum, size = google_crc32c.Checksum(), 0
    data.seek(0)
    while block := data.read(CHUNK_BYTES):
        checksum.update(block)
        size += len(block)
    return size, base64.b64encode(checksum.digest()).decode()
