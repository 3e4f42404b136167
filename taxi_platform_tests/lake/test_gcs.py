"""What can go wrong only in a bucket: lost answers, damaged bytes, refusals."""

import io

import pytest
import requests
import urllib3
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession
from google.cloud import storage
from google.cloud.storage.retry import DEFAULT_RETRY

from taxi_platform.lake import open_lake
from taxi_platform.lake.base import NEW
from taxi_platform.lake.gcs import CHUNK_BYTES, GCSLake
from taxi_platform.trips.errors import Conflict, IntegrityError, LakeBusy, LakeError, TransientError

SOON = DEFAULT_RETRY.with_delay(initial=0.01)
QUICK = SOON.with_timeout(0.3)


class Wire(AuthorizedSession):
    """The way to the emulator, with something done to each answer on its way back."""

    def __init__(self, meddle):
        super().__init__(AnonymousCredentials())
        self.meddle = meddle
        self.uploads = []

    def request(self, method, url, *args, **options):
        answer = super().request(method, url, *args, **options)
        if "/upload/" in url:
            self.uploads.append(answer.status_code)
        return self.meddle(method, url, answer)


def lake_over(bucket, meddle, retry=SOON):
    wire = Wire(meddle)
    client = storage.Client(project=None, credentials=AnonymousCredentials(), _http=wire)
    return GCSLake(client, bucket, "some/prefix", retry), wire


def is_object(url):
    """The client also asks for its bucket, in the background."""
    return "/o/" in url


def losing_the_answer_to(wanted):
    """Drop the first answer for which `wanted(method, url, answer)` holds."""
    dropped = []

    def meddle(method, url, answer):
        if not dropped and wanted(method, url, answer):
            dropped.append(url)
            raise requests.ConnectionError("the answer was lost")
        return answer

    return meddle


def answering(status, message="refused"):
    def meddle(method, url, answer):
        answer.status_code = status
        answer._content = f'{{"error": {{"code": {status}, "message": "{message}"}}}}'.encode()
        answer.raw = io.BytesIO(answer._content)
        return answer

    return meddle


@pytest.mark.fault(36)
@pytest.mark.parametrize("size", [5, CHUNK_BYTES + 5], ids=["in one request", "in chunks"])
@pytest.mark.parametrize("if_version", [NEW, "*"])
def test_a_write_whose_answer_was_lost_is_recognised_as_its_own(bucket, size, if_version):
    lake, wire = lake_over(
        bucket, losing_the_answer_to(lambda method, url, answer: "/upload/" in url and '"md5Hash": "' in answer.text)
    )
    stored = lake.write("key", b"x" * size, if_version)
    assert stored.size == size
    assert lake.read("key") == (b"x" * size, stored)
    assert len(wire.uploads) >= 2
    if if_version == NEW:
        assert wire.uploads[-1] != 200  # the retry was refused, and still the write had won


@pytest.mark.fault(36)
def test_a_replacement_whose_answer_was_lost_is_recognised_as_its_own(bucket):
    lake, wire = lake_over(bucket, losing_the_answer_to(lambda method, url, answer: b"second" in answer.request.body))
    first = lake_over(bucket, lambda method, url, answer: answer)[0].write("key", b"first")
    assert lake.write("key", b"second", first.version) == lake.stat("key")
    assert wire.uploads == [200, 412]


@pytest.mark.fault(34, 36)
def test_a_write_that_lost_to_other_bytes_of_the_same_size_is_a_conflict(bucket):
    lake, wire = lake_over(bucket, lambda method, url, answer: answer)
    lake.write("key", b"ours")
    with pytest.raises(Conflict):
        lake.write("key", b"them", NEW)
    assert wire.uploads == [200, 412]


def test_an_overwrite_that_meets_another_one_is_tried_again_over_it(bucket):
    other = lake_over(bucket, lambda method, url, answer: answer)[0]
    met = []

    def meddle(method, url, answer):
        if method == "GET" and is_object(url) and not met:
            met.append(other.write("key", b"theirs"))
        return answer

    other.write("key", b"earlier")
    lake, wire = lake_over(bucket, meddle)
    stored = lake.write("key", b"ours")
    assert wire.uploads == [412, 412, 200]
    assert lake.read("key") == (b"ours", stored)


