"""Months of every CSV era, damaged: in their bytes, lines, fields, header, line ends, and as gzip."""

from __future__ import annotations

import gzip
import tempfile
import zlib
from functools import cache
from pathlib import Path
from random import Random

from taxi_platform.trips.months import DatasetMonth
from taxi_platform.trips.records import MAX_LINE_BYTES, MAX_RECORD_LINES
from taxi_platform_tests.support.cleaning_cases import HEADS
from taxi_platform_tests.support.eras import Era, eras, write_era
from taxi_platform_tests.support.fuzz_targets import HOSTILE, check_fetched, cleaned, mutated
from taxi_platform_tests.trips.test_cleaning_properties import BYTES, NAMES, VALUES, Refusal
from taxi_platform_tests.trips.test_files import reference

ERAS = [era for era in eras() if era.format == "csv"]
TOKENS = [*BYTES, *(value.encode() for value in VALUES), b"\x1f\x8b", b"PAR1", b"\xff\xfe", b"<html>", b'",\n"', b'""']
COUNTED_BYTES = 64 << 10
"""The plain definition of a record takes quadratic time."""


@cache
def era_text(era: Era) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = write_era(era, Path(folder))
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def csv_round(random: Random, folder: Path) -> str:
    month, text = _month(random)
    data = _packed(_damaged(text, random), random)
    path = folder / "input"
    path.write_bytes(data)
    rows = check_fetched(DatasetMonth.parse(*month.split()), path, folder / "fetched")
    fast = cleaned(month, data, folder / "fast")
    assert fast == cleaned(month, data, folder / "careful", careful=True)
    if isinstance(fast, Refusal):
        return fast.kind
    _, rejected, report = fast
    assert rows == report.rows_read
    text = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    if len(text) <= COUNTED_BYTES:
        assert rows == len(reference(text, MAX_LINE_BYTES, MAX_RECORD_LINES)) - 1
    return "cleaned, some rejected" if rejected else "cleaned"


def _month(random: Random) -> tuple[str, bytes]:
    """A real month's first lines, or a few lines of an era's."""
    if random.random() < 0.3:
        month = random.choice(sorted(HEADS))
        return month, HEADS[month].encode()
    era = random.choice(ERAS)
    lines = era_text(era).splitlines(keepends=True)
    first = random.randint(2, len(lines) - 1)
    count = random.choice([1, 3, 10, 30])
    return f"{era.dataset} {era.first}", b"".join([*lines[:2], *lines[first : first + count]])


def _damaged(text: bytes, random: Random) -> bytes:
    for _ in range(random.choice([0, 1, 1, 2, 4])):
        lines = text.split(b"\n")
        at = random.randrange(len(lines))
        fields = lines[at].split(b",")
        field = random.randrange(len(fields))
        match random.choice(["field", "field", "field", "quote", "lines", "header", "ends", "bytes", "bytes", "size"]):
            case "field":
                fields[field] = random.choice(TOKENS)
            case "quote":
                fields[field] = b'"%b"' % random.choice([fields[field], b"\n", b"\r\n", b'""', b"a,b", b'"', b" "])
                fields[field] += random.choice([b"", b"", b" ", b'"', b"x"])
            case "lines":
                to = random.randrange(len(lines))
                lines[at], lines[to] = lines[to], random.choice([lines[at], lines[at] * 2, b"", b" ", b","])
                fields = lines[at].split(b",")
            case "header":
                at, fields = 0, _other_header(lines[0].split(b","), random)
            case "ends":
                text = text.replace(b"\r\n", b"\n").replace(b"\n", random.choice([b"\r\n", b"\r", b"\n\n", b"\n\r"]))
                continue
            case "bytes":
                text = mutated(text, random, TOKENS, random.choice([1, 1, 3]))
                continue
            case "size":
                text = _sized(lines, random)
                continue
        lines[at] = b",".join(fields)
        text = b"\n".join(lines)
    return random.choice([b""] * 20 + [b"\xef\xbb\xbf", b"\xef\xbb\xbf\xef\xbb\xbf", b"\n"]) + text


def _other_header(names: list[bytes], random: Random) -> list[bytes]:
    at, name = random.randrange(len(names)), random.choice([*NAMES, *HOSTILE]).encode()
    name = b'"%b"' % name.replace(b'"', b'""') if random.random() < 0.5 else name
    match random.choice(["rename", "add", "double", "drop", "shuffle", "case", "many"]):
        case "rename":
            names[at] = name
        case "add":
            names.insert(at, name)
        case "double":
            names.append(names[at])
        case "drop":
            del names[at]
        case "shuffle":
            random.shuffle(names)
        case "case":
            names[at] = random.choice([names[at].upper(), b" %b " % names[at], b'"%b"' % names[at]])
        case "many":
            names += [b"c%d" % number for number in range(random.choice([10, 100, 1001 - len(names)]))]
    return names


def _sized(lines: list[bytes], random: Random) -> bytes:
    """Longer lines, or more of them: around the limits of a line, a record, a block and a batch."""
    at = random.randrange(len(lines))
    match random.choice(["many", "many", "wide", "deep"]):
        case "many":
            whole = b"\n".join(lines[:1] + lines[1:] * random.choice([2, 30, 300]))
            return whole if len(whole) < 2 * MAX_LINE_BYTES else b"\n".join(lines)
        case "wide":
            lines[at] += b"x" * (random.choice([1000, COUNTED_BYTES, MAX_LINE_BYTES]) - random.randint(0, 200))
        case "deep":
            lines[at] += b',"' + b"x\n" * (MAX_RECORD_LINES + random.randint(-2, 1)) + b'"'
    return b"\n".join(lines)


def _packed(text: bytes, random: Random) -> bytes:
    if random.random() < 0.6:
        return text
    cut = random.randint(0, len(text))
    data = gzip.compress(text, mtime=0)
    match random.choice(["", "", "members", "cut", "bytes", "tail", "header", "twice", "stored", "bomb"]):
        case "members":
            data = (
                gzip.compress(text[:cut]) + random.choice([b"", gzip.compress(b""), b"\0"]) + gzip.compress(text[cut:])
            )
        case "cut":
            data = data[: random.randint(0, len(data))]
        case "bytes":
            data = mutated(data, random, TOKENS, random.choice([1, 1, 3]))
        case "tail":
            data += random.choice([b"\0" * 99, b"x", b"\x1f", b"\x1f\x8b", data, data[:20], text[:50]])
        case "header":  # the flags: a name, a comment, extra bytes, a checksum
            data = data[:3] + bytes([random.randrange(256)]) + data[4:10] + random.randbytes(4) + data[10:]
        case "twice":
            data = gzip.compress(data)
        case "stored":
            packer = zlib.compressobj(0, wbits=31)
            data = b"".join([packer.compress(text[:cut]), packer.flush(zlib.Z_FULL_FLUSH), packer.compress(text[cut:])])
            data += packer.flush()
        case "bomb" if random.random() < 0.1:
            data = gzip.compress(text + b"1,2\n" * (17 << 20), 1)
    return data
