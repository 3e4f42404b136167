"""Hostile texts in what Dagster's UI shows of a month: the picture of its days, and cells of its tables."""

import base64
from xml.etree import ElementTree

import pytest

from taxi_platform.assets.metadata import _cell, _chart, _reasons
from taxi_platform.trips.report import Report
from taxi_platform_tests.support.hostile_texts import HOSTILE

each_hostile_text = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())


def elements(dataset):
    report = Report(dataset, "2020-04", "v", "s", "c", (), "csv", 1, 1, 0, trips_per_day={"2020-04-01": 1})
    picture = _chart(report)
    svg = base64.b64decode(picture.partition("base64,")[2].removesuffix(")"))
    return [(element.tag, sorted(element.attrib)) for element in ElementTree.fromstring(svg).iter()]


@pytest.mark.fault(88)
@each_hostile_text
def test_a_chart_has_the_same_elements_whatever_its_report_says(text):
    assert elements(text) == elements("green")


@pytest.mark.fault(88)
@each_hostile_text
def test_cells_are_short_printable_lines(text):
    cells = [_cell(text), _reasons({text: 1}).records[0].data["reason"]]
    assert all(cell.isprintable() and len(cell) <= 200 for cell in cells)
