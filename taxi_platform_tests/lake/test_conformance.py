"""What every lake promises, on all of them."""

import io
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from taxi_platform.lake.base import ANY_VERSION, NEW, StoredObject
from taxi_platform.lake.checksums import FileSum
from taxi_platform.trips.errors import Conflict, LakeError

WRITERS = 8


def race(write):
    """Let eight writers write different bytes at once; returns the bytes of those who won, and how many lost."""

    def attempt(writer):
        data = f"writer {writer}".encode() * writer
        try:
            return write(data), data
        except Conflict:
            return None

    with ThreadPoolExecutor(WRITERS) as pool:
        results = list(pool.map(attempt, range(1, WRITERS + 1)))
    won = [result for result in results if result]
    return won, results.count(None)


def test_what_is_written_is_read_back_with_its_size_and_version(lake):
    stored = lake.write("raw/green/manifest.json", b'{"a": 1}')
    assert (stored.key, stored.size) == ("raw/green/manifest.json", 8)
    assert lake.read("raw/green/manifest.json") == (b'{"a": 1}', stored)
    assert lake.stat("raw/green/manifest.json") == stored
    assert lake.uri("raw/green/manifest.json") == f"{lake.url}/raw/green/manifest.json"


def test_an_object_without_bytes_is_an_object(lake, tmp_path):
    stored = lake.write("empty", b"")
    assert lake.read("empty") == (b"", stored)
    assert stored.size == 0
    with lake.local_copy("empty", tmp_path) as path:
        assert path.read_bytes() == b""


def test_every_write_makes_another_version_even_of_the_same_bytes(lake):
    first, second = lake.write("key", b"same"), lake.write("key", b"same")
    assert first.version != second.version
    assert lake.stat("key") == second


def test_a_missing_object_is_reported(lake, tmp_path):
    assert lake.stat("a/b") is None
    assert lake.read("a/b") is None
    assert lake.list("a/") == []
    lake.delete("a/b")
    with pytest.raises(LakeError, match="again"):
        lake.open("a/b")
    with pytest.raises(LakeError, match=r"a/b is missing\. Materialize the month's"), lake.local_copy("a/b", tmp_path):
        pass


def test_a_listing_is_sorted_and_holds_the_keys_below_its_prefix_only(lake):
    for key in ("a/b/2", "a/b/c/1", "a/b/1", "a/bc/1", "b/1"):
        lake.write(key, b"x")
    assert lake.list("a/b/") == ["a/b/1", "a/b/2", "a/b/c/1"]
    assert lake.list("a/") == ["a/b/1", "a/b/2", "a/b/c/1", "a/bc/1"]


def test_the_keys_of_one_month_in_many_folders_are_listed_together(lake):
    for key in ("m/a/month=1/x", "m/a/month=1/y/z", "m/a/month=2/x", "m/b/month=1/x", "m/b/c/month=1/x", "m/month=1/x"):
        lake.write(key, b"x")
    lake.write("n/a/month=1/x", b"x")
    lake.write("m/notes.txt", b"by a person")
    assert lake.list_in_folders("m/", "month=1") == ["m/a/month=1/x", "m/a/month=1/y/z", "m/b/month=1/x"]
    assert lake.list_in_folders("nothing/", "month=1") == []


@pytest.mark.parametrize("key", ["clean/month=2021-01/trips.parquet", "a b/c+d", "50%/x", "ä/ü.json", "raw/x~1"])
def test_names_keep_their_slashes_and_odd_characters(lake, key):
    stored = lake.write(key, b"bytes")
    assert lake.list(f"{key.rpartition('/')[0]}/") == [key]
    assert lake.read(key) == (b"bytes", stored)
    lake.delete(key)
    assert lake.stat(key) is None


def test_a_file_larger_than_a_chunk_is_stored_and_copied_byte_for_byte(lake, tmp_path):
    data = os.urandom(20 * 1024 * 1024 + 1)
    (tmp_path / "file").write_bytes(data)
    assert lake.upload("big/file.gz", tmp_path / "file").size == len(data)
    with lake.local_copy("big/file.gz", tmp_path) as path:
        assert path.read_bytes() == data


