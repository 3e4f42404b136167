"""A server on loopback that answers anything at all, and a whole month fetched from it into a lake."""

from __future__ import annotations

import gzip
import io
from functools import cache
from pathlib import Path
from random import Random

import pyarrow.parquet as pq

from taxi_platform.ingestion import steps
from taxi_platform.lake.local import LocalLake
from taxi_platform.lake.months import LakeMonth
from taxi_platform.sources.http import HttpSource
from taxi_platform.trips.engine import Engine
from taxi_platform.trips.errors import TaxiError
from taxi_platform.trips.months import DatasetMonth
from taxi_platform_tests.support.cleaning_cases import TRIP, green
from taxi_platform_tests.support.fuzz_targets import SECRET, check_harmless, mutated
from taxi_platform_tests.support.web_server import S3_DENIED, Answer, answering
from taxi_platform_tests.trips.test_cleaning_properties import TABLE, parquet

MONTH = DatasetMonth.parse("green", "2020-04")
QUICK = {"backoff": 0.001, "max_wait": 0.01, "read_timeout": 0.15, "attempts": 4, "deadline": 3, "max_bytes": 1 << 20}
STATUSES = [100, 101, 103, 200, 201, 204, 206, 300, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 410, 416]
STATUSES += [418, 429, 451, 500, 501, 502, 503, 504, 511, 599, 600, 999, 0, 20, 2000]
NUMBERS = ["0", "-1", "+5", "1e3", "٣", "9" * 30, "9" * 5000, "", " ", "5, 5", "0x10", "1_0", "nan", "5;x"]
LOCATIONS = [
    "",
    "/",
    "/other",
    "?x",
    "#",
    "//",
    "/" * 9,
    "\\\\host",
    "http:",
    "http://",
    "http:///x",
    "https://[::1",
    "//[",
]
LOCATIONS += [
    "http://169.254.169.254/latest",
    "http://10.0.0.1/",
    "http://[fd00::1]/",
    "http://0/",
    "http://0x7f000001:1/",
]
LOCATIONS += ["http://2130706433:1/", "file:///etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1:1/", "data:,x"]
LOCATIONS += ["http://nowhere.invalid/", "http://a\0b.invalid/", "http://é.invalid/", f"http://{'a' * 70}.invalid/"]
LOCATIONS += [
    "http://127.0.0.1:99999/",
    "http://127.0.0.1:x/",
    "http://user:pass@127.0.0.1:1/",
    "/\x1b[2J",
    "/%",
    "/%zz",
]
LOCATIONS += [
    f"/{'x' * 9000}",
    "http://xn--\xff.invalid/",
    "http://127.0.0.1%2f@nowhere.invalid/",
    "http://ho℀st.invalid/",
]
ETAGS = ['"1"', '"2"', 'W/"1"', "", '"', "\xff", '"a\r\n b"', "x" * 9000, '"1", "2"', "\x1b[2J", " \t"]
DATES = [
    "Wed, 01 Jul 2020 10:00:00 GMT",
    "now",
    "0",
    "Mon, 99 Foo 99999999999 99:99:99 +9999",
    "1 Jan 0001 00:00 -2359",
]
PAGES = [b"", b"<html>busy</html>", S3_DENIED, b"{}", b"\x1f\x8b", b"PAR1", b"PAR1PAR1", b"x" * 5000]


@cache
def bodies() -> list[bytes]:
    """Two versions of a month as gzip, one as CSV and one as Parquet."""
    old, new = (green(*[f"total_amount={n}" for n in range(start, start + 300)]) for start in (0, 50))
    return [gzip.compress(old, mtime=0), gzip.compress(new, mtime=0), green(TRIP, "total_amount=1"), parquet(TABLE)]


def answers_round(random: Random, folder: Path) -> str:
    given = [_answer(random, random.choice(bodies()[:2] if random.random() < 0.7 else bodies())) for _ in range(6)]
    (folder / "input").write_bytes(b"".join(data for data, _ in given))
    (folder / "answers").write_text(repr(given))
    lake = LocalLake(folder / "lake")
    with answering(*given) as host:
        source = HttpSource(f"http://user:{SECRET}@{host}/{{dataset}}/{{month}}.csv.gz?token={SECRET}", **QUICK)
        try:
            steps.fetch(source, lake, MONTH, folder / "home")
            steps.clean(lake, MONTH, folder / "home", Engine(threads=1))
            ended = "cleaned"
        except TaxiError as error:
            check_harmless(error)
            ended = type(error).__name__
    assert list((folder / "home").glob("tmp/*")) == []
    _check_lake(lake, ended == "cleaned")
    return ended


