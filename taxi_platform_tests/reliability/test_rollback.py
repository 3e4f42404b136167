"""A home goes back by one version and forward again, by whole commands, with what each version was locked to."""

import json
from collections import Counter

import dagster as dg
import duckdb
import pytest

from taxi_platform import __version__
from taxi_platform.lake import open_lake
from taxi_platform.lake.months import LakeMonth
from taxi_platform.runs.home_record import check_home
from taxi_platform.runs.instance import open_instance
from taxi_platform.settings import load_settings
from taxi_platform.trips.months import DatasetMonth
from taxi_platform_tests.support.earlier_versions import BEFORE, TODAY, changed_requirements, unpack

FIRST, REPUBLISHED = "2020-04", "2020-05"
MONTHS = [FIRST, REPUBLISHED, "2020-06"]


class Home:
    """Commands of any version on one home, whose source has so many rows in each month."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.monkeypatch = folder, monkeypatch
        monkeypatch.setenv("TAXI_HOME", str(folder / "home"))
        monkeypatch.setenv("TAXI_DATASETS", "green")

    def json(self, version, *arguments, rows=300):
        self.monkeypatch.setenv("TAXI_SOURCE_URL", f"sample://?rows={rows}")
        return json.loads(version.taxi(*arguments, "--json", cwd=self.folder))

    def ingest(self, version, *months, rows=300):
        return [result["status"] for result in self.json(version, "ingest", "green", *months, rows=rows)]

    def stages(self, version):
        months = self.json(version, "status")
        return {month["month"]: month["stage"] for month in months if month["rows"]}

    def problems(self, version):
        return [problem for result in self.json(version, "audit") for problem in result["problems"]]


def test_an_earlier_version_brings_what_was_locked_in_another_version_then():
    pins = {"a==1": "aa", "b==2 ; python_version < '3.12'": "bb", "c==3": "cc"}
    before = "".join(f"{pin} \\\n    --hash=sha256:{digest}\n" for pin, digest in pins.items())
    today = before.replace("b==2", "b==2.1").replace("c==3", "d==3")
    assert changed_requirements(before, today).splitlines() == [
        *("b==2 ; python_version < '3.12' \\", "    --hash=sha256:bb", "c==3 \\", "    --hash=sha256:cc")
    ]


@pytest.mark.slow
@pytest.mark.fault(76)
@pytest.mark.soak
def test_a_home_of_today_goes_back_by_a_version_and_forward_again_and_loses_nothing(tmp_path, monkeypatch):
    before, home = unpack(BEFORE, tmp_path / "before"), Home(tmp_path, monkeypatch)
    assert home.ingest(TODAY, FIRST, MONTHS[-1]) == ["loaded"] * 3

    assert home.stages(before) == dict.fromkeys(MONTHS, "loaded")
    assert home.ingest(before, FIRST, MONTHS[-1]) == ["unchanged"] * 3
    assert home.ingest(before, REPUBLISHED, rows=350) == ["loaded"]
    assert home.ingest(before, "2020-07") == ["loaded"]
    assert home.problems(before) == []

    assert home.stages(TODAY) == dict.fromkeys([*MONTHS, "2020-07"], "loaded")
    assert home.ingest(TODAY, FIRST) == home.ingest(TODAY, REPUBLISHED, rows=350) == ["unchanged"]
    assert home.ingest(TODAY, "2020-08") == ["loaded"]
    assert home.problems(TODAY) == []

    settings = load_settings()
    raw, _ = LakeMonth(open_lake(settings.lake_url), DatasetMonth.parse("green", REPUBLISHED)).versions()
    assert [version.rows for version in raw] == [300, 350]
    with duckdb.connect(settings.home / "trips.duckdb", read_only=True) as con:
        counts = con.sql(
            "SELECT strftime(file_month, '%Y-%m'), count(*) FROM (SELECT file_month FROM green_trips UNION ALL "
            "SELECT file_month FROM green_rejected_trips) GROUP BY 1"
        ).fetchall()
    assert dict(counts) == {FIRST: 300, REPUBLISHED: 350, "2020-06": 300, "2020-07": 300, "2020-08": 300}
    with open_instance(settings) as instance:
        runs = Counter(run.status for run in instance.get_runs())
        assert runs == {dg.DagsterRunStatus.SUCCESS: 3 + 3 + 2 + 3}
        assert instance.get_materialized_partitions(dg.AssetKey(["green", "trips"])) == set(dict(counts))
    assert check_home(settings.home).last_version == __version__
