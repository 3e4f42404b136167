"""Results as JSON, and the exit status that follows from them."""

import pytest

from taxi_platform.runs.result import IngestStatus, MonthResult, exit_status
from taxi_platform.trips.months import DatasetMonth

GREEN = DatasetMonth.parse("green", "2020-04")


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([], 0),
        (["loaded", "unchanged"], 0),
        (["loaded", "not published"], 3),
        (["not published", "failed"], 1),
        (["failed", "not published", "interrupted"], 130),
        (["loaded", "failed", "not begun"], 130),
    ],
)
def test_the_most_serious_status_decides(statuses, expected):
    assert exit_status([MonthResult(GREEN, IngestStatus(status)) for status in statuses]) == expected


def test_the_keys_of_the_json_are_public():
    result = MonthResult(GREEN, IngestStatus.LOADED, 1.239, 300, 299, 1, 299, "id")
    assert result.as_json() == {
        "dataset": "green",
        "month": "2020-04",
        "status": "loaded",
        "rows_read": 300,
        "rows_clean": 299,
        "rows_rejected": 1,
        "rows_in_table": 299,
        "seconds": 1.24,
        "run_id": "id",
        "problem": None,
    }
