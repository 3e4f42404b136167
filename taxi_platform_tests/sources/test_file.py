"""FileSource: months in a folder."""

import gzip
import hashlib
import os

import pytest

from taxi_platform.sources.file import FileSource
from taxi_platform.trips.errors import NotData, NotPublished, SourceRefused, SourceUnavailable
from taxi_platform.trips.months import DatasetMonth

MONTH = DatasetMonth.parse("yellow", "2021-01")
DATA = gzip.compress(b"VendorID,fare\n1,2.5\n2,3.5\n", mtime=0)


@pytest.fixture
def published(tmp_path):
    path = tmp_path / "in" / "yellow_tripdata_2021-01.csv.gz"
    path.parent.mkdir()
    path.write_bytes(DATA)
    return path


@pytest.fixture
def source(published):
    return FileSource(str(published.parent) + "/{dataset}_tripdata_{month}.csv.gz")


def test_a_file_is_described_by_size_and_time_and_copied_while_counted(source, published, tmp_path):
    os.utime(published, ns=(1, 1_600_000_000_123_456_789))
    found = source.stat(MONTH)
    assert (found.version, found.size) == (f"1600000000123456789 {len(DATA)}", len(DATA))
    assert found.url == f"file://{published}"
    seen = []
    fetched = source.fetch(MONTH, tmp_path / "out", lambda done, total: seen.append((done, total)))
    assert fetched.path == tmp_path / "out" / published.name
    assert fetched.path.read_bytes() == DATA
    assert (fetched.rows, fetched.size, fetched.sha256) == (2, len(DATA), hashlib.sha256(DATA).hexdigest())
    assert fetched.publication == found
    assert seen == [(len(DATA), len(DATA))]


def test_a_missing_file_is_not_published(source, tmp_path):
    other = DatasetMonth.parse("yellow", "2021-02")
    assert source.stat(other) is None
    with pytest.raises(NotPublished, match="2021-02"):
        source.fetch(other, tmp_path / "out")


@pytest.mark.parametrize("rest", ["{dataset}_{month}.csv", "{dataset}/{month}.csv", "green_{month}.csv"])
def test_a_missing_month_of_a_folder_that_is_there_is_not_published_of_another_unknown(tmp_path, rest):
    assert FileSource(f"{tmp_path}/{rest}").stat(MONTH) is None
    (tmp_path / "file").touch()
    for folder in (tmp_path / "gone", tmp_path / "file" / "below"):
        with pytest.raises(SourceUnavailable) as caught:
            FileSource(f"{folder}/{rest}").stat(MONTH)
        assert str(caught.value) == f"The folder {folder} does not exist. Check TAXI_SOURCE_URL, or mount it."


def test_a_folder_in_the_files_place_is_refused(source, published):
    published.unlink()
    published.mkdir()
    with pytest.raises(SourceRefused, match="not a file"):
        source.stat(MONTH)


def test_an_unreadable_file_is_refused_with_a_remedy(source, tmp_path, monkeypatch):
    def denied(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", denied)
    with pytest.raises(SourceRefused, match=r"cannot be read: Permission denied\. Give the user .* TAXI_SOURCE_URL"):
        source.fetch(MONTH, tmp_path / "out")
    monkeypatch.setattr("pathlib.Path.stat", denied)
    with pytest.raises(SourceRefused, match="Permission denied"):
        source.stat(MONTH)


@pytest.mark.parametrize("content", [b"", b"<html></html>", DATA[:-3]])
def test_what_is_no_data_leaves_nothing_behind(source, published, tmp_path, content):
    published.write_bytes(content)
    with pytest.raises(NotData, match="yellow_tripdata_2021-01"):
        source.fetch(MONTH, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_still_being_written_is_not_taken(source, published, tmp_path):
    with pytest.raises(SourceUnavailable, match="changed while"):
        source.fetch(MONTH, tmp_path / "out", lambda done, total: os.utime(published, ns=(1, 1)))
    assert list((tmp_path / "out").iterdir()) == []
