"""The overview page: its numbers are those of the marts and of the trips, and it says what is missing."""

import re
from collections import Counter

import duckdb
import pytest

from taxi_platform.ingestion import steps
from taxi_platform.ingestion.marts import build_marts
from taxi_platform.ingestion.overview import view_charts, write_overview
from taxi_platform.lake import open_lake
from taxi_platform.marts import tables
from taxi_platform.marts.overview import overview_path
from taxi_platform.sources import open_source
from taxi_platform.trips.engine import Engine
from taxi_platform.trips.errors import IntegrityError
from taxi_platform.trips.months import Dataset, DatasetMonth, Month
from taxi_platform.warehouse import open_warehouse
from taxi_platform_tests.support.hostile_texts import HOSTILE
from taxi_platform_tests.support.pages import tables_of

NEWEST = Month(2020, 6)
MONTH = "strftime(file_month, '%Y-%m')"


class Platform:
    """A lake and a DuckDB warehouse in a home."""

    def __init__(self, home):
        self.home = home
        self.lake = open_lake((home / "lake").as_uri())
        self.warehouse = open_warehouse(f"duckdb://{home}/warehouse.duckdb")

    def bring(self, dataset, month, source="sample://?rows=600", marts=True):
        """Bring a month from its file to its marts."""
        dataset_month = DatasetMonth.parse(dataset, month)
        for change in self.lake.plan():
            change.apply()
        steps.fetch(open_source(source), self.lake, dataset_month, self.home)
        steps.clean(self.lake, dataset_month, self.home, Engine())
        steps.load(self.lake, self.warehouse, dataset_month, self.home)
        if marts:
            build_marts(self.lake, self.warehouse, dataset_month, self.home)

    def overview(self, *datasets):
        """The page about these datasets; by default about all."""
        datasets = [Dataset(dataset) for dataset in datasets] or list(Dataset)
        return write_overview(self.lake, self.warehouse, datasets, self.home, NEWEST).read_text("utf-8")

    def ask(self, dataset, query):
        """Rows of a query over the clean trips, the view `trips`."""
        with duckdb.connect() as con:
            files = f"{self.home}/lake/clean/{dataset}/*/trips.parquet"
            con.execute(f"CREATE VIEW trips AS FROM read_parquet('{files}', hive_partitioning = false)")
            return con.execute(query).fetchall()


@pytest.fixture
def platform(tmp_path):
    return Platform(tmp_path / "home")


def number(text):
    return int(text.replace(",", "").removesuffix(" (synthetic)"))


def notes(page):
    return re.findall(r'<p class="note">(.*?)</p>', page)


def test_the_numbers_are_those_of_the_trips(platform):
    for dataset, month in (("yellow", "2020-04"), ("yellow", "2020-05"), ("green", "2020-05")):
        platform.bring(dataset, month)
    page = platform.overview()
    tables = tables_of(page)
    trips = {
        (dataset, month): count
        for dataset in ("yellow", "green")
        for month, count in platform.ask(
            dataset, "SELECT strftime(file_month, '%Y-%m'), count(*) FROM trips GROUP BY 1"
        )
    }
    assert tables["Trips by month"] == [
        ["Month", "yellow", "green"],
        ["2020-04", f"{trips['yellow', '2020-04']:,} (synthetic)", "missing"],
        ["2020-05", *(f"{trips[dataset, '2020-05']:,} (synthetic)" for dataset in ("yellow", "green"))],
    ]
    zones = Counter()
    for position, dataset in enumerate(("yellow", "green"), 1):
        for line in tables["Pick-ups by zone"][1:]:
            zones[dataset, line[0].split(" ")[0]] += number(line[position])
        for zone, count in platform.ask(dataset, "SELECT pickup_location_id, count(*) FROM trips GROUP BY 1"):
            assert zones[dataset, str(zone) if zone else "(no"] == count, (dataset, zone)
    by_hour = {
        (weekday, hour): count
        for weekday, hour, count in platform.ask(
            "yellow",
            "SELECT isodow(pickup_datetime), hour(pickup_datetime), count(*) FROM trips "
            "WHERE date_trunc('month', pickup_datetime) = file_month GROUP BY ALL",
        )
    }
    hours = {
        (weekday, int(line[0][:2])): number(line[weekday])
        for line in tables["Yellow taxis: trips by hour"][1:]
        for weekday in range(1, 8)
    }
    assert {key: count for key, count in hours.items() if count} == by_hour
    cards = platform.ask(
        "green",
        "SELECT count(*), count(*) FILTER (tip_amount > 0), sum(tip_amount), sum(total_amount) FROM trips "
        "WHERE payment_type = 1",
    )[0]
    expected = ["green 2020 credit card", f"{cards[0]:,}", f"{cards[1]:,}", f"{cards[2]:,.2f}", f"{cards[3]:,.2f}"]
    assert expected in tables["Payments and tips by year"]


def test_quality_tells_what_the_report_tells(platform):
    platform.bring("green", "2020-05")
    (line,) = tables_of(platform.overview("green"))["Data quality by month"][1:]
    month, read, rejected, why, suspicious, published, unknown = line
    clean = platform.ask("green", "SELECT count(*) FROM trips")[0][0]
    assert (month, number(read), number(read) - number(rejected)) == ("green 2020-05 (synthetic)", 600, clean)
    assert sum(map(number, re.findall(r"[\d,]+(?=$|, )", why))) == number(rejected) > 0
    zero = platform.ask("green", "SELECT count(*) FROM trips WHERE passenger_count = 0")[0][0]
    assert f"zero_passengers {zero:,}" in suspicious
    assert (published, unknown) == ("not comparable", "none")


