"""What only PostgreSQL does: readers in transactions, roles and rights, URIs with secrets."""

import threading
from urllib.parse import quote

import psycopg
import pytest

from taxi_platform.trips.errors import SettingError, TransientError, WarehouseBusy, WarehouseError
from taxi_platform.warehouse import open_warehouse
from taxi_platform.warehouse.base import StoredRows
from taxi_platform.warehouse.postgres import PostgresSession, PostgresWarehouse
from taxi_platform_tests.support.system import wait_for

from .conftest import Backend, Months

PASSWORD = "s3cret/word"
LOGIN = f"loader:{quote(PASSWORD, safe='')}"


def partitions(backend: Backend) -> list[str]:
    parents = [backend.qualified("green_trips"), backend.qualified("green_rejected_trips")]
    rows = backend.execute(
        f"SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent::regclass::text IN {tuple(parents)}"
        " AND inhrelid::regclass::text !~ 'idx' ORDER BY 1"
    )
    return [name.partition(".")[2] for (name,) in rows]


def tables(backend: Backend) -> list[str]:
    schema = backend.qualified("").rstrip(".")
    rows = backend.execute(
        f"SELECT relname FROM pg_class WHERE relnamespace = '{schema}'::regnamespace AND relkind='r'"
    )
    return sorted(name for (name,) in rows)


@pytest.mark.fault(40)
def test_the_swap_waits_for_an_open_reader_who_keeps_seeing_the_old_month(
    postgres_backend: Backend, months: Months, server_uri: str
):
    old, new = months("green", "2020-04"), months("green", "2020-04", 700)
    warehouse, count = postgres_backend.warehouse, f"SELECT count(*) FROM {postgres_backend.qualified('green_trips')}"
    warehouse.replace_month(old)
    with psycopg.connect(server_uri) as reader:
        assert reader.execute(count).fetchone() == (499,)
        load = threading.Thread(target=warehouse.replace_month, args=[new])
        load.start()
        waits = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'taxi_platform' AND wait_event_type = 'Lock'"
        wait_for(lambda: postgres_backend.execute(waits))
        assert load.is_alive()
        assert reader.execute(count).fetchone() == (499,)
    load.join(300)
    assert not load.is_alive()
    assert warehouse.loaded_months("green_trips") == {"2020-04": StoredRows(699, (new.file_version,))}


def test_a_reader_who_stays_makes_the_load_give_up_and_leaves_the_old_month(
    postgres_backend: Backend, months: Months, server_uri: str
):
    old, new = months("green", "2020-04"), months("green", "2020-04", 700)
    postgres_backend.warehouse.replace_month(old)
    impatient = PostgresWarehouse(postgres_backend.address, wait_seconds=0.1)
    with psycopg.connect(server_uri) as reader:
        reader.execute(f"SELECT count(*) FROM {postgres_backend.qualified('green_rejected_trips')}")
        with pytest.raises(WarehouseBusy, match="End their transactions"):
            impatient.replace_month(new)
    assert postgres_backend.warehouse.is_loaded(old.dataset_month, old.file_version, 499, 1)
    assert tables(postgres_backend) == partitions(postgres_backend)


def test_a_snapshot_older_than_the_swap_sees_the_new_month_rather_than_none(
    postgres_backend: Backend, months: Months, server_uri: str
):
    postgres_backend.warehouse.replace_month(months("green", "2020-04"))
    with psycopg.connect(server_uri) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("SELECT count(*) FROM pg_database")
        postgres_backend.warehouse.replace_month(months("green", "2020-04", 700))
        rows = reader.execute(f"SELECT count(*) FROM {postgres_backend.qualified('green_trips')}").fetchone()
    assert rows == (699,)


def test_every_month_is_one_indexed_partition_named_by_its_version(postgres_backend: Backend, months: Months):
    files = [months("green", "2020-04"), months("green", "2020-04", 700), months("green", "2020-03", 300)]
    for month in files:
        postgres_backend.warehouse.replace_month(month)
    assert tables(postgres_backend) == partitions(postgres_backend)
    assert [name[:-7] for name in partitions(postgres_backend)] == [
        f"green_rejected_trips_2020_03_{files[2].file_version}",
        f"green_rejected_trips_2020_04_{files[1].file_version}",
        f"green_trips_2020_03_{files[2].file_version}",
        f"green_trips_2020_04_{files[1].file_version}",
    ]
    parent = postgres_backend.qualified("green_trips")
    of_parent = f"ON indexrelid = inhparent WHERE indrelid = '{parent}'::regclass"
    assert postgres_backend.execute(f"SELECT count(*) FROM pg_inherits JOIN pg_index {of_parent}") == [(2,)]
    assert "clean trips" in postgres_backend.execute(f"SELECT obj_description('{parent}'::regclass)")[0][0]


@pytest.mark.fault(40)
def test_a_load_that_fails_at_the_swap_leaves_no_table_aside(
    postgres_backend: Backend, months: Months, monkeypatch: pytest.MonkeyPatch
):
    def fail(*arguments):
        raise WarehouseError("The swap failed.")

    monkeypatch.setattr(PostgresSession, "_swap", fail)
    with pytest.raises(WarehouseError, match="The swap failed"):
        postgres_backend.warehouse.replace_month(months("green", "2020-04"))
    assert tables(postgres_backend) == []


def test_a_table_of_ours_that_is_not_partitioned_is_refused(postgres_backend: Backend, months: Months):
    postgres_backend.execute(f"CREATE TABLE {postgres_backend.qualified('green_trips')} (file_month date)")
    with pytest.raises(WarehouseError, match=r"green_trips .* not partitioned by LIST \(file_month\)\. Rename or drop"):
        postgres_backend.warehouse.replace_month(months("green", "2020-04"))


