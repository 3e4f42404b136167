"""HttpSource against a real server that misbehaves."""

import email.utils
import gzip
import hashlib
import io
import random
import socket
import time
import traceback
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tenacity

from taxi_platform.sources.addresses import file_name, network_kinds, next_hop, redact
from taxi_platform.sources.http import HttpSource
from taxi_platform.trips.errors import NotData, NotPublished, SourceRefused, SourceUnavailable
from taxi_platform.trips.months import DatasetMonth
from taxi_platform_tests.support.web_server import S3_DENIED, Page, answering

MONTH = DatasetMonth.parse("green", "2020-04")
PATH = "/green/green_tripdata_2020-04.csv.gz"
ROWS = 20_000
DATA = gzip.compress(
    b"VendorID,fare\n" + b"".join(b"%d,%r\n" % (i, random.Random(i).random()) for i in range(ROWS)), mtime=0
)
QUICK = {"backoff": 0.01, "max_wait": 0.05, "read_timeout": 0.5, "attempts": 3, "stat_attempts": 2}


@pytest.fixture
def waits(monkeypatch):
    """The seconds of each wait before another request, none of which is really waited."""
    waits = []
    monkeypatch.setattr(tenacity.nap, "time", SimpleNamespace(sleep=waits.append))
    return waits


def source(web, query="", **options):
    return HttpSource(f"{web.url}/{{dataset}}/{{dataset}}_tripdata_{{month}}.csv.gz{query}", **{**QUICK, **options})


def assert_fetched(fetched, data=DATA, rows=ROWS):
    assert fetched.path.read_bytes() == data
    assert (fetched.rows, fetched.size, fetched.sha256) == (rows, len(data), hashlib.sha256(data).hexdigest())
    assert [path.name for path in fetched.path.parent.iterdir()] == [fetched.path.name]


def test_a_month_is_described_without_being_sent_and_fetched_as_published(web, tmp_path):
    web.pages[PATH] = Page(DATA, etag='"abc"', modified="Wed, 01 Jul 2020 10:00:00 GMT")
    found = source(web).stat(MONTH)
    assert (found.version, found.size, found.etag) == ('"abc"', len(DATA), '"abc"')
    assert found.last_modified == "Wed, 01 Jul 2020 10:00:00 GMT"
    seen = []
    fetched = source(web).fetch(MONTH, tmp_path, lambda done, total: seen.append((done, total)))
    assert_fetched(fetched)
    assert fetched.publication == found
    assert fetched.path.name == "green_tripdata_2020-04.csv.gz"
    assert seen[-1] == (len(DATA), len(DATA))
    assert web.methods() == ["HEAD", "GET", "HEAD"]
    assert web.requests[1][2]["User-Agent"].startswith("taxi_platform/")
    assert web.requests[1][2]["Accept-Encoding"] == "identity"


def test_parquet_is_recognised_by_its_bytes_whatever_its_name(web, tmp_path):
    buffer = io.BytesIO()
    pq.write_table(pa.table({"VendorID": range(777)}), buffer)
    web.pages[PATH] = Page(buffer.getvalue())
    assert_fetched(source(web).fetch(MONTH, tmp_path), buffer.getvalue(), 777)


def test_gzip_stays_gzip_even_when_the_server_calls_it_a_content_encoding(web, tmp_path):
    web.pages[PATH] = Page(DATA, headers={"Content-Encoding": "gzip"})
    assert_fetched(source(web).fetch(MONTH, tmp_path))


@pytest.mark.parametrize(
    ("page", "version"),
    [
        (Page(DATA, etag='W/"weak"', modified="then"), 'W/"weak"'),
        (Page(DATA, modified="Wed, 01 Jul 2020 10:00:00 GMT"), f"Wed, 01 Jul 2020 10:00:00 GMT {len(DATA)}"),
        (Page(DATA), str(len(DATA))),
        (Page(DATA, chunked=True), "unknown"),
    ],
)
def test_the_version_is_the_best_the_server_gives(web, tmp_path, page, version):
    web.pages[PATH] = page
    assert source(web).stat(MONTH).version == version
    assert source(web).fetch(MONTH, tmp_path).publication.version == version


