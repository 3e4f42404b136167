"""The overview in a browser without a network: it fits every screen, and runs nothing of a file's text."""

from dataclasses import replace
from datetime import datetime

import duckdb
import pytest

from taxi_platform.marts.overview import overview_path, write_page
from taxi_platform.marts.overview import page as overview_page
from taxi_platform.trips.months import Dataset
from taxi_platform_tests.browser.conftest import HISTORY, NEWEST
from taxi_platform_tests.support.hostile_texts import HOSTILE
from taxi_platform_tests.support.pages import overview_data, tables_of
from taxi_platform_tests.support.pictures import FOLDER, SCALE, take_picture

pytestmark = pytest.mark.browser


def opened(browser, path, width=1280, colours="light", height=900, scale=1):
    """The page at `path` in a browser that has no network; it asks for nothing else."""
    size = {"width": width, "height": height}
    context = browser.new_context(viewport=size, color_scheme=colours, offline=True, device_scale_factor=scale)
    page = context.new_page()
    asked, problems = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(path.as_uri())
    assert (asked, problems) == ([path.as_uri()], [])
    return page


@pytest.fixture
def path(tmp_path):
    return write_page(tmp_path, overview_page(overview_data(m2020_04=300, m2020_06=900), datetime(2020, 9, 1)))


@pytest.mark.parametrize("width", [390, 761, 1280])
def test_the_page_fits_the_screen_and_shows_one_drawing_of_each_chart(browser, path, width):
    page = opened(browser, path, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    charts = page.locator("figure [role=img]")
    visible = [chart for chart in charts.all() if chart.is_visible()]
    assert len(visible) == charts.count() / 2 == 8
    assert all(chart.get_attribute("aria-label") for chart in visible)
    page.context.close()


def test_dark_mode_changes_page_and_charts(browser, path):
    colours = {}
    for mode in ("light", "dark"):
        page = opened(browser, path, colours=mode)
        colours[mode] = page.evaluate(
            """() => [getComputedStyle(document.body).backgroundColor,
                      getComputedStyle(document.querySelector('#trips .wide svg [fill="#1b9e77"]')).fill,
                      getComputedStyle(document.querySelector('#trips .wide svg text')).fill]"""
        )
        page.context.close()
    assert colours["light"] == ["rgb(255, 255, 255)", "rgb(27, 158, 119)", "rgb(91, 102, 115)"]
    assert colours["dark"] == ["rgb(20, 27, 36)", "rgb(70, 201, 158)", "rgb(160, 171, 184)"]


def test_paper_gets_the_light_colours_of_a_dark_screen_and_the_drawings_for_a_desktop(browser, path):
    page = opened(browser, path, 390, "dark")
    page.emulate_media(media="print")
    bar = page.locator('#trips .wide svg [fill="#1b9e77"]').first
    assert bar.is_visible()
    assert bar.evaluate("bar => getComputedStyle(bar).fill") == "rgb(27, 158, 119)"
    assert not page.locator("nav").is_visible()
    page.context.close()


def test_the_page_of_a_platform_has_the_trips_of_its_tables(browser, platform, history):
    for dataset in ("green", "fhv", "fhvhv") if FOLDER else ():  # the months of the demo
        platform.taxi("ingest", dataset, str(NEWEST.plus(-2)), str(NEWEST))
    platform.taxi("overview")
    path = overview_path(platform.home)
    page = opened(browser, path, 1000, height=1060, scale=SCALE)
    listed = tables_of(page.content())["Trips by month"]
    with duckdb.connect(str(platform.home / "trips.duckdb"), read_only=True) as con:
        trips = dict(
            con.execute("SELECT strftime(file_month, '%Y-%m'), count(*) FROM yellow_trips GROUP BY 1").fetchall()
        )
    column = listed[0].index("yellow")
    shown = {line[0]: line[column] for line in listed[1:] if line[column] != "missing"}
    assert shown == {month: f"{count:,} (synthetic)" for month, count in trips.items()}
    assert set(HISTORY) <= set(shown)
    take_picture(page, "overview")
    page.context.close()
    page = opened(browser, path, 1000, height=560)  # shapes need many bytes
    page.locator("#map").evaluate("section => section.scrollIntoView()")
    take_picture(page, "overview-map")
    page.context.close()
    page = opened(browser, path, 390, "dark", 844, SCALE)
    take_picture(page, "overview-phone")
    page.context.close()


@pytest.mark.fault(102)
def test_texts_of_files_inject_nothing_and_call_nobody(browser, tmp_path):
    data = overview_data(m2020_04=300)
    (month,) = data.months
    texts = (*HOSTILE.values(), 'a class="', 'x" onload="window.injected=1', ' d="M1.23456')
    data.months = [replace(month, unknown_columns=texts, problem=" ".join(texts), stage="failed")]
    rules = [("2020-04", measure, text, 7) for measure in ("rejected", "suspicious") for text in texts]
    data.rows = {**data.rows, "quality": {Dataset.GREEN: [*data.rows["quality"][Dataset.GREEN], *rules]}}
    path = write_page(tmp_path, overview_page(data, datetime(2020, 9, 1)))
    page = opened(browser, path)
    for details in page.locator("details").all():
        details.evaluate("details => details.open = true")
    assert page.evaluate("window.injected") is None
    assert page.locator("script, img, iframe, object, link, h1:has-text('injected')").count() == 0
    targets = page.evaluate("[...document.querySelectorAll('[src], [href]')].map(each => each.getAttribute('href'))")
    assert all(target.startswith("#") for target in targets)
    assert page.get_by_text("<script>window.injected=1</script>").first.is_visible()
    page.context.close()
