"""What can go wrong only in a folder."""

import traceback

import pytest

from taxi_platform.ingestion.work_folder import work_folder
from taxi_platform.lake import open_lake
from taxi_platform.trips.errors import LakeError, SettingError
from taxi_platform.trips.months import DatasetMonth


@pytest.mark.fault(43)
@pytest.mark.parametrize("key", ["../outside", "raw/../../outside", "/etc/passwd", "raw/a\0b"])
def test_a_key_that_leads_out_of_the_folder_is_refused(tmp_path, key):
    lake = open_lake((tmp_path / "lake").as_uri())
    (tmp_path / "outside").write_bytes(b"theirs")
    for use in (lake.stat, lake.read, lake.open, lake.delete, lambda key: lake.write(key, b"ours")):
        with pytest.raises((LakeError, ValueError), match=r"leads out of the lake|null"):
            use(key)
    assert (tmp_path / "outside").read_bytes() == b"theirs"


def test_a_path_is_refused_with_its_url():
    with pytest.raises(SettingError, match=r"^TAXI_LAKE_URL is a path, .* Write it as file:///tmp/my-lake\.$"):
        open_lake("/tmp/my-lake")


@pytest.mark.parametrize(
    "url",
    [
        *("", "lake", "file://", "file://server/lake", "s3://bucket/x", "gs://", "gs://B/x", "gs://bucket/a?b=c"),
        *("file:///a%00b", "file://[canary/x", "gs://me:canary℀@host/x", "//me:canary@host/x"),
    ],
)
def test_a_url_that_is_not_supported_is_refused_with_those_that_are(url):
    with pytest.raises(SettingError, match=r"TAXI_LAKE_URL .* file:///absolute/folder or gs://bucket/prefix") as caught:
        open_lake(url)
    assert "canary" not in "".join(traceback.format_exception(caught.value))


def test_a_home_whose_path_is_too_long_is_refused_with_a_remedy(tmp_path):
    with (
        pytest.raises(LakeError, match=r"File name too long.* shorter path"),
        work_folder(tmp_path / ("x" * 300), DatasetMonth.parse("green", "2020-04")),
    ):
        pass
