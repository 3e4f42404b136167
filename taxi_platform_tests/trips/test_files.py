"""The files module: formats by first bytes, and the one definition of a record."""

import gzip
import hashlib
import io
import re
import tracemalloc
import zlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from taxi_platform.trips import files, formats
from taxi_platform.trips.errors import NotData
from taxi_platform.trips.files import Inspector, verify
from taxi_platform.trips.formats import Format, decompressed, sniff
from taxi_platform.trips.records import MAX_LINE_BYTES, RecordCounter, records

CSV = b"VendorID,zone\n1,a\n2,b\n3,c\n"


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


def count(data: bytes, size: int = 1 << 20) -> int:
    counter = RecordCounter()
    for piece in pieces(data, size):
        counter.feed(piece)
    return counter.finish()


def unpacked(data: bytes) -> bytes:
    return b"".join(decompressed(io.BytesIO(data)))


def reference(data: bytes, max_bytes: int, max_lines: int) -> list[tuple[int, bytes]]:
    """The definition, written as plainly as possible: a byte at a time over the whole text."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    if b"\n" not in data:
        data = data.replace(b"\r", b"\n")
    if data and not data.endswith(b"\n"):
        data += b"\n"
    lines = data.splitlines(keepends=True) if b"\r" not in data else re.findall(rb"[^\n]*\n", data)
    found, index = [], 0
    while index < len(lines):
        taken = next((n for n in range(1, max_lines + 1) if well_formed(b"".join(lines[index : index + n]))), 1)
        text = b"".join(lines[index : index + taken])
        if taken > 1 and len(text) > max_bytes:
            taken, text = 1, lines[index]
        text = text[:-1].removesuffix(b"\r")
        if len(text) > max_bytes or text.strip(b" \r"):
            found.append((index + 1, text[: max_bytes + 1]))
        index += taken
    return found


def well_formed(text: bytes) -> bool:
    """Whether the text is exactly one RFC 4180 record (literal quotes inside unquoted fields allowed)."""
    text = text[:-1].removesuffix(b"\r")
    at = 0
    while True:
        if text[at : at + 1] == b'"':
            at += 1
            while True:
                if (at := text.find(b'"', at)) < 0:
                    return False
                if text[at + 1 : at + 2] != b'"':
                    break
                at += 2
            at += 1
            if at < len(text) and text[at : at + 1] != b",":
                return False
        else:
            end = text.find(b",", at)
            end = len(text) if end < 0 else end
            if b"\n" in text[at:end]:
                return False
            at = end
        if at >= len(text):
            return True
        at += 1


TEXT = st.lists(
    st.sampled_from(
        [b'"', b'"', b",", b"\n", b"\n", b"\r\n", b"\r", b"a", b" ", b"bcd", b'""', b'","', b'\n"', b"\xff"]
    )
).map(b"".join)


@pytest.mark.fault(14)
@settings(max_examples=600, deadline=None)
@given(TEXT, st.integers(1, 9))
@example(b'a"b,"c\nd"\n', 3)
@example(b'"a""\n"",b"\r\nc', 2)
@example(b'h\n"' + b"x\n" * 6 + b'"\n', 4)
@example(b"\r\nh\r\n\r\n1\r\n", 1)
@example(b'\xef\xbb\xbf"h\nh"\n1', 1)
def test_records_and_count_agree_with_the_plain_definition_wherever_chunks_end(data, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("taxi_platform.trips.records.MAX_LINE_BYTES", 12)
        patch.setattr("taxi_platform.trips.records.MAX_RECORD_LINES", 4)
        expected = reference(data, 12, 4)
        assert list(records(pieces(data, size))) == expected
        assert list(records([data])) == expected
        if expected:
            assert count(data, size) == len(expected) - 1
        else:
            with pytest.raises(NotData, match="blank"):
                count(data, size)


@pytest.mark.fault(12, 14)
@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (b"h,i\n1,2\n3,4\n", 2),
        (b"h,i\r\n1,2\r\n3,4", 2),
        (b"h,i\r1,2\r3,4\r", 2),
        (b"h,i\n\n1,2\n  \n3,4\n\n", 2),
        (b"h,i\n,\n,,\n", 2),
        (b'h,i\n"a\nb",2\n"c ""d"" ,\n\n",4\n', 2),
        (b'h,i\n5" pipe,2\n6",4\n', 2),
        (b'h,i\n"open,2\n3,4\n', 2),
        (b'h,i\n"a"b,2\n3,4\n', 2),
        (b"h,i\n", 0),
        (b"h,i", 0),
    ],
)
def test_line_ends_blank_lines_and_quotes_are_counted_as_people_mean_them(text, rows):
    assert count(text) == rows


def test_a_quoted_field_may_take_100_lines_and_no_more():
    field = lambda lines: b'h\n"' + b"x\n" * (lines - 1) + b'"\n1\n'  # noqa: E731
    assert count(field(100)) == 2
    assert count(field(101)) == 102


def test_carriage_returns_end_lines_only_where_the_first_64_kib_hold_no_newline():
    assert count(b"h\r" + b"12345\r" * 20_000, 1000) == 20_000
    assert count(b"h\n" + b"12345\r" * 20_000, 1000) == 1


@pytest.mark.fault(17)
def test_a_line_of_300_mb_is_one_record_and_costs_little_memory():
    def chunks():
        yield b"h\n"
        for _ in range(300):
            yield bytes(b"x" * 1_000_000)
        yield b"\n1\n"

    tracemalloc.start()
    found = list(records(chunks()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(line, len(text)) for line, text in found] == [(1, 1), (2, MAX_LINE_BYTES + 1), (3, 1)]
    assert peak < 30_000_000


def test_a_quote_that_never_closes_costs_one_record_not_the_file():
    text = b'h,i\na,"b\n' + b"x,y\n" * 500_000
    assert count(text, 10_000) == 500_001
    assert next(line for line, record in records([text]) if record == b'a,"b') == 2


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (b"", "empty"),
        (b"\n <!DOCTYPE html><html>", "HTML"),
        (b"\xef\xbb\xbf<html>", "HTML"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "AccessDenied"),
        (b"PK\x03\x04rest", "zip"),
        ("VendorID,zone".encode("utf-16"), "Save it as UTF-8"),
        ("VendorID,zone".encode("utf-16-le"), "Save it as UTF-8"),
        (b'{"message": "rate limit"}', "JSON"),
    ],
)
def test_what_cannot_be_trips_is_refused_by_its_first_bytes(head, says):
    with pytest.raises(NotData, match=says):
        sniff(head)


def test_formats_are_recognised_by_their_first_bytes():
    assert sniff(b"PAR1....") is Format.PARQUET
    assert sniff(gzip.compress(CSV)) is Format.GZIP
    assert sniff(CSV) is Format.CSV
    assert sniff(b"\xef\xbb\xbf" + CSV) is Format.CSV


def test_all_members_of_a_gzip_file_are_read_and_the_byte_order_mark_is_not():
    data = gzip.compress(b"\xef") + gzip.compress(b"\xbb\xbf" + CSV) + gzip.compress(b"4,d\n") * 50 + b"\0" * 9
    assert unpacked(data) == CSV + b"4,d\n" * 50
    assert unpacked(b"\xef\xbb\xbf" + CSV) == CSV


@pytest.mark.fault(1, 2, 3)
@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: data[:-9], "truncated"),
        (lambda data: data + b"garbage", "corrupt"),
        (lambda data: data[:-8] + bytes([data[-8] ^ 1]) + data[-7:], "corrupt"),
        (lambda data: gzip.compress(data), "csv.gz, not CSV"),
        (lambda data: gzip.compress(b"<html>busy</html>"), "HTML"),
        (lambda data: gzip.compress(b""), "empty"),
    ],
)
def test_a_damaged_gzip_file_is_refused(damage, says):
    with pytest.raises(NotData, match=says):
        unpacked(damage(gzip.compress(CSV * 1000)))


@pytest.mark.fault(4)
def test_a_bomb_is_stopped_early_in_bounded_memory():
    deflate = zlib.compressobj(9, wbits=31)
    bomb = b"".join(deflate.compress(b"1,2\n" * (1 << 18)) for _ in range(300)) + deflate.flush()
    tracemalloc.start()
    written = 0
    with pytest.raises(NotData, match="decompression bomb"):
        for text in decompressed(io.BytesIO(bomb)):
            written += len(text)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 64 << 20 <= written <= 66 << 20
    assert peak < 10_000_000


def test_more_text_than_allowed_is_refused_whatever_its_ratio(monkeypatch):
    monkeypatch.setattr(formats, "MAX_UNCOMPRESSED_BYTES", 20_000)
    assert len(unpacked(gzip.compress(b"1,2\n" * 5000))) == 20_000
    with pytest.raises(NotData, match="bomb"):
        unpacked(gzip.compress(b"1,2\n" * 5001))


@pytest.fixture
def parquet(tmp_path):
    path = tmp_path / "month.parquet"
    pq.write_table(pa.table({"VendorID": range(1234)}), path)
    return path


def test_verify_tells_format_and_rows(tmp_path, parquet):
    plain, packed = tmp_path / "a.csv", tmp_path / "a.csv.gz"
    plain.write_bytes(CSV)
    packed.write_bytes(gzip.compress(CSV))
    assert verify(plain)[:2] == (Format.CSV, 3)
    assert verify(packed)[:2] == (Format.GZIP, 3)
    assert verify(parquet) == (Format.PARQUET, 1234, False)
    plain.write_bytes(b"VendorID\n")
    assert verify(plain) == (Format.CSV, 0, True)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (b"a,b\n1,2\n", True),
        (b"a,b\r\n1,2\r\n3,4", True),
        (b"a,b\n\n1,2\n", False),
        (b"a,b\n1,2\r\n", False),
        (b"a,b\r\n1,2\n3\r,4\n", False),
        (b'a,b\n1,"2"\n', False),
        (b"a,b\n1,\t2\n", False),
        (b"a,b\n1,\xc3\xa9\n", False),
        (b"a,b\r1,2\r", False),
        (b"a,b\n1," + b"x" * MAX_LINE_BYTES + b"\n3,4\n", False),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1 << 22])
def test_a_plain_file_is_one_that_every_reader_reads_the_same_way(text, plain, size):
    size = max(size, len(text) // 1000)
    counter = RecordCounter()
    for start in range(0, len(text), size):
        counter.feed(text[start : start + size])
    counter.finish()
    assert counter.plain is plain


@pytest.mark.parametrize("keep", [4, 11, -1, -5])
def test_a_parquet_file_with_a_broken_footer_is_refused(parquet, keep):
    parquet.write_bytes(parquet.read_bytes()[:keep])
    with pytest.raises(NotData, match="footer"):
        verify(parquet)


def nested(depth):
    kind, value = pa.int64(), 1
    for _ in range(depth):
        kind, value = pa.list_(kind), [value]
    return pa.table({"a": pa.array([value], kind)})


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (pa.table({f"c{n}": [1] for n in range(1001)}), r"has 1,001 columns\. The limit is 1,000;"),
        (pa.table({"a": pa.StructArray.from_arrays([[1]] * 1001, [f"c{n}" for n in range(1001)])}), "1,001 columns"),
        (nested(90), "footer"),
    ],
    ids=["wide", "struct", "deep"],
)
def test_a_parquet_file_of_too_many_or_too_deep_columns_is_refused(parquet, table, says):
    pq.write_table(table, parquet)
    with pytest.raises(NotData, match=says):
        verify(parquet)


def test_a_parquet_footer_of_9_mb_is_not_read(parquet):
    with pq.ParquetWriter(parquet, pa.schema([("a", pa.int64())])) as writer:
        writer.add_key_value_metadata({"a": "x" * (9 << 20)})
    with pytest.raises(NotData, match=r"footer has 9,437,\d\d\d bytes"):
        verify(parquet)


def test_a_parquet_file_of_more_rows_than_ten_times_the_largest_month_is_refused(parquet, monkeypatch):
    monkeypatch.setattr(files, "MAX_PARQUET_ROWS", 1234)
    assert verify(parquet).rows == 1234
    monkeypatch.setattr(files, "MAX_PARQUET_ROWS", 1233)
    with pytest.raises(NotData, match=r"has 1,234 rows\. The limit is 1,233\."):
        verify(parquet)


def test_a_parquet_file_that_counts_other_rows_than_its_row_groups_is_refused(parquet):
    data = parquet.read_bytes()
    in_footer = data.index(b"\x16\xa4\x13", len(data) - 8 - int.from_bytes(data[-8:-4], "little"))  # 2 * 1234
    parquet.write_bytes(data[:in_footer] + b"\x16\xa6\x13" + data[in_footer + 3 :])
    with pytest.raises(NotData, match=r"row groups .* do not add up to the rows in its footer"):
        verify(parquet)


def test_a_file_of_blank_lines_has_no_header(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"\n  \r\n\n")
    with pytest.raises(NotData, match="blank"):
        verify(path)


@pytest.mark.parametrize("size", [1, 7, 1000, 1 << 20])
def test_the_inspector_finds_everything_in_one_pass(tmp_path, parquet, size):
    packed = tmp_path / "a.csv.gz"
    packed.write_bytes(gzip.compress(CSV))
    for path, format, rows in [(packed, Format.GZIP, 3), (parquet, Format.PARQUET, 1234)]:
        data = path.read_bytes()
        inspector = Inspector()
        for piece in pieces(data, size):
            inspector.feed(piece)
        assert inspector.finish(path)[:4] == (format, rows, hashlib.sha256(data).hexdigest(), len(data))


def test_the_inspector_refuses_a_page_before_its_end():
    with pytest.raises(NotData, match="HTML"):
        Inspector().feed(b"<html>" + b" " * 600)