@pytest.mark.fault(24)
@pytest.mark.parametrize("page", [None, Page(S3_DENIED, 403), Page(b"<Code>NoSuchKey</Code>", 403)])
def test_404_and_the_403_of_s3_mean_not_published(web, tmp_path, page):
    if page:
        web.pages[PATH] = page
    assert source(web).stat(MONTH) is None
    with pytest.raises(NotPublished, match=r"green 2020-04 .*/green/green_tripdata_2020-04\.csv\.gz"):
        source(web).fetch(MONTH, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert len(web.requests) == (3 if page else 2)


@pytest.mark.fault(24)
def test_the_403_of_a_rate_limit_is_tried_again_and_is_never_not_published(web, tmp_path):
    web.pages[PATH] = Page(b"<html>Request blocked</html>", 403)
    with pytest.raises(SourceUnavailable, match="403"):
        source(web).stat(MONTH)
    assert web.methods() == ["HEAD", "GET"] * 2
    with pytest.raises(SourceUnavailable, match="403"):
        source(web).fetch(MONTH, tmp_path)
    assert web.methods()[4:] == ["GET"] * 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("status", [403, 405, 501])
def test_a_server_without_head_is_asked_for_the_first_byte(web, status):
    web.pages[PATH] = Page(DATA, etag='"e"', no_head=status)
    found = source(web).stat(MONTH)
    assert (found.version, found.size) == ('"e"', len(DATA))
    assert web.requests[1][2]["Range"] == "bytes=0-0"


@pytest.mark.parametrize("status", [400, 401, 410])
def test_other_refusals_are_final(web, tmp_path, status):
    web.pages[PATH] = Page(b"", status)
    with pytest.raises(SourceRefused, match=str(status)):
        source(web).stat(MONTH)
    with pytest.raises(SourceRefused, match=str(status)):
        source(web).fetch(MONTH, tmp_path)
    assert len(web.requests) == 2


@pytest.mark.fault(26)
def test_errors_of_the_server_are_tried_again_and_leave_one_file(web, tmp_path):
    web.pages[PATH] = Page(DATA, first=[Page(b"", 500), Page(b"", 503)])
    assert_fetched(source(web).fetch(MONTH, tmp_path))
    assert web.methods() == ["GET"] * 3 + ["HEAD"]


def test_errors_that_stay_are_reported_after_the_last_attempt(web, tmp_path):
    web.pages[PATH] = Page(b"", 500)
    with pytest.raises(SourceUnavailable, match="500"):
        source(web).fetch(MONTH, tmp_path)
    assert len(web.requests) == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault(25)
@pytest.mark.parametrize("asked", ["120", "date"])
def test_retry_after_is_honoured_up_to_a_cap(web, waits, asked):
    text = email.utils.formatdate(time.time() + 120, usegmt=True) if asked == "date" else asked
    web.pages[PATH] = Page(DATA, first=[Page(b"", 429, {"Retry-After": text})])
    assert source(web, max_wait=130).stat(MONTH).size == len(DATA)
    (wait,) = waits
    assert 90 < wait <= 120 + 2 * QUICK["backoff"]  # a date counts from when it is read
    web.pages[PATH] = Page(DATA, first=[Page(b"", 429, {"Retry-After": "3600"})])
    source(web, max_wait=7).stat(MONTH)
    assert waits[1:] == [7]


@pytest.mark.fault(25)
def test_waiting_never_passes_the_deadline(web, waits, tmp_path):
    web.pages[PATH] = Page(b"", 503, {"Retry-After": "30"})
    with pytest.raises(SourceUnavailable):
        source(web, max_wait=60, deadline=29).fetch(MONTH, tmp_path)
    assert (waits, len(web.requests)) == ([], 1)


@pytest.mark.fault(5, 6)
@pytest.mark.parametrize("page", [Page(b"<html>busy</html>" * 100), Page(b""), Page(DATA[:-20]), Page(DATA + b"junk")])
def test_bytes_that_are_no_trips_are_refused_and_name_the_address(web, tmp_path, page):
    web.pages[PATH] = page
    with pytest.raises(NotData, match=r"/green/green_tripdata_2020-04\.csv\.gz: The (gzip )?file") as caught:
        source(web).fetch(MONTH, tmp_path)
    assert caught.value.remedy
    is_damaged = page.body.startswith(DATA[:100])
    assert web.methods() == (["GET", "HEAD"] * 2 if is_damaged else ["GET"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault(28)
@pytest.mark.parametrize("validator", [{"etag": '"v1"'}, {"modified": "Wed, 01 Jul 2020 10:00:00 GMT"}])
@pytest.mark.parametrize("kind", [{}, {"chunked": True}])
def test_a_broken_transfer_goes_on_where_it_broke(web, tmp_path, validator, kind):
    web.pages[PATH] = Page(DATA, cut=[len(DATA) // 2, 5], **validator, **kind)
    if kind and "modified" in validator:
        # The size is part of this version, and a chunked answer has none: nothing shows that both are the same.
        web.pages[PATH].cut = [len(DATA) // 2]
    assert_fetched(source(web).fetch(MONTH, tmp_path))
    if not (kind and "modified" in validator):
        asked = [headers.get("Range") for _, _, headers in web.requests]
        assert asked == [None, f"bytes={len(DATA) // 2}-", f"bytes={len(DATA) // 2 + 5}-", None]
        assert web.requests[1][2]["If-Range"] == next(iter(validator.values()))


@pytest.mark.fault(28)
@pytest.mark.parametrize("page", [Page(DATA), Page(DATA, etag='W/"weak"'), Page(DATA, etag='"v"', ranges=False)])
def test_a_broken_transfer_starts_afresh_where_it_cannot_go_on(web, tmp_path, page):
    page.cut = [len(DATA) // 2]
    web.pages[PATH] = page
    assert_fetched(source(web).fetch(MONTH, tmp_path))
    assert web.methods() == ["GET", "GET", "HEAD"]


@pytest.mark.fault(30)
def test_a_file_that_changes_while_it_is_fetched_is_never_mixed(web, tmp_path):
    other = gzip.compress(b"VendorID,fare\n" + b"7,7.5\n" * 50_000, 0)
    web.pages[PATH] = Page(other, etag='"v2"', first=[Page(DATA, etag='"v1"', cut=[len(DATA) // 2])])
    fetched = source(web).fetch(MONTH, tmp_path)
    assert_fetched(fetched, other, 50_000)
    assert fetched.publication.etag == '"v2"'


@pytest.mark.fault(30)
def test_a_server_that_continues_with_another_version_regardless_is_not_believed(web, tmp_path):
    other = gzip.compress(b"VendorID,fare\n" + b"7,7.5\n" * 50_000, 0)
    half = len(DATA) // 2
    wrong = Page(other[half:], 206, {"Content-Range": f"bytes {half}-{len(other) - 1}/{len(other)}"}, etag='"v2"')
    web.pages[PATH] = Page(other, etag='"v2"', first=[Page(DATA, etag='"v1"', cut=[half]), wrong])
    assert_fetched(source(web).fetch(MONTH, tmp_path), other, 50_000)
    assert web.requests[2][2].get("Range") is None


def test_a_file_that_became_shorter_is_fetched_anew(web, tmp_path):
    web.pages[PATH] = Page(DATA, etag='"v1"', cut=[], first=[Page(DATA, etag='"v1"', cut=[99]), Page(b"", 416)])
    assert_fetched(source(web).fetch(MONTH, tmp_path))


@pytest.mark.fault(29)
@pytest.mark.parametrize("page", [Page(DATA, length=len(DATA) + 10), Page(DATA, chunked=True, cut=[9000] * 3)])
def test_a_body_shorter_than_announced_is_never_taken(web, tmp_path, page):
    web.pages[PATH] = page
    with pytest.raises(SourceUnavailable, match=r"broke off|of .* bytes"):
        source(web).fetch(MONTH, tmp_path)
    assert len(web.requests) == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault(27)
def test_a_server_that_drips_is_given_up(web, tmp_path):
    web.pages[PATH] = Page(DATA, drip=0.02)
    with pytest.raises(SourceUnavailable, match="less than 1024 bytes per second"):
        source(web, rate_window=0.3, attempts=1).fetch(MONTH, tmp_path)
    with pytest.raises(SourceUnavailable, match="deadline"):
        source(web, deadline=0.3, attempts=5).fetch(MONTH, tmp_path)
    assert len(web.requests) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault(27)
def test_a_server_that_falls_silent_is_given_up_after_the_read_timeout(web, tmp_path):
    web.pages[PATH] = Page(DATA, drip=5)
    with pytest.raises(SourceUnavailable, match="broke off"):
        source(web, attempts=1, read_timeout=0.2).fetch(MONTH, tmp_path)


def test_a_head_without_end_is_given_up_after_the_read_timeout():
    with (
        answering((b"HTTP/1.1 100 Continue\r\n\r\n" * 3_000_000, False)) as host,
        pytest.raises(SourceUnavailable, match="ReadTimeout"),
    ):
        HttpSource(f"http://{host}/{{month}}", **QUICK).stat(MONTH)


def test_trailers_without_end_are_given_up_at_the_deadline(tmp_path):
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n" % (len(DATA), DATA)
    with (
        answering((head + b"X: y\r\n" * 5_000_000, False)) as host,
        pytest.raises(SourceUnavailable, match="deadline"),
    ):
        HttpSource(f"http://{host}/{{month}}", **{**QUICK, "deadline": 0.5}).fetch(MONTH, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("page", [Page(DATA), Page(DATA, chunked=True)])
def test_a_file_larger_than_allowed_is_refused(web, tmp_path, page):
    web.pages[PATH] = page
    with pytest.raises(NotData, match=r"more than 9,999 bytes|has .* bytes"):
        source(web, max_bytes=9999).fetch(MONTH, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nobody_listening_is_unavailable_and_says_why(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        template = f"http://me:pw-canary@127.0.0.1:{free.getsockname()[1]}/{{month}}.csv?token=t-canary"
        with pytest.raises(SourceUnavailable, match=r"Connection refused.* check the network .*sample://") as caught:
            HttpSource(template, **QUICK).fetch(MONTH, tmp_path)
    assert "canary" not in "".join(traceback.format_exception(caught.value))


def test_redirects_are_followed_and_the_published_name_and_address_stay(web, tmp_path):
    web.pages[PATH] = Page(status=302, headers={"Location": "/hop?sig=s-canary"})
    web.pages["/hop"] = Page(status=307, headers={"Location": f"{web.url}/stored/7f3a?sig=s-canary"})
    web.pages["/stored/7f3a"] = Page(DATA, etag='"e"', cut=[1000])
    fetched = source(web).fetch(MONTH, tmp_path)
    assert_fetched(fetched)
    assert fetched.path.name == "green_tripdata_2020-04.csv.gz"
    assert fetched.publication.url == web.url + PATH
    assert source(web).stat(MONTH) == fetched.publication


def test_the_body_of_a_redirect_is_not_waited_for(web):
    redirect = web.pages[PATH] = Page(b"moved" * 99, 302, {"Location": "/stored"}, no_head=405, drip=0.2)
    web.pages["/stored"] = Page(DATA)
    assert source(web).stat(MONTH).size == len(DATA)
    assert redirect.sent < len(redirect.body)


@pytest.mark.fault(31)
def test_at_most_five_redirects_are_followed(web, tmp_path):
    def chain(hops):
        web.pages[PATH] = Page(status=302, headers={"Location": "/1"})
        for hop in range(1, hops):
            web.pages[f"/{hop}"] = Page(status=302, headers={"Location": f"/{hop + 1}"})
        web.pages[f"/{hops}"] = Page(DATA)

    chain(5)
    assert_fetched(source(web).fetch(MONTH, tmp_path))
    chain(6)
    with pytest.raises(SourceRefused, match="more than 5 times"):
        source(web).fetch(MONTH, tmp_path / "other")


@pytest.mark.fault(31)
@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("http://169.254.169.254/latest/meta-data/?x=s-canary", "link_local"),
        ("http://10.0.0.7/", "private"),
        ("http://[::ffff:192.168.1.1]/", "private"),
        ("http://0.0.0.0/", "unspecified"),
        ("file:///etc/passwd", "an address that is not valid"),
        ("ftp://example.org/x", "only to https"),
        ("http://[bad", "an address that is not valid"),
        ("", "an address that is not valid"),
        ("/\x1b[2J", "an address that is not valid"),
        ("http://a\0b.invalid/", "an address that is not valid"),
        ("/" + "x" * 1000, "an address that is not valid"),
    ],
)
def test_redirects_to_blocked_addresses_are_refused_at_once(web, tmp_path, location, says):
    web.pages[PATH] = Page(status=302, headers={"Location": location})
    for attempt in (lambda: source(web).stat(MONTH), lambda: source(web).fetch(MONTH, tmp_path)):
        with pytest.raises(SourceRefused, match=says) as caught:
            attempt()
        assert "canary" not in str(caught.value)
        assert PATH in str(caught.value) and caught.value.remedy == "Check TAXI_SOURCE_URL."
    assert len(web.requests) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault(31)
def test_https_may_not_lead_to_http():
    assert next_hop("https://a.example/x", "/y?z=1") == "https://a.example/y?z=1"
    with pytest.raises(SourceRefused, match="only to https"):
        next_hop("https://a.example/x", "http://a.example/")


@pytest.mark.parametrize(
    ("address", "kinds"),
    [
        ("127.0.0.1", {"loopback"}),
        ("::1", {"loopback"}),
        ("169.254.1.1", {"link_local"}),
        ("192.168.0.1", {"private"}),
        ("fd00::1", {"private"}),
        ("100.64.0.1", {"shared"}),
        ("224.0.0.1", {"multicast"}),
        ("1.1.1.1", set()),
        ("2606:4700::1111", set()),
    ],
)
def test_addresses_are_put_into_kinds(address, kinds):
    assert network_kinds(address) == kinds


@pytest.mark.parametrize("status", ["200 OK", f"206 Partial\r\nContent-Range: bytes 0-1/{'9' * 5000}"])
def test_a_length_of_5000_digits_is_no_length(status, tmp_path):
    data = f"HTTP/1.1 {status}\r\nContent-Length: {'9' * 5000}\r\n\r\n".encode() + DATA
    with answering((data, False)) as host:
        known = HttpSource(f"http://{host}/{{month}}", **QUICK)
        assert known.stat(MONTH).size is None
        if status == "200 OK":
            assert_fetched(known.fetch(MONTH, tmp_path))


def test_the_reason_for_a_refusal_is_given_in_our_own_words():
    with answering((b"HTTP/1.1 410 \x1b[2J" + b"x" * 9000 + b"\r\nContent-Length: 0\r\n\r\n", False)) as host:
        with pytest.raises(SourceRefused) as caught:
            HttpSource(f"http://{host}/{{month}}", **QUICK).stat(MONTH)
        assert caught.value.problem == f"http://{host}/2020-04 answered 410 Gone."


def test_a_password_that_http_cannot_send_is_refused_without_being_shown():
    template = "http://me:canary€@127.0.0.1:9/{month}"
    with pytest.raises(SourceRefused, match=r"UnicodeEncodeError.*TAXI_SOURCE_URL") as caught:
        HttpSource(template, **QUICK).stat(MONTH)
    assert "canary" not in "".join(traceback.format_exception(caught.value))


def test_addresses_are_shown_without_secrets():
    assert redact("https://me:pw@host:8080/a/{month}?token=1#x") == "https://host:8080/a/{month}"
    assert redact("http://[bad") == "(an address that cannot be parsed)"
    shown = repr(HttpSource("https://me:pw@host/{month}?token=1"))
    assert shown == "HttpSource('https://host/{month}')"


@pytest.mark.fault(45)
def test_secrets_of_the_address_reach_the_server_and_no_error(web, tmp_path):
    web.pages[PATH] = Page(b"", 401)
    secret = source(web, query="?token=t-canary")
    with pytest.raises(SourceRefused) as caught:
        secret.fetch(MONTH, tmp_path)
    assert web.requests[0][1].endswith("?token=t-canary")
    assert "canary" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.fault(43)
@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://host/a/month.csv.gz?x=1", "month.csv.gz"),
        ("https://host/a/trip%20data%2F..%2F2020.csv", "trip_data_.._2020.csv"),
        ("https://host/..", "otherwise"),
        ("https://host/", "otherwise"),
        ("https://host/" + "x" * 200 + ".parquet", "x" * 120 + ".parquet"),
    ],
)
def test_file_names_are_made_safe(url, name):
    assert file_name(url, "otherwise") == name