@pytest.mark.fault(37)
def test_a_copy_that_arrives_damaged_is_refused_by_name(bucket, tmp_path):
    def damage(method, url, answer):
        if "alt=media" in url:
            answer.raw = urllib3.HTTPResponse(io.BytesIO(b"bytez"), preload_content=False)
            answer._content = False
        return answer

    lake, _ = lake_over(bucket, damage)
    lake.write("clean/trips.parquet", b"bytes")
    with (
        pytest.raises(IntegrityError, match=r"some/prefix/clean/trips\.parquet arrived as 5 bytes with CRC32C "),
        lake.local_copy("clean/trips.parquet", tmp_path),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault(37)
def test_an_object_replaced_while_it_is_read_is_a_conflict(bucket):  # `open` alone asks more than once
    other = lake_over(bucket, lambda method, url, answer: answer)[0]
    other.write("key", b"old" * 1000)

    def replace(method, url, answer):
        if method == "GET" and is_object(url) and "alt=media" not in url:
            other.write("key", b"new" * 1000)
        return answer

    lake, _ = lake_over(bucket, replace)
    with pytest.raises(Conflict, match="key was replaced while it was read"):
        lake.open("key").read()


def test_the_end_of_an_object_comes_with_its_size_and_version_in_one_request(bucket):
    asked = []

    def note(method, url, answer):
        asked.append(url) if is_object(url) and method == "GET" else None
        return answer

    lake, _ = lake_over(bucket, note)
    stored = lake.write("key", b"0123456789")
    assert lake.read_end("key", 4) == (b"6789", stored)
    assert lake.read_end("key", 10) == lake.read_end("key", 99) == (b"0123456789", stored)
    assert lake.read_end("missing", 4) is None
    assert len(asked) == 4
    assert lake.listed([""]).read_end("missing", 4) is None
    assert len(asked) == 4
    empty = lake.write("empty", b"")
    assert lake.read_end("empty", 4) == (b"", empty)


def test_an_end_that_is_the_whole_object_is_compared_with_its_checksum(bucket):
    def damage(method, url, answer):
        if "alt=media" in url:
            answer.raw = urllib3.HTTPResponse(io.BytesIO(b"bytez"), preload_content=False)
            answer._content = False
            answer.headers["X-Goog-Hash"] = f"crc32c={stored_crc32c}"
        return answer

    lake, _ = lake_over(bucket, damage)
    lake.write("key", b"bytes")
    stored_crc32c = lake._get_blob("key").crc32c
    with pytest.raises(IntegrityError, match="did not arrive as it is stored"):
        lake.read_end("key", 99)


@pytest.mark.fault(36)
def test_a_busy_service_is_tried_again_and_then_reported_as_transient(bucket):
    lake, _ = lake_over(bucket, answering(503), QUICK)
    with pytest.raises(LakeBusy, match="Try again later") as caught:
        lake.write("key", b"x", NEW)
    assert isinstance(caught.value, TransientError)
    with pytest.raises(LakeBusy):
        lake.stat("key")
    seen = []

    def busy_once(method, url, answer):
        if is_object(url):
            seen.append(url)
            answer.status_code = 429 if len(seen) == 1 else answer.status_code
        return answer

    lake, _ = lake_over(bucket, busy_once)
    assert lake.stat("key").size == len(b"x")
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (403, r"roles/storage\.objectUser on the bucket that TAXI_LAKE_URL names"),
        (401, r"TAXI_LAKE_URL.*gcloud auth application-default login"),
        (400, r"TAXI_LAKE_URL"),
    ],
)
def test_a_refusal_names_the_object_and_the_remedy(bucket, status, remedy):
    lake, _ = lake_over(bucket, answering(status), QUICK)
    with pytest.raises(LakeError, match=rf"Cannot read gs://{bucket}/some/prefix/key.*{remedy}") as caught:
        lake.stat("key")
    assert not isinstance(caught.value, TransientError)


def test_a_bucket_that_does_not_exist_is_reported_when_something_is_written(bucket):
    lake = open_lake(f"gs://no-{bucket}/some/prefix")
    assert lake.stat("key") is None
    for use in (lambda: lake.write("key", b"x"), lambda: lake.list("raw/")):
        with pytest.raises(LakeError, match=r"the bucket does not exist\. Create it, or correct TAXI_LAKE_URL"):
            use()


def test_missing_credentials_are_reported_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with pytest.raises(LakeError, match=r"Google accepts no credentials for TAXI_LAKE_URL.*application-default login"):
        open_lake("gs://bucket/prefix")


def test_a_bucket_without_a_prefix_is_a_lake_too(bucket):
    lake = open_lake(f"gs://{bucket}")
    lake.write("a/b", b"x")
    assert lake.list("a/") == ["a/b"]
    assert lake.uri("a/b") == f"gs://{bucket}/a/b"
    assert open_lake(f"gs://{bucket}/a/").read("b")[0] == b"x"