def test_an_open_object_is_read_from_any_place(lake):
    data = bytes(range(256)) * 4096
    lake.write("object", data)
    with lake.open("object") as file:
        assert file.seek(-8, os.SEEK_END) == len(data) - 8
        assert file.read() == data[-8:]
        file.seek(700_001)
        assert file.read(100) == data[700_001:700_101]
        assert file.tell() == 700_101
        file.seek(0)
        assert file.read() == data


def test_a_new_object_does_not_replace_one_that_is_there(lake, tmp_path):
    first = lake.write("key", b"first", NEW)
    with pytest.raises(Conflict, match="key was replaced by another run"):
        lake.write("key", b"second", NEW)
    (tmp_path / "file").write_bytes(b"third")
    with pytest.raises(Conflict):
        lake.upload("key", tmp_path / "file", NEW)
    assert lake.read("key") == (b"first", first)


def test_only_the_version_that_was_seen_is_replaced(lake):
    first = lake.write("key", b"first")
    second = lake.write("key", b"second", first.version)
    with pytest.raises(Conflict):
        lake.write("key", b"third", first.version)
    assert lake.read("key") == (b"second", second)
    assert lake.write("key", b"fourth", ANY_VERSION).size == 6


def test_an_object_that_was_removed_is_not_replaced(lake):
    first = lake.write("key", b"first")
    lake.delete("key")
    with pytest.raises(Conflict):
        lake.write("key", b"second", first.version)
    assert lake.stat("key") is None


def test_of_eight_creators_at_once_exactly_one_wins(lake):
    won, lost = race(lambda data: lake.write("key", data, NEW))
    [(stored, data)] = won
    assert lost == WRITERS - 1
    assert lake.read("key") == (data, stored)


@pytest.mark.fault(34)
def test_of_eight_replacers_at_once_exactly_one_wins(lake):
    seen = lake.write("key", b"before")
    won, lost = race(lambda data: lake.write("key", data, seen.version))
    [(stored, data)] = won
    assert lost == WRITERS - 1
    assert lake.read("key") == (data, stored)


def test_a_version_that_was_replaced_is_not_deleted(lake):
    first = lake.write("key", b"first")
    second = lake.write("key", b"second")
    lake.delete("key", first.version)
    assert lake.stat("key") == second
    lake.delete("key", second.version)
    assert lake.stat("key") is None


def test_nothing_temporary_is_left_behind(lake, tmp_path):
    copies = tmp_path / "copies"
    copies.mkdir()
    stored = lake.write("a/key", b"bytes")
    with pytest.raises(Conflict):
        lake.write("a/key", b"others", NEW)
    with pytest.raises(RuntimeError, match="in use"), lake.local_copy("a/key", copies) as path:
        assert path.read_bytes() == b"bytes"
        raise RuntimeError("in use")
    assert list(copies.iterdir()) == []
    assert lake.list("a/") == ["a/key"]
    assert isinstance(stored, StoredObject)
    if root := getattr(lake, "root", None):
        assert [path.name for path in Path(root, ".tmp").iterdir()] == []
        assert (root / "a" / "key").read_bytes() == b"bytes"


def test_access_is_checked_without_leaving_anything(lake):
    for change in lake.plan():
        if change.needed:
            change.apply()
    assert not any(change.needed for change in lake.plan())
    lake.check_access()
    assert lake.list(".check/") == []


def test_what_is_directly_under_a_prefix_is_named_once(lake):
    for key in ("raw/green/2020-04/manifest.json", "raw/green/2020-04/x/y.gz", "raw/green/2020-05/z", "raw/green/note"):
        lake.write(key, b"x")
    assert lake.names("raw/green/") == {"2020-04", "2020-05", "note"}
    assert lake.names("raw/yellow/") == set()


@pytest.mark.fault(73)
def test_an_object_is_compared_with_what_was_stored(lake):
    whole, other = FileSum.of(io.BytesIO(b"whole")), FileSum.of(io.BytesIO(b"wholE"))
    lake.write("a/b", b"whole")
    assert lake.holds("a/b", whole)
    assert lake.holds("a/b", replace(whole, crc32c=""))  # of raw files, only the sha256 is known
    assert not lake.holds("a/b", other)
    assert not lake.holds("a/b", replace(whole, size=4))
    assert not lake.holds("a/c", whole)