def test_a_role_without_rights_learns_what_to_grant_and_then_loads(
    postgres_backend: Backend, months: Months, server_uri: str
):
    schema = postgres_backend.qualified("").rstrip(".")
    warehouse = open_warehouse(postgres_backend.address.replace("postgres:@", f"{LOGIN}@"))
    files = months("green", "2020-04")
    with pytest.raises(WarehouseError, match=r"TAXI_WAREHOUSE_URL .*permission denied for database"):
        warehouse.replace_month(files)
    postgres_backend.execute(f"GRANT USAGE ON SCHEMA {schema} TO loader")
    with pytest.raises(WarehouseError, match=f"permission denied for schema {schema}.* GRANT CREATE"):
        warehouse.replace_month(files)
    postgres_backend.execute(f"GRANT CREATE ON SCHEMA {schema} TO loader")
    assert warehouse.replace_month(files).rows == 499


@pytest.mark.parametrize(
    ("login", "database", "says"),
    [
        ("loader:wr0ng-word@", "postgres", "refuses the login"),
        ("locked:wr0ng-word@", "postgres", "refuses the login"),
        ("nobody:wr0ng-word@", "postgres", "has no such user"),
        ("postgres:wr0ng-word@", "nowhere", "has no such database"),
    ],
)
def test_a_wrong_login_is_named_without_showing_the_password(server_uri: str, login: str, database: str, says: str):
    uri = server_uri.replace("postgres:@/postgres", f"{login}/{database}")
    warehouse = open_warehouse(uri, "TAXI_SERVING_URL")
    with pytest.raises(WarehouseError, match=f"{says}.*Correct TAXI_SERVING_URL") as caught:
        warehouse.loaded_months("green_trips")
    assert not isinstance(caught.value, TransientError)
    shown = [str(caught.value), repr(caught.value), str(caught.value.__cause__), warehouse.url, repr(warehouse)]
    shown += [warehouse.example_query("green_trips"), warehouse.uri("green_trips")]
    assert not [text for text in shown if "wr0ng" in text or "login" in text.replace("refuses the login", "")]


@pytest.mark.parametrize("address", ["/?host=/nowhere", "127.0.0.1:1/taxi"])
def test_a_server_that_does_not_answer_is_worth_another_try(address: str):
    with pytest.raises(
        TransientError, match=r"cannot be reached .*(directory|refused)\. Run again when the server is up"
    ):
        open_warehouse(f"postgresql://loader:hidden@{address}").loaded_months("green_trips")


def test_an_unknown_parameter_is_named_unless_it_may_be_a_part_of_the_password():
    with pytest.raises(SettingError, match="TAXI_WAREHOUSE_URL has a parameter shema, which is unknown") as caught:
        open_warehouse("postgresql://loader:hidden@host/taxi?shema=canary")
    assert caught.value.__context__ is None and "canary" not in str(caught.value)
    with pytest.raises(SettingError, match="TAXI_WAREHOUSE_URL is not a PostgreSQL URI") as caught:
        open_warehouse("postgresql://loader:hidden/word?canary=1@host/taxi")
    assert caught.value.__context__ is None and "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://u:hidden@db.example/taxi", "postgresql://db.example/taxi?schema=public"),
        ("postgres://u:hidden@db:5433/taxi?schema=nyc&sslmode=require", "postgresql://db:5433/taxi?schema=nyc"),
        ("postgresql://u:hidden@/taxi?host=/run/pg&schema=nyc", "postgresql:///taxi?host=/run/pg&schema=nyc"),
        ("postgresql://db/taxi?user=u&password=hidden", "postgresql://db/taxi?schema=public"),
    ],
)
def test_the_url_shows_host_database_and_schema_only(uri: str, shown: str):
    assert open_warehouse(uri).url == shown
    assert "hidden" not in open_warehouse(uri).example_query("green_trips")


@pytest.mark.fault(44, 45)
@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://u:hid/den@db/taxi",
        "postgresql://u:hid@den@db/taxi",
        "postgresql://u:hid%den@db/taxi",
        "postgresql://u:hidden@db/taxi?schema=a;b",
        "postgresql://u:hidden@db/taxi?shema=nyc",
    ],
)
def test_a_uri_that_cannot_be_right_is_refused_without_repeating_it(uri: str):
    with pytest.raises(SettingError, match=r"TAXI_WAREHOUSE_URL .*percent-encoded") as caught:
        open_warehouse(uri)
    assert "hid" not in str(caught.value) and "den@" not in repr(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.fault(82)
def test_a_load_that_waits_for_another_load_and_then_for_a_reader_logs_both(
    postgres_backend: Backend, months: Months, server_uri: str, caplog
):
    warehouse, schema = postgres_backend.warehouse, postgres_backend.qualified("").rstrip(".")
    warehouse.replace_month(months("green", "2020-04"))
    load = threading.Thread(target=warehouse.replace_month, args=[months("green", "2020-04", 700)])
    with psycopg.connect(server_uri, application_name="notebook") as reader:
        reader.execute(f"SELECT count(*) FROM {postgres_backend.qualified('green_trips')}")
        with psycopg.connect(server_uri, application_name="other load") as other:
            key = f"taxi_platform {schema} green 2020-04"
            other.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [key])
            load.start()
            wait_for(lambda: "Waiting for green 2020-04 in postgresql://" in caplog.text)
            assert f"session {other.info.backend_pid} (other load, idle in transaction)" in caplog.text
        wait_for(lambda: "Waiting for the tables of postgresql://" in caplog.text)
        assert f"held by session {reader.info.backend_pid} (notebook, idle in transaction)" in caplog.text
    load.join(300)
    assert warehouse.loaded_months("green_trips")["2020-04"].rows == 699
