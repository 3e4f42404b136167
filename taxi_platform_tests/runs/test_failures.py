"""`taxi status` asks Dagster what failed only if its files say that something may have."""

import dagster as dg
import pytest

from taxi_platform.assets.names import FRESHNESS_CHECK
from taxi_platform.runs.failures import may_have_failures
from taxi_platform.runs.home import write_dagster_yaml

MONTHS = dg.MonthlyPartitionsDefinition("2024-01", fmt="%Y-%m")


class Fails(dg.Config):
    run: bool = False
    check: bool = False
    freshness: bool = False


CHECKS = ("rows_accounted_for", FRESHNESS_CHECK)


@dg.asset(
    partitions_def=MONTHS,
    check_specs=[dg.AssetCheckSpec(name, asset="trips", partitions_def=MONTHS) for name in CHECKS],
)
def trips(config: Fails):
    if config.run:
        raise RuntimeError("no source")
    passed = {"rows_accounted_for": not config.check, FRESHNESS_CHECK: not config.freshness}
    checks = [dg.AssetCheckResult(check_name=name, passed=value) for name, value in passed.items()]
    return dg.MaterializeResult(check_results=checks)


@pytest.fixture
def home(tmp_path):
    write_dagster_yaml(tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)):
        return tmp_path


def ingest(home, month="2024-01", job="green_ingest", **fails):
    jobs = [dg.define_asset_job(job, [trips]), dg.define_asset_job("other")]
    definitions = dg.Definitions([trips], jobs=jobs)
    config = {"ops": {"trips": {"config": fails}}}
    with dg.DagsterInstance.from_config(str(home)) as instance:
        resolved = definitions.resolve_job_def(job)
        resolved.execute_in_process(config, instance, partition_key=month, raise_on_error=False)


def test_a_history_without_failures_has_none(home):
    assert not may_have_failures(home)
    ingest(home)
    ingest(home, freshness=True)  # it is about the table, not the month
    assert not may_have_failures(home)


def test_a_failed_run_may_be_one_until_its_month_succeeds_in_the_same_job(home):
    ingest(home, run=True)
    assert may_have_failures(home)
    ingest(home, "2024-02")
    ingest(home, job="fhv_ingest")
    assert may_have_failures(home)
    ingest(home)
    assert not may_have_failures(home)
    ingest(home, job="__ASSET_JOB", run=True)
    ingest(home, job="__ASSET_JOB")  # of which dataset, its name does not say
    assert may_have_failures(home)


def test_a_check_that_did_not_pass_is_one_until_it_passes_for_the_month(home):
    ingest(home, check=True)
    assert may_have_failures(home)
    ingest(home, "2024-02")
    assert may_have_failures(home)
    ingest(home)
    assert not may_have_failures(home)


def test_a_run_in_progress_may_be_dead(home):
    with dg.DagsterInstance.from_config(str(home)) as instance:
        job = dg.Definitions([trips]).resolve_implicit_global_asset_job_def()
        instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    assert may_have_failures(home)


def test_files_that_do_not_tell_may_hide_failures(home, tmp_path):
    assert may_have_failures(tmp_path / "elsewhere")
    (home / "history" / "runs" / "index.db").write_bytes(b"damaged")
    assert may_have_failures(home)
    yaml = home / "dagster.yaml"
    yaml.write_text(f"{yaml.read_text('utf-8')}storage: {{sqlite: {{base_dir: elsewhere}}}}\n", "utf-8")
    assert may_have_failures(home)
