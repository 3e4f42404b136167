"""An error of the operating system is named as what it is; it is not always a full disk."""

import errno
import os

import duckdb
import pytest

from taxi_platform.ingestion.work_folder import work_folder
from taxi_platform.sources.file import FileSource
from taxi_platform.trips.errors import LakeError, SourceRefused, SourceUnavailable
from taxi_platform.trips.months import DatasetMonth
from taxi_platform.trips.os_errors import number_in, remedy

MONTH = DatasetMonth.parse("green", "2020-04")


@pytest.mark.fault(68)
@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.EACCES, "Give the user that runs the platform access"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "disk or network drive failed"),
        (errno.EMFILE, r"ulimit -n"),
        (errno.EDQUOT, "quota"),
        (errno.ENOSPC, "disk is full"),
    ],
)
def test_the_work_folder_names_the_error_and_what_helps_against_it(tmp_path, number, says):
    says = rf"Cannot work in .*: {os.strerror(number)}\. .*{says}"
    with pytest.raises(LakeError, match=says), work_folder(tmp_path, MONTH):
        raise OSError(number, os.strerror(number))


@pytest.mark.fault(68)
@pytest.mark.parametrize(("number", "kind"), [(errno.EIO, SourceUnavailable), (errno.EACCES, SourceRefused)])
def test_a_source_that_cannot_be_read_to_its_end_is_not_the_work_folders_fault(tmp_path, monkeypatch, number, kind):
    def failing(file):
        yield file.read(10)
        raise OSError(number, os.strerror(number))

    (tmp_path / "green_2020-04.csv").write_text("lpep_pickup_datetime\n2020-04-01 00:00:00\n")
    monkeypatch.setattr("taxi_platform.sources.file.chunks_of", failing)
    says = rf"green_2020-04\.csv cannot be read: {os.strerror(number)}"
    with pytest.raises(kind, match=says) as caught, work_folder(tmp_path, MONTH) as folder:
        FileSource(f"{tmp_path}/green_{{month}}.csv").fetch(MONTH, folder)
    assert "TAXI_HOME" not in str(caught.value)


def test_the_error_that_duckdb_quotes_is_recognised(tmp_path):
    with pytest.raises(duckdb.IOException) as caught:
        duckdb.connect(str(tmp_path / "none" / "file.duckdb"))
    assert number_in(str(caught.value)) == errno.ENOENT
    assert number_in("something else") is None
    assert remedy(None, "TAXI_HOME") == "Check the disk, and TAXI_HOME."
