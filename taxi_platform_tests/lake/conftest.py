"""Every lake the same tests run on."""

import pytest

from taxi_platform.lake import open_lake
from taxi_platform_tests.support.emulators.fixtures import bucket, gcs_url, real_lake, storage_host  # noqa: F401


@pytest.fixture(params=["local", "gcs", pytest.param("real", marks=pytest.mark.real_gcp)])
def lake(request, tmp_path):
    match request.param:
        case "local":
            return open_lake((tmp_path / "a lake").as_uri())
        case "gcs":
            return open_lake(request.getfixturevalue("gcs_url"))
        case _:
            lake = request.getfixturevalue("real_lake")
            for key in lake.list(""):
                lake.delete(key)
            return lake
