"""The benchmarks take too long to run here; in the smallest size they show that they still measure what they say."""

import importlib
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import GROUPS, main
from benchmarks.history import EACH_MONTH, ONE_TINY_MONTH, estimate, published_rows
from benchmarks.measure import Timing, alternate, check_equal, ratio, timed_command
from benchmarks.report import Row, page
from taxi_platform.trips.months import Dataset

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = ("archive", "backfill", "floors", "ui", "__main__")


@pytest.mark.parametrize("name", sorted(path.stem for path in BENCHMARKS.glob("*.py")))
def test_every_benchmark_finds_what_it_imports(name):
    module = importlib.import_module(f"benchmarks.{name}")
    assert not (name in SCRIPTS and not callable(module.main))
    assert not (name in GROUPS and not callable(module.measure))


def test_a_group_in_the_smallest_size_compares_equal_outputs_and_judges_each_goal(tmp_path):
    target = tmp_path / "results.md"
    results = main(["reading", "--rows", "1000", "--pairs", "1", "--write", str(target)])
    (rows,) = results.values()
    goals = [row for row in rows if row.goal is not None]
    assert [row.what.split(",")[0] for row in goals] == ["size of the clean file", "the five scans together"] * 2
    assert all(row.value > 0 and ("met" in row.verdict) == (row.value <= 1) for row in goals)
    assert "| size of the clean file, yellow 2023-03 |" in target.read_text("utf-8")


def test_a_group_that_does_not_exist_is_a_mistake_that_lists_those_that_do():
    with pytest.raises(SystemExit, match=r"no group speed\. Choose from cleaning"):
        main(["speed"])


def test_ways_alternate_in_both_orders_and_ratios_are_of_the_pairs():
    order = []

    def way(name, *walls):
        left = list(walls)

        def run():
            order.append(name)
            return Timing(left.pop(0), 1, 0, 0)

        return run

    timings = alternate({"ours": way("ours", 2, 9, 4), "theirs": way("theirs", 1, 3, 4)}, 3)
    assert order == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    found = ratio(timings["ours"], timings["theirs"])
    assert (found.median, found.low, found.high, found.processor) == (2, 1, 3, 1)


def test_the_peak_memory_of_a_command_is_its_own():
    code = "held = bytearray(300_000_000); from benchmarks.measure import timed_command; "
    code += "print(timed_command(['true']).peak_mb, timed_command([sys.executable, '-c', 'bytearray(10**8)']).peak_mb)"
    printed = timed_command([sys.executable, "-c", f"import sys; {code}"])
    small, large = map(float, printed.output.split())
    assert small < 50 and 100 < large < 200 and printed.peak_mb > 300


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only processes that were waited for are counted")
def test_processor_time_of_a_command_is_also_that_of_processes_which_it_leaves_behind():
    work = "import time; end = 0.5\nwhile time.process_time() < end: pass"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {work!r}])"
    left = timed_command([sys.executable, "-c", code])
    assert left.processor > 0.5
    assert left.wall < left.processor


def test_different_outputs_and_a_command_that_fails_end_the_benchmark():
    with pytest.raises(SystemExit, match="yellow: the outputs differ"):
        check_equal("yellow", (3, 5), (3, 6))
    with pytest.raises(SystemExit, match=r"(?s)failed.*No such file"):
        timed_command(["ls", "/no/such/folder"], LC_ALL="C")


def test_a_goal_is_an_upper_bound_or_at_least_and_the_page_says_whether_it_is_met():
    rows = [Row("a", 1.9, goal=1.8), Row("b", 0.6, goal=0.5, at_least=True), Row("c", 3.0, "s")]
    assert [row.verdict for row in rows] == ["**missed**", "met", ""]
    text = page({"Group": rows}, "tiny", 1, "the end")
    assert "| a | 1.90 × | ≤ 1.80 × | **missed** |" in text
    assert "| b | 0.60 × | ≥ 0.50 × | met |" in text
    assert text.endswith("the end\n")


def test_the_whole_history_is_computed_from_the_rates_and_the_published_counts():
    months = published_rows()
    assert len(months[Dataset.YELLOW]) == 212  # 2009-01 to 2026-08, of which two are known as CSV files too
    assert sum(map(len, months.values())) == 590
    rates = [Row("", 0.3, rate=EACH_MONTH), Row("", 2.0, rate=ONE_TINY_MONTH)]
    rates += [Row("", 5.0, rate=dataset.value) for dataset in Dataset]
    rows = sum(map(sum, months.values()))
    hours = (590 * 0.3 + rows * 3.0 / 1_000_000) / 3600
    assert f"| all | 590 | {rows:,} |  | **{hours:.1f}** |" in estimate(rates, 1_000_000)
    assert estimate(rates[:-1], 1_000_000) == ""
