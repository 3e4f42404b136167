"""What was downloaded is what the source has: a real server whose file changes, shrinks or is damaged on the way."""

import base64
import gzip
import hashlib

import pytest

from taxi_platform.trips.errors import DamagedRaw, NotPublished, SourceUnavailable
from taxi_platform_tests.sources.test_http import DATA, MONTH, PATH, assert_fetched
from taxi_platform_tests.sources.test_http import source as source_at
from taxi_platform_tests.support.web_server import Page

OTHER = gzip.compress(b"VendorID,fare\n" + b"7,7.5\n" * 50_000, 0)
THEN = "Wed, 01 Jul 2020 10:00:00 GMT"
DAMAGED = DATA[:5000] + bytes([DATA[5000] ^ 255]) + DATA[5001:]


@pytest.fixture
def source(web):
    return source_at(web, attempts=5)


def downloads(web):
    return web.methods().count("GET")


@pytest.mark.fault(64)
def test_fewer_bytes_than_head_announces_are_never_taken_though_get_gives_no_length(web, source, tmp_path):
    """Even where the shorter file is a complete one of its own."""
    part = gzip.compress(b"VendorID,fare\n7,7.5\n", 0)
    announced = Page(b"", length=len(OTHER))
    web.pages[PATH] = Page(part, length=-1, first=[Page(part, length=-1), announced, Page(part, length=-1), announced])
    with pytest.raises(SourceUnavailable, match=rf"sent {len(part)} bytes, and announces {len(OTHER):,}"):
        source.fetch(MONTH, tmp_path)
    assert web.methods() == ["GET", "HEAD", "GET", "HEAD"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault(64)
@pytest.mark.parametrize("name", ["etag", "modified"])
def test_a_file_replaced_during_the_download_is_downloaded_again(web, source, tmp_path, name):
    old, new = ({name: '"v1"'}, {name: '"v2"'}) if name == "etag" else ({name: THEN}, {name: THEN.replace("01", "02")})
    web.pages[PATH] = Page(OTHER, **new, first=[Page(DATA, **old)])
    fetched = source.fetch(MONTH, tmp_path)
    assert_fetched(fetched, OTHER, 50_000)
    assert fetched.publication == source.stat(MONTH)
    assert web.methods()[:4] == ["GET", "HEAD", "GET", "HEAD"]


@pytest.mark.fault(64)
def test_a_file_that_keeps_changing_is_given_up_after_the_second_download(web, source, tmp_path):
    pages = [Page(body, etag=f'"{n}"') for n, body in enumerate([DATA, DATA, OTHER, OTHER])]
    web.pages[PATH] = Page(OTHER, etag='"9"', first=pages)
    with pytest.raises(SourceUnavailable, match="changed while it was fetched"):
        source.fetch(MONTH, tmp_path)
    assert downloads(web) == 2


def test_headers_that_change_with_every_answer_are_outvoted_by_two_equal_downloads(web, source, tmp_path):
    web.pages[PATH] = Page(DATA, first=[Page(DATA, etag=f'"{n}"') for n in range(4)])
    assert_fetched(source.fetch(MONTH, tmp_path))
    assert downloads(web) == 2


@pytest.mark.fault(64)
def test_a_file_removed_during_the_download_is_not_published(web, source, tmp_path):
    web.pages[PATH] = Page(b"Not Found", 404, first=[Page(DATA)])
    with pytest.raises(NotPublished):
        source.fetch(MONTH, tmp_path)


@pytest.mark.fault(64)
@pytest.mark.parametrize("total", [len(DATA) + 1, len(DATA) - 1])
def test_a_range_of_a_file_of_another_size_is_discarded(web, source, tmp_path, total):
    """Although its ETag is the same."""
    half = len(DATA) // 2
    part = Page(DATA[half:], 206, {"Content-Range": f"bytes {half}-{len(DATA) - 1}/{total}"}, etag='"v"')
    web.pages[PATH] = Page(DATA, etag='"v"', first=[Page(DATA, etag='"v"', cut=[half]), part])
    assert_fetched(source.fetch(MONTH, tmp_path))
    assert [headers.get("Range") for _, _, headers in web.requests] == [None, f"bytes={half}-", None, None]


@pytest.mark.fault(64)
def test_a_date_as_young_as_the_answer_does_not_resume_a_transfer(web, source, tmp_path):
    """A second change in the same second would have the same date."""
    young = {"Date": THEN}
    page = Page(DATA, modified=THEN, headers=young, first=[Page(DATA, modified=THEN, headers=young, cut=[1000])])
    web.pages[PATH] = page
    assert_fetched(source.fetch(MONTH, tmp_path))
    assert "Range" not in web.requests[1][2]


def md5(data):
    return base64.b64encode(hashlib.md5(data).digest()).decode()


@pytest.mark.fault(64)
@pytest.mark.parametrize("header", ["Content-MD5", "x-goog-hash"])
def test_a_body_without_the_md5_that_the_server_sends_is_downloaded_again(web, source, tmp_path, header):
    value = md5(DATA) if header == "Content-MD5" else f"crc32c=AAAAAA==,md5={md5(DATA)}"
    # The changed byte is in gzip's own header, which no checksum of gzip covers.
    wrong = Page(DATA[:4] + b"\x01" + DATA[5:], headers={header: value})
    web.pages[PATH] = Page(DATA, headers={header: value}, first=[wrong])
    assert_fetched(source.fetch(MONTH, tmp_path))
    assert downloads(web) == 2
    web.pages[PATH] = Page(wrong.body, headers={header: value})
    with pytest.raises(SourceUnavailable, match="does not have the MD5"):
        source.fetch(MONTH, tmp_path / "again")
    assert downloads(web) == 4


def test_the_md5_of_what_google_stores_is_not_compared_with_what_it_unpacked(web, source, tmp_path):
    headers = {"x-goog-hash": f"md5={md5(b'packed')}", "x-goog-stored-content-encoding": "gzip"}
    web.pages[PATH] = Page(DATA, headers=headers)
    assert_fetched(source.fetch(MONTH, tmp_path))
    assert downloads(web) == 1


@pytest.mark.fault(65)
def test_a_file_damaged_on_the_way_is_downloaded_again(web, source, tmp_path):
    web.pages[PATH] = Page(DATA, etag='"v"', first=[Page(DAMAGED, etag='"v"')])
    assert_fetched(source.fetch(MONTH, tmp_path))
    assert downloads(web) == 2


@pytest.mark.fault(65)
def test_a_published_file_that_is_damaged_is_told_from_one_damaged_on_the_way(web, source, tmp_path):
    web.pages[PATH] = Page(DAMAGED, etag='"v"')
    with pytest.raises(DamagedRaw, match=r"gzip .* the published file itself is damaged"):
        source.fetch(MONTH, tmp_path)
    other = Page(DATA[:-9] + b"x" * 9, etag='"v"')
    web.pages[PATH] = Page(DATA, etag='"v"', first=[Page(DAMAGED, etag='"v"'), Page(b"", etag='"v"', length=0), other])
    with pytest.raises(SourceUnavailable, match=r"two downloads differ\. The gzip .* proxy"):
        source.fetch(MONTH, tmp_path)
    assert downloads(web) == 4
    assert list(tmp_path.iterdir()) == []
