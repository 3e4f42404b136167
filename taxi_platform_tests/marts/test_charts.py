"""The charts: their shapes tell the numbers, their colours have a dark counterpart, their pictures stay small."""

import re
import struct
import zlib

import numpy as np
import pytest

from taxi_platform.marts import chart_style, charts
from taxi_platform.marts.overview import chart_png
from taxi_platform.marts.overview_sections import sections
from taxi_platform.trips.errors import UserError
from taxi_platform.trips.months import Dataset, Month
from taxi_platform_tests.support.pages import overview_data

BAR = re.compile(r'<path d="M([\d.]+),([\d.]+)h([\d.]+)v([\d.]+)h-[\d.]+Z" fill="(#[0-9a-f]+)"')


def bars(svg, colour):
    """x and height of the rectangles of a colour, from left to right."""
    return sorted((float(x), float(height)) for x, _, _, height, fill in BAR.findall(svg) if fill == colour)


def trips(*months):
    return [{"dataset": Dataset.GREEN, "month": month, "trips": count} for month, count in months]


def test_bars_are_as_high_as_months_have_trips():
    svg = chart_style.svg(charts.trips_by_month(trips(("2020-04", 400), ("2020-05", 100), ("2020-07", 200)), [], 900))
    (_, april), (_, may), (_, july) = bars(svg, chart_style.DATASET_COLOURS[Dataset.GREEN])
    assert april / may == pytest.approx(4, rel=0.01)
    assert july / may == pytest.approx(2, rel=0.01)


def test_a_missing_month_is_marked_where_it_would_be():
    gaps = [{"dataset": Dataset.GREEN, "month": "2020-06", "kind": "missing"}]
    svg = chart_style.svg(charts.trips_by_month(trips(("2020-05", 100), ("2020-07", 200)), gaps, 900))
    (may, _), (july, _) = bars(svg, chart_style.DATASET_COLOURS[Dataset.GREEN])
    ((june, _),) = bars(svg, chart_style.GAP_COLOURS["missing"])
    assert may < june < july
    assert june - may == pytest.approx((july - may) * 31 / 61, rel=0.01)


def test_what_the_marks_mean_is_said_below_each_chart_over_months():
    gaps = [
        {"dataset": dataset, "month": "2020-05", "kind": kind}
        for dataset in (Dataset.GREEN, Dataset.FHV)
        for kind in ("missing", "synthetic")
    ]
    months = [
        {"dataset": gap["dataset"], "month": "2020-04", "trips": 7, "name": "cash", "share": 1} for gap in gaps[1:3]
    ]
    for drawing in (
        charts.trips_by_month(months, gaps, 900),
        charts.stacked_shares(months, gaps, {"cash": "#17886a"}, 900),
        charts.quality(months, gaps, 900),
    ):
        assert re.findall(">(missing|synthetic)<", chart_style.svg(drawing)) == ["missing", "synthetic"]


def test_long_histories_merge_equal_neighbours():
    months = [str(month) for month in Month(2014, 1).until(Month(2023, 12))]
    rows = [{"dataset": Dataset.GREEN, "month": month, "name": "rejected", "share": 0.002} for month in months]
    svg = chart_style.svg(charts.quality(rows, [], 900))
    (bar,) = bars(svg, chart_style.SCALE[3])
    assert bar[1] == 14


@pytest.mark.parametrize("width", [940, 350])
def test_every_colour_has_a_dark_counterpart_and_nothing_refers_elsewhere(width):
    for section in sections(overview_data(m2020_04=300, m2020_06=900)):
        drawing = section.draw(width)
        svg = chart_style.svg(drawing)
        colours = set(re.findall(r'(?:fill|stroke)="([^"]+)"', svg)) - {"none", "transparent"}
        assert colours <= set(chart_style.DARK), section.name
        assert not re.search(r'href|url\(|<script|<style| id="| on\w+="', svg), section.name


def test_no_chart_for_a_phone_is_wider_than_one():
    gaps = [{"dataset": Dataset.GREEN, "month": "2020-05", "kind": kind} for kind in ("missing", "synthetic")]
    shares = [
        {"dataset": Dataset.GREEN, "month": "2020-04", "name": "rejected", "share": bound} for bound in charts.SHARES
    ]
    drawings = [section.draw(350) for section in sections(overview_data(m2020_04=300, m2020_06=900))]
    for drawing in (*drawings, charts.quality(shares, gaps, 350)):
        (width,) = re.findall(r'^<svg[^>]* width="([0-9.]+)"', chart_style.svg(drawing))
        assert float(width) <= 375, drawing.datasets


def test_a_colour_means_one_thing_on_the_light_page_and_on_the_dark_one():
    assert len(set(chart_style.DARK.values())) == len(chart_style.DARK)


def test_pictures_are_small_and_have_the_colours_of_the_chart():
    data = overview_data(m2020_04=300, m2020_06=900)
    for view in ("trips_by_day", "daily_zones", "hours", "payments", "quality"):
        picture = chart_png(view, data)
        assert len(picture) <= chart_style.MAX_PNG_BYTES, view
    colours = pixels(chart_png("trips_by_day", data))
    green = [int(chart_style.DATASET_COLOURS[Dataset.GREEN][i : i + 2], 16) for i in (1, 3, 5)]
    share = (colours == green).all(axis=2).mean()
    assert 0.02 < share < 0.5
    assert (colours[0, 0] == 255).all()


def test_a_view_without_a_chart_is_refused():
    with pytest.raises(UserError, match="'zone_pairs' has no chart"):
        chart_png("zone_pairs", overview_data(m2020_04=300))


def pixels(picture):
    """Height × width × 3 of a PNG with a palette, decoded by the standard."""
    chunks, position = {}, 8
    while position < len(picture):
        (size,) = struct.unpack_from(">I", picture, position)
        kind, content = picture[position + 4 : position + 8], picture[position + 8 : position + 8 + size]
        assert struct.unpack_from(">I", picture, position + 8 + size) == (zlib.crc32(kind + content),)
        chunks[kind] = content
        position += 12 + size
    width, height, bits, colour_type = struct.unpack_from(">IIBB", chunks[b"IHDR"])
    assert (bits, colour_type) == (8, 3)
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)
    assert not lines[:, 0].any()
    return np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3)[lines[:, 1:]]
