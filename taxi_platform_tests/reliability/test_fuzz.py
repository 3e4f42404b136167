"""A little of `fuzz.py`, always the same: `python -m taxi_platform_tests.support.fuzz` goes on for hours."""

import threading

import pytest

from taxi_platform_tests.support.fuzz import Fuzz, watched


@pytest.mark.parametrize(
    ("target", "rounds", "outcomes"),
    [
        ("csv", 60, {"cleaned", "cleaned, some rejected", "NotData", "DamagedRaw", "ContractError"}),
        ("parquet", 130, {"cleaned", "cleaned, some rejected", "NotData", "DamagedRaw", "ContractError"}),
        ("answers", 80, {"cleaned", "SourceRefused", "NotData", "NotPublished"}),
        ("settings", 800, {"SettingError", "UserError"}),
        ("stored", 12, {"repaired", "refused"}),
    ],
)
def test_random_input_ends_in_rows_all_accounted_for_or_in_an_error_that_says_what_to_do(
    target, rounds, outcomes, tmp_path
):
    fuzz = Fuzz("ci", tmp_path)
    for number in range(rounds):
        fuzz.round(target, number)
    assert fuzz.failures == []
    assert outcomes <= fuzz.figures[target].outcomes.keys()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("started", ["before the round", "by the round"])
def test_only_threads_that_a_round_starts_count_as_its_own(started, tmp_path):
    folder = tmp_path / "round"
    folder.mkdir()
    round_runs = threading.Event()

    def write_outside() -> None:
        round_runs.wait()
        (tmp_path / "elsewhere").write_bytes(b"")

    thread = threading.Thread(target=write_outside)

    def run_round() -> None:
        with watched(folder):
            if started == "by the round":
                thread.start()
            round_runs.set()
            thread.join()

    if started == "by the round":
        with pytest.raises(AssertionError, match="elsewhere"):
            run_round()
    else:
        thread.start()
        run_round()
    assert (tmp_path / "elsewhere").exists()
