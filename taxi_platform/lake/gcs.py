"""The lake as a bucket of Google Cloud Storage: generations guard every write, checksums every transfer."""

from __future__ import annotations

import base64
import io
import os
import re
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
from taxi_platform.lake.checksums import FileSum
from taxi_platform.trips.errors import Conflict, IntegrityError, LakeBusy, LakeError
from taxi_platform.trips.faults import fault_point
from taxi_platform.trips.plan import Change

CHUNK_BYTES = 8 * 1024 * 1024
"""Size of an upload's chunks: what is held in memory, and what a retry sends again."""

READ_AHEAD_BYTES = 256 * 1024
"""How much an open object reads at once: enough for a month's Parquet footer, or its first rows."""

TIMEOUT_SECONDS = (10, 60)
"""To connect, and between two bytes."""

OVERWRITE_ATTEMPTS = 5

os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
"""Otherwise Google's client asks for the bucket in a thread, to name its location in traces that nobody collects: once,
and again after each object that is not there."""


class GCSLake(Lake):
    """Objects as blobs under a prefix of a bucket; an object's version is its generation."""

    def __init__(self, client: storage.Client, bucket: str, prefix: str = "", retry: Retry = DEFAULT_RETRY) -> None:
        self.client = client
        self.bucket = client.bucket(bucket)
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self.url = f"gs://{bucket}/{self.prefix}".rstrip("/")
        self._options: dict[str, Any] = {"timeout": TIMEOUT_SECONDS, "retry": retry}

    def stat(self, key: str) -> StoredObject | None:
        if self._listed is not None:
            return self._listed.get(key)
        blob = self._get_blob(key)
        return _stored_object(key, blob) if blob else None

    def read(self, key: str) -> tuple[bytes, StoredObject] | None:
        blob = self.bucket.blob(self.prefix + key)
        with translated_errors("read", self.uri(key)):
            try:
                content = blob.download_as_bytes(raw_download=True, **self._options)
            except api.NotFound:
                return None
        arrived = _size_and_checksum(io.BytesIO(content))
        if (stored := self._downloaded(key, blob)).crc32c != arrived[1]:
            raise Conflict(f"{self.uri(key)} was replaced while it was read.", "Run the month again.")
        return content, StoredObject(key, len(content), str(stored.generation))

    def read_end(self, key: str, size: int) -> tuple[bytes, StoredObject] | None:
        if self._listed is not None and key not in self._listed:
            return None
        blob = _Blob(self.prefix + key, self.bucket)
        with translated_errors("read", self.uri(key)):
            try:
                content = blob.download_as_bytes(start=-size, raw_download=True, **self._options)
            except api.NotFound:
                return None
            except api.RequestRangeNotSatisfiable:  # an empty object has no end
                return b"", _stored_object(key, self._require_blob(key))
        whole = len(content) if blob.size is None else blob.size  # of a server that does not know ranges, it is all
        if len(content) == whole and blob.crc32c and blob.crc32c != _size_and_checksum(io.BytesIO(content))[1]:
            raise IntegrityError(f"{self.uri(key)} did not arrive as it is stored.", "Run the month again.")
        generation = blob.generation or self._require_blob(key).generation
        return content[-size:], StoredObject(key, whole, str(generation))

    def holds(self, key: str, expected: FileSum) -> bool:
        blob = self._get_blob(key)
        return blob is not None and blob.size == expected.size and expected.crc32c in ("", blob.crc32c)

    def open(self, key: str) -> BinaryIO:
        blob = self._require_blob(key)
        reader = _Reader(
            partial(translated_errors, "read", self.uri(key)), blob, READ_AHEAD_BYTES, **self._read_options(blob)
        )
        return cast(BinaryIO, reader)

    def write(self, key: str, content: bytes, if_version: str = ANY_VERSION) -> StoredObject:
        return self._store(key, io.BytesIO(content), if_version)

    def upload(self, key: str, path: Path, if_version: str = ANY_VERSION) -> StoredObject:
        with path.open("rb") as file:
            return self._store(key, file, if_version)

    def delete(self, key: str, if_version: str = ANY_VERSION) -> None:
        condition = {} if if_version == ANY_VERSION else {"if_generation_match": int(if_version)}
        with translated_errors("delete", self.uri(key)), suppress(api.NotFound, api.PreconditionFailed):
            self.bucket.delete_blob(self.prefix + key, **condition, **self._options)

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        with translated_errors("list", self.uri(prefix)):
            for blob in self.client.list_blobs(self.bucket, prefix=self.prefix + prefix, **self._options):
                yield _stored_object(blob.name.removeprefix(self.prefix), blob)

    def list_in_folders(self, prefix: str, folder: str) -> list[str]:
        below, options = self.prefix + prefix, {"match_glob": f"**/{folder}/**", **self._options}
        with translated_errors("list", self.uri(prefix)):
            blobs = self.client.list_blobs(self.bucket, prefix=below, **options)
            in_folder = re.compile(f"{re.escape(below)}[^/]+/{re.escape(folder)}/")
            return sorted(blob.name.removeprefix(self.prefix) for blob in blobs if in_folder.match(blob.name))

    def list(self, prefix: str) -> list[str]:
        with translated_errors("list", self.uri(prefix)):
            blobs = self.client.list_blobs(self.bucket, prefix=self.prefix + prefix, **self._options)
            return sorted(blob.name.removeprefix(self.prefix) for blob in blobs)

    def names(self, prefix: str) -> set[str]:
        with translated_errors("list", self.uri(prefix)):
            blobs = self.client.list_blobs(self.bucket, prefix=self.prefix + prefix, delimiter="/", **self._options)
            names = {blob.name for blob in blobs} | blobs.prefixes  # the latter are known once all were listed
            return {name.removeprefix(self.prefix + prefix).strip("/") for name in names} - {""}

    @contextmanager
    def local_copy(self, key: str, folder: Path) -> Iterator[Path]:
        blob, path = self.bucket.blob(self.prefix + key), folder / key.replace("/", "~")
        try:
            with translated_errors("read", self.uri(key)):
                try:
                    blob.download_to_filename(str(path), checksum=None, raw_download=True, **self._options)
                except api.NotFound:
                    raise self.missing(key) from None
                with path.open("rb") as file:
                    size, arrived = _size_and_checksum(file)
            if arrived != (expected := self._downloaded(key, blob).crc32c):
                raise IntegrityError(
                    f"{self.uri(key)} arrived as {size:,} bytes with CRC32C {arrived} instead of {expected}.",
                    "Materialize again. If it fails again, materialize the asset that writes this object first.",
                )
            yield path
        finally:
            path.unlink(missing_ok=True)

    def plan(self) -> Iterator[Change]:
        with translated_errors("read", self.url):
            bucket = self.client.lookup_bucket(self.bucket.name, **self._options)
        yield Change(f"bucket {self.bucket.name}", bucket is None, self._create_bucket)

    def _create_bucket(self) -> None:
        """Create the bucket in Google's default location; for another location create it yourself."""
        project = self.client.project or os.environ.get("GOOGLE_CLOUD_PROJECT")
        if not project and not os.environ.get("STORAGE_EMULATOR_HOST"):
            raise LakeError(
                f"The bucket {self.bucket.name} cannot be created: no project is named.",
                "Set GOOGLE_CLOUD_PROJECT, or create the bucket yourself.",
            )
        with translated_errors("create", self.url), suppress(api.Conflict):
            self.client.create_bucket(self.bucket, project=project or "emulator", **self._options)

    def _get_blob(self, key: str) -> storage.Blob | None:
        with translated_errors("read", self.uri(key)):
            return self.bucket.get_blob(self.prefix + key, **self._options)

    def _require_blob(self, key: str) -> storage.Blob:
        if (blob := self._get_blob(key)) is None:
            raise self.missing(key)
        return blob

    def _downloaded(self, key: str, blob: storage.Blob) -> storage.Blob:
        """What was downloaded into `blob`, with its version and checksum, which mostly came with the bytes.

        The answer that ends a download which was cut and resumed is about a range, and may not tell them.
        """
        return blob if blob.generation and blob.crc32c else self._require_blob(key)

    def _stored_if_same(self, key: str, sent: tuple[int, str]) -> StoredObject | None:
        """The object, if it has the size and checksum that were sent."""
        blob = self._get_blob(key)
        return _stored_object(key, blob) if blob and (blob.size, blob.crc32c) == sent else None

    def _read_options(self, blob: storage.Blob) -> dict[str, Any]:
        """Read only this generation, so that all ranges come from one object, and its bytes as they are stored."""
        return {"if_generation_match": blob.generation, "raw_download": True, **self._options}

    def _store(self, key: str, file: BinaryIO, if_version: str) -> StoredObject:
        """Upload if the version still holds; if that is refused, look at what is stored: it shows whose bytes won.

        The precondition makes the client's own retries safe. If a response was lost, the retry is refused because
        of the object that the first try stored, although the upload succeeded. An object that may have any version is
        mostly new, so that is tried before it is asked for its version; if there is one, it is written anew even if it
        has these bytes: each write makes another version.
        """
        sent = _size_and_checksum(file)
        expected = NEW if if_version == ANY_VERSION else if_version
        for attempt in range(OVERWRITE_ATTEMPTS if if_version == ANY_VERSION else 1):
            is_guess = if_version == ANY_VERSION and attempt == 0
            blob = self.bucket.blob(self.prefix + key, chunk_size=CHUNK_BYTES)
            blob.crc32c = sent[1]  # the server refuses bytes with another checksum
            file.seek(0)
            with translated_errors("write", self.uri(key)):
                try:
                    condition = {"if_generation_match": int(expected or 0)}
                    blob.upload_from_file(file, size=sent[0], checksum=None, **condition, **self._options)
                    fault_point("uploaded")
                    if (blob.size, blob.crc32c) == sent and blob.generation:  # as the answer says
                        return _stored_object(key, blob)
                except api.PreconditionFailed:
                    pass
                except api.NotFound:  # no bucket, or a retry of a chunked upload that was complete
                    if not self._stored_if_same(key, sent):
                        raise
            if not is_guess and (stored := self._stored_if_same(key, sent)):
                return stored
            current = self.stat(key) if if_version == ANY_VERSION else None
            expected = current.version if current else NEW
        raise Conflict(f"{self.uri(key)} was replaced by another run.", "Run the month again.")


