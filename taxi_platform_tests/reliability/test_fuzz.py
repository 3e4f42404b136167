"""A little of `fuzz.py`, always the same: `python -m taxi_platform_tests.support.fuzz` goes on for hours."""

import pytest

from taxi_platform_tests.support.fuzz import Fuzz


@pytest.mark.parametrize(
    ("target", "rounds", "endings"),
    [
        ("csv", 60, {"cleaned", "cleaned, some rejected", "NotData", "ContractError"}),
        ("parquet", 130, {"cleaned", "cleaned, some rejected", "NotData", "ContractError"}),
        ("answers", 80, {"cleaned", "SourceRefused", "NotData", "NotPublished"}),
        ("settings", 800, {"SettingError", "UserError"}),
    ],
)
def test_random_input_ends_in_rows_all_accounted_for_or_in_an_error_that_says_what_to_do(
    target, rounds, endings, tmp_path
):
    fuzz = Fuzz("ci", tmp_path)
    for number in range(rounds):
        fuzz.round(target, number)
    assert fuzz.failures == []
    assert endings <= fuzz.figures[target].outcomes.keys()
    assert list(tmp_path.iterdir()) == []