def _check_lake(lake: LocalLake, clean: bool) -> None:
    """The lake holds the raw file as some answer had it and its manifest, or nothing; and the clean month's four."""
    keys = [key for key in lake.list("") if not key.startswith(".locks/")]
    raw = [key for key in keys if key.startswith("raw/") and not key.endswith("manifest.json")]
    assert len(keys) == (6 if clean else 2 * len(raw)) and len(raw) <= 1, keys
    for key in keys:
        assert SECRET not in key and SECRET.encode() not in lake.read(key)[0]
    if clean:
        month = LakeMonth(lake, MONTH)
        with lake.open(month.clean_key) as file:
            rows = len(pq.read_table(file))
        rejected = len(pq.read_table(io.BytesIO(lake.read(month.rejected_key(month.footer().file_version))[0])))
        assert rows + rejected == month.current_raw().rows > 0


def _answer(random: Random, body: bytes) -> Answer:
    """One answer, more often than not nearly right."""
    if random.random() < 0.05:
        return mutated(b"HTTP/1.1 200 OK\r\n\r\n", random, [b"\0", b"HTTP/1.1 100\r\n\r\n" * 50, b"\r\n"], 3), False
    status, headers = 200, {"Content-Length": str(len(body)), "ETag": random.choice(ETAGS[:2])}
    reason = "OK"
    if random.random() < 0.25:
        status = random.choice(STATUSES)
        reason = random.choice(["", "No", "\x1b[2J", "é\xff", "x" * 5000, "a\tb"])
        body = random.choice([body, body, *PAGES])
        headers["Content-Length"] = str(len(body))
    if status in (301, 302, 303, 307, 308) or random.random() < 0.05:
        headers["Location"] = random.choice(LOCATIONS)
    if random.random() < 0.2:
        start = random.choice([0, 1, len(body) // 2, len(body)])
        total = random.choice([len(body), "*", *NUMBERS])
        headers["Content-Range"] = random.choice([f"bytes {start}-{len(body) - 1}/{total}", "bytes */5", "x", "bytes"])
        status, body = 206, body[start:]
    for _ in range(random.choice([0, 0, 1, 2])):
        name, values = random.choice(
            [
                ("Content-Length", [*NUMBERS, str(len(body) + 1), str(len(body) // 2), str(2 << 20)]),
                ("Content-Encoding", ["gzip", "br", "deflate", "identity", "x", "gzip, gzip"]),
                ("Transfer-Encoding", ["chunked", "gzip", "identity", "chunked, chunked", "Chunked"]),
                ("ETag", ETAGS),
                ("Last-Modified", DATES),
                ("Retry-After", [*NUMBERS, *DATES]),
                ("Content-Type", ["text/html", "text/csv; charset=utf-16", "x"]),
                ("Set-Cookie", ["a=b", "a=b; domain=.invalid", "\0"]),
                ("Connection", ["keep-alive", "close", "upgrade"]),
                ("X", ["y" * 70_000, "\r\n" * 3, "\0"]),
            ]
        )
        headers[name] = random.choice(values)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    if random.random() < 0.02:
        lines += "X: y\r\n" * 200
    if headers.get("Transfer-Encoding", "").lower() == "chunked" or random.random() < 0.1:
        lines = "".join(f"{line}\r\n" for line in lines.splitlines() if "Length" not in line)
        lines += "Transfer-Encoding: chunked\r\n"
        body = _chunked(body, random)
    match random.choice(["", "", "", "", "cut", "pad", "bytes", "double"]):
        case "cut":
            body = body[: random.randint(0, len(body))]
        case "pad":
            body += random.choice([b"\0", b"x" * 10, b"\r\n", body])
        case "bytes":
            body = mutated(body, random, [b"\0", b"\xff", b"\r\n"], 1)
        case "double":
            lines += lines
    head = f"HTTP/{random.choice(['1.1', '1.1', '1.1', '1.0'])} {status} {reason}\r\n{lines}\r\n"
    return head.encode("latin-1", "replace") + body, random.random() < 0.1


def _chunked(body: bytes, random: Random) -> bytes:
    half = len(body) // 2
    sizes = [b"%x" % half, b"%x;name=value" % half, b"0%x" % half]
    if random.random() < 0.3:
        sizes = [b"", b"-1", b"g", b"f" * 20, b"%x" % (half + 9), b"%x" % (half // 2), b" %x " % half]
    last = random.choice([b"0\r\n\r\n"] * 4 + [b"", b"0\r\n", b"0\r\nX: y\r\n\r\n"])
    return random.choice(sizes) + b"\r\n%b\r\n%x\r\n%b\r\n%b" % (body[:half], len(body) - half, body[half:], last)