def connect(url: str, client: storage.Client | None = None) -> GCSLake:
    """The lake at `gs://bucket/prefix`, with this client or one that uses the environment's credentials."""
    bucket, _, prefix = url.removeprefix("gs://").partition("/")
    with translated_errors("open", url):
        return GCSLake(client or storage.Client(project=None), bucket, prefix)  # only creating a bucket needs a project


class _Blob(storage.Blob):
    """Knows its size after a part of it was downloaded: of that answer, the client keeps all else."""

    def _extract_headers_from_download(self, response: requests.Response) -> None:
        super()._extract_headers_from_download(response)
        size = response.headers.get("Content-Range", "").rpartition("/")[2]
        self._properties["size"] = int(size) if size.isdecimal() else None


class _Reader(BlobReader):
    """A seekable stream over ranges of a blob that raises the lake's own errors."""

    def __init__(self, translated: Callable[[], AbstractContextManager[None]], *blob: Any, **options: Any) -> None:
        super().__init__(*blob, **options)
        self._translated_errors = translated

    def read(self, size: int = -1) -> bytes:
        with self._translated_errors():
            return cast(bytes, super().read(size))


@contextmanager
def translated_errors(action: str, uri: str) -> Iterator[None]:
    """Turn what Google's client raises into the lake's errors."""
    problem = f"Cannot {action} {uri}"
    try:
        yield
    except (api.NotFound, api.PreconditionFailed) as error:
        if action == "read":  # its metadata was read a moment ago
            raise Conflict(f"{uri} was replaced while it was read.", "Run the month again.") from error
        raise LakeError(f"{problem}: the bucket does not exist.", "Create it, or correct TAXI_LAKE_URL.") from error
    except api.Forbidden as error:
        remedy = "Grant the account roles/storage.objectUser on the bucket that TAXI_LAKE_URL names."
        raise LakeError(f"{problem}: permission is missing ({error.message}).", remedy) from error
    except (api.Unauthorized, auth.DefaultCredentialsError, auth.RefreshError) as error:
        remedy = "Run `gcloud auth application-default login`, or give the machine a service account."
        raise LakeError(f"{problem}: Google accepts no credentials for TAXI_LAKE_URL.", remedy) from error
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
        raise LakeError(f"{problem}: {error.strerror or error}.", "Check the disk that holds TAXI_HOME.") from error


def _stored_object(key: str, blob: storage.Blob) -> StoredObject:
    return StoredObject(key, int(blob.size or 0), str(blob.generation))


def _size_and_checksum(file: BinaryIO) -> tuple[int, str]:
    """Size in bytes, and CRC32C in Google's notation; 4 GB take a second."""
    checksum, size = google_crc32c.Checksum(), 0
    file.seek(0)
    while block := file.read(CHUNK_BYTES):
        checksum.update(block)
        size += len(block)
    return size, base64.b64encode(checksum.digest()).decode()
