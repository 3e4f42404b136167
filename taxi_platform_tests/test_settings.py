"""Settings: defaults, and one clear message for every wrong value."""

import traceback

import pytest

from taxi_platform.settings import check_urls, load_settings, unknown_names
from taxi_platform.trips.errors import SettingError
from taxi_platform.trips.months import Dataset


def test_the_defaults_need_no_account_and_no_network(tmp_path):
    settings = load_settings({"TAXI_HOME": str(tmp_path)})
    assert settings.source_url == "sample://"
    assert settings.lake_url == (tmp_path / "lake").as_uri()
    assert settings.warehouse_url == f"duckdb://{tmp_path}/warehouse.duckdb"
    assert settings.serving_url is None
    assert settings.datasets == tuple(Dataset)
    assert settings.dagster_home == tmp_path / "dagster"


def test_a_relative_home_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_settings({"TAXI_HOME": "mine"}).home == tmp_path / "mine"


def test_datasets_keep_their_order_and_count_once():
    assert load_settings({"TAXI_DATASETS": "fhv, green,fhv"}).datasets == (Dataset.GREEN, Dataset.FHV)


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("TAXI_DATASETS", "purple", "yellow, green, fhv, fhvhv"),
        ("TAXI_DATASETS", ", ,", "yellow, green, fhv, fhvhv"),
        ("TAXI_REJECT", "ugly", "zero_passengers"),
        ("TAXI_SINCE", "2999-01", "future"),
        ("TAXI_MEMORY_LIMIT", "much", "512MB"),
        ("TAXI_MEMORY_LIMIT", "1MB", "128MB or more"),
        ("TAXI_THREADS", "0", "1 to 256"),
        ("TAXI_THREADS", "two", "1 to 256"),
        ("TAXI_THREADS", "9" * 5000, "1 to 256"),
        ("TAXI_MEMORY_LIMIT", "５１２MB", "512MB"),
        ("TAXI_MEMORY_LIMIT", "9999999999GB", "512MB"),
        ("TAXI_HOME", "~nobody here/data", "takes a folder"),
        ("TAXI_LAKE_URL", "file:///lake\udcff", "UTF-8"),
        ("TAXI_QUEUES", "heavy", "yellow=heavy"),
        ("TAXI_QUEUES", "purple=heavy", "yellow, green, fhv, fhvhv"),
        ("TAXI_QUEUES", "yellow=heavy, yellow=light", "twice"),
        ("TAXI_QUEUES", "yellow=He avy", "small letters"),
        ("TAXI_QUEUES", "yellow=", "small letters"),
        ("TAXI_BROKER_URL", "amqp://guest@host", "redis://"),
    ],
)
def test_a_wrong_value_is_named_with_what_the_variable_takes(name, value, accepted):
    with pytest.raises(SettingError) as caught:
        load_settings({name: value})
    assert name in str(caught.value)
    assert accepted in str(caught.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("TAXI_SOURC_URL", "TAXI_SOURCE_URL"),
        ("TAXI_DATASET", "TAXI_DATASETS"),
        ("TAXI_LAKE", "TAXI_LAKE_URL"),
        ("TAXI_UI_READONLY", "TAXI_UI_READ_ONLY"),
        ("TAXI_TOKEN", "TAXI_UI_TOKEN"),
        ("TAXI_HOEM", "TAXI_HOME"),
    ],
)
def test_a_mistyped_name_is_refused_with_the_one_that_is_meant(name, meant):
    with pytest.raises(SettingError, match=rf"^{name} is not a setting\. Did you mean {meant}\?$"):
        load_settings({name: "canary"})


def test_names_that_resemble_no_setting_are_ignored():
    others = {"TAXI_FARE_URL": "a", "TAXI_COLOR": "yellow", "TAXI_TEST_LAKE_URL": "b", "TAX_REJECT": "c"}
    assert load_settings(others).reject == ()
    assert unknown_names({**others, "TAXI_HOME": "d"}) == ["TAXI_COLOR", "TAXI_FARE_URL"]


@pytest.mark.fault(86)
def test_taxi_reject_takes_the_rules_of_any_chosen_dataset_and_no_others():
    reject = {"TAXI_REJECT": "zero_passengers,over_24_hours"}
    assert load_settings({**reject, "TAXI_DATASETS": "fhv,green"}).reject == ("over_24_hours", "zero_passengers")
    with pytest.raises(SettingError, match=r"^TAXI_REJECT: 'zero_passengers' is not a suspicious rule of fhv, fhvhv"):
        load_settings({**reject, "TAXI_DATASETS": "fhv,fhvhv"})


@pytest.mark.parametrize(
    ("warehouse", "serving"),
    [
        ("duckdb:///data/a.duckdb", "duckdb:///data/./a.duckdb"),
        ("postgresql://one:secret@host/db", "postgresql://two@host/db?schema=public"),
    ],
)
def test_a_warehouse_cannot_serve_itself(warehouse, serving):
    settings = load_settings({"TAXI_WAREHOUSE_URL": warehouse, "TAXI_SERVING_URL": serving})
    with pytest.raises(SettingError, match="TAXI_SERVING_URL names the same warehouse as TAXI_WAREHOUSE_URL") as caught:
        check_urls(settings)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("variable", ["TAXI_WAREHOUSE_URL", "TAXI_SERVING_URL"])
def test_a_warehouse_cannot_be_the_file_of_views(variable):
    """A run replaces that file as a whole, so all tables in it would be lost."""
    settings = load_settings({"TAXI_HOME": "/data", variable: "duckdb:///data/trips.duckdb"})
    with pytest.raises(SettingError, match=f"{variable} names trips.duckdb in TAXI_HOME, which holds the views"):
        check_urls(settings)


@pytest.mark.parametrize(
    "url", ["bigquery://[canary/taxi", "bigquery://me:canary℀@project/taxi", "//me:canary@host/db"]
)
def test_a_warehouse_url_that_cannot_be_read_is_refused_without_being_shown(url):
    with pytest.raises(SettingError, match=r"TAXI_WAREHOUSE_URL (does not name|is not the URL)") as caught:
        check_urls(load_settings({"TAXI_WAREHOUSE_URL": url}))
    assert "canary" not in "".join(traceback.format_exception(caught.value))


def test_queues_keep_the_order_in_which_they_were_written():
    queues = load_settings({"TAXI_QUEUES": " fhvhv=huge, Yellow = heavy,*=small"}).queues
    assert list(queues.items()) == [("fhvhv", "huge"), ("yellow", "heavy"), ("*", "small")]
    assert load_settings({}).queues == {}


def test_a_wrong_broker_url_is_not_shown():
    with pytest.raises(SettingError) as caught:
        load_settings({"TAXI_BROKER_URL": "http://:s3cret@host"})
    assert "s3cret" not in str(caught.value)
