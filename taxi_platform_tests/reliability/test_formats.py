"""Small files that a later version may have written: a number tells, and fields that are unknown do no harm."""

import json
import sqlite3
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from taxi_platform.automation.sensors import Cursor
from taxi_platform.ingestion.survey_state import SurveyState
from taxi_platform.notifications.channels import Message
from taxi_platform.notifications.outbox import Outbox
from taxi_platform.trips.errors import DamagedFile, NewerFormat
from taxi_platform.trips.months import Dataset, Month
from taxi_platform.trips.stored_json import dump, load, record

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
UPGRADE = r"was written by a newer version of taxi_platform\. Upgrade taxi_platform\."


@dataclass(frozen=True)
class Inner:
    names: tuple[str, ...]
    size: int = 1


@dataclass(frozen=True)
class Outer:
    inner: Inner
    counts: dict[str, int] = field(default_factory=dict)
    note: str | None = None
    sure: bool = False


def test_what_is_stored_is_read_again():
    outer = Outer(Inner(("a", "é")), {"x": 5}, None, True)
    text = dump({"inner": {"names": ["a", "é"], "size": 1}, "counts": {"x": 5}, "note": None, "sure": True, "new": [1]})
    assert json.loads(text)["format_version"] == 1
    assert record(Outer, load(text.encode(), "x.json", "test", "Do.")) == outer


@pytest.mark.fault(75)
@pytest.mark.parametrize(
    "content",
    [
        *(5, [], None, {}, {"inner": {}}, {"inner": {"names": "a"}}, {"inner": {"names": [5]}}),
        *({"inner": {"names": [], "size": True}}, {"inner": {"names": [], "size": 1.0}}),
        *({"inner": {"names": []}, "counts": {"x": "5"}}, {"inner": {"names": []}, "note": 5}),
        *({"inner": {"names": ["\ud800"]}}, {"inner": {"names": ["a\0b"]}}, {"inner": {"names": []}, "sure": 1}),
    ],
)
def test_fields_that_are_missing_or_of_another_type_are_refused(content):
    with pytest.raises(ValueError):
        record(Outer, content)


@pytest.mark.fault(74)
@pytest.mark.parametrize(
    "harm",
    [
        *(lambda text: text[:-5], lambda text: text.replace(b"11", b"12"), lambda text: b"", lambda text: b"[]"),
        *(lambda text: b"[" * 100_000, lambda text: b"\xff" + text, lambda text: b"9" * 10_000),
    ],
)
def test_what_was_cut_or_edited_is_noticed(harm):
    with pytest.raises(DamagedFile, match=r"^x\.json is not a test: .*Do that\."):
        load(harm(dump({"rows": 11}).encode()), "x.json", "test", "Do that.")


@pytest.mark.fault(75)
def test_a_survey_state_a_cursor_and_an_outbox_of_a_newer_version_are_refused_and_left_alone(tmp_path):
    state = SurveyState(tmp_path, Dataset.GREEN, "here", NOW)
    state.save(Month(2020, 4))
    stored = json.loads(state.path.read_bytes())
    del stored["digest"]
    state.path.write_text(json.dumps({**stored, "format_version": 2}))
    with pytest.raises(NewerFormat, match=UPGRADE):
        SurveyState(tmp_path, Dataset.GREEN, "here", NOW)
    cursor = json.loads(str(Cursor(NOW, "2020-04")))
    with pytest.raises(NewerFormat, match=UPGRADE):
        Cursor.parse(json.dumps({**cursor, "format_version": 2}))
    outbox = Outbox(tmp_path)
    outbox.add(Message("1", "title", "body", False), [], 0)
    with sqlite3.connect(outbox.folder / "outbox.db") as con:
        assert con.execute("PRAGMA user_version").fetchone() == (1,)
        con.execute("PRAGMA user_version = 2")
    with pytest.raises(NewerFormat, match=UPGRADE):
        outbox.known()


@pytest.mark.fault(75)
def test_a_survey_state_and_a_cursor_with_unknown_fields_or_of_the_first_version_are_read(tmp_path):
    state = SurveyState(tmp_path, Dataset.GREEN, "here", NOW)
    state.save(Month(2020, 4))
    stored = json.loads(state.path.read_bytes())
    del stored["digest"], stored["format_version"]
    state.path.write_text(json.dumps({**stored, "mood": "good"}))
    months = [Month(2020, 5), Month(2020, 4), Month(2020, 3)]
    again = SurveyState(tmp_path, Dataset.GREEN, "here", NOW).newest_first_from_last_stop(months)
    assert again == [Month(2020, 3), Month(2020, 5), Month(2020, 4)]
    old = {"look_at": NOW.isoformat(timespec="seconds"), "last_older": "2020-04"}
    assert Cursor.parse(json.dumps({**old, "mood": "good"})) == Cursor.parse(json.dumps(old)) == Cursor(NOW, "2020-04")
    assert Cursor.parse("[]") == Cursor.parse("{") == Cursor()