def test_market_share_counts_only_months_of_which_all_datasets_are_loaded(platform):
    for dataset, month in (("yellow", "2020-04"), ("fhvhv", "2020-04"), ("yellow", "2020-05")):
        platform.bring(dataset, month)
    header, *lines = tables_of(platform.overview("yellow", "fhvhv"))["Share of each company"]
    (yellow,) = platform.ask("yellow", f"SELECT count(*) FROM trips WHERE {MONTH} = '2020-04'")[0]
    licences = dict(platform.ask("fhvhv", "SELECT hvfhs_license_num, count(*) FROM trips GROUP BY 1"))
    total = yellow + sum(licences.values())
    names = {"Yellow taxis": yellow, "Uber": licences["HV0003"], "Lyft": licences["HV0005"], "Via": licences["HV0004"]}
    assert header == ["Month", *names]
    assert lines == [["2020-04", *(f"{trips / total:.2%}" for trips in names.values())]]


def test_without_any_month_the_page_says_so(platform):
    page = platform.overview()
    assert notes(page) == [
        "No month is loaded yet, so there is nothing to draw. Load some with make demo or taxi ingest."
    ]
    assert "green 2013-08 to 2020-06" in page
    assert not (platform.home / "lake").exists()
    assert not (platform.home / "warehouse.duckdb").exists()


def test_one_month_alone_is_drawn(platform):
    platform.bring("fhv", "2020-05")
    page = platform.overview()
    assert notes(page) == [
        "All months are synthetic: they come from sample://, in proportion to the real ones.",
        "No month of fhvhv and green and yellow is loaded.",
    ]
    assert page.count("<svg") == 2 * 5  # all but share, payments and tips


def test_months_with_files_of_no_zones_have_no_map_but_all_else(platform, tmp_path):
    (tmp_path / "fhv_2015-01.csv").write_text(
        "Dispatching_base_num,Pickup_date\nB00013,2015-01-01 00:30:00\nB00013,2015-01-02 01:22:00\n"
    )
    platform.bring("fhv", "2015-01", f"file://{tmp_path}/{{dataset}}_{{month}}.csv")
    page = platform.overview("fhv")
    assert "The months of fhv that are loaded have no zones." in page
    section = page[page.index('<section id="map">') : page.index('<section id="hours">')]
    assert "<svg" not in section
    assert tables_of(section)["Pick-ups by zone"][1:] == [["(no zone in the file)", "2"]]
    assert tables_of(page)["Trips by month"][1:] == [["2015-01", "2"]]
    assert notes(page) == []


@pytest.mark.fault(104)
def test_marts_of_another_version_are_not_counted(platform, monkeypatch):
    platform.bring("green", "2020-04")
    platform.bring("green", "2020-05")
    tables.mart_version.cache_clear()
    monkeypatch.setattr(tables, "MARTS_VERSION", tables.MARTS_VERSION + 1)
    platform.bring("green", "2020-05")
    page = platform.overview("green")
    monkeypatch.undo()
    tables.mart_version.cache_clear()
    assert notes(page)[1:] == [
        "1 month is shown as missing, because their marts are of another version. taxi ingest builds them again."
    ]
    assert [line[0] for line in tables_of(page)["Trips by month"][1:]] == ["2020-05"]


def test_a_month_without_marts_needs_a_run(platform):
    platform.bring("green", "2020-04")
    platform.bring("green", "2020-05", marts=False)
    page = platform.overview("green")
    lines = {line[0]: line[2] for line in tables_of(page)["The status of every month"][1:]}
    assert lines["green 2020-04"] == "synthetic"
    assert lines["green 2020-05"] == "needs a run"
    assert lines["green 2020-06"] == "missing"


def test_a_damaged_mart_is_named_and_never_counted(platform):
    platform.bring("green", "2020-04")
    (path,) = (platform.home / "lake/marts/green/hours").rglob("*.parquet")
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(IntegrityError, match=re.escape(path.name)):
        platform.overview("green")


@pytest.mark.fault(103)
def test_a_home_that_cannot_be_written_gets_a_page_elsewhere(platform):
    platform.bring("green", "2020-04")
    overview_path(platform.home).mkdir()
    path = write_overview(platform.lake, platform.warehouse, [Dataset.GREEN], platform.home, NEWEST)
    assert path.parent != platform.home
    assert tables_of(path.read_text("utf-8"))["Trips by month"][1][0] == "2020-04"
    assert [entry.name for entry in platform.home.glob("*overview*")] == ["overview.html"]


def test_columns_of_a_file_are_named_and_never_markup(platform, tmp_path):
    names = [HOSTILE[attack].replace('"', '""') for attack in ("script", "html image", "end of an element")]
    header = ",".join(["lpep_pickup_datetime", *(f'"{name}"' for name in names)])
    (tmp_path / "green_2020-04.csv").write_text(f"{header}\n2020-04-01 00:10:00,1,2,3\n")
    platform.bring("green", "2020-04", f"file://{tmp_path}/{{dataset}}_{{month}}.csv")
    page = platform.overview("green")
    assert "&lt;script&gt;window.injected=1&lt;/script&gt;" in page
    assert not re.search(r"<(script|img|h1>injected)", page)


def test_views_get_their_charts_and_only_those_that_have_one(platform):
    platform.bring("green", "2020-04")
    views = ("trips_by_day", "daily_zones", "hours", "zone_pairs", "payments", "quality", "market_share")
    pictures = view_charts(platform.lake, platform.warehouse, [Dataset.GREEN], NEWEST, views)
    assert set(pictures) == set(views) - {"zone_pairs"}
    assert all(picture.startswith(b"\x89PNG") and len(picture) <= 30_000 for picture in pictures.values())
