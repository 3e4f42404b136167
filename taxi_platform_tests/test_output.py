"""What `taxi` prints: tables that fit a terminal, and commands that can be typed as they stand."""

import io
import os
import re
import sys
from datetime import date

import pytest
from rich.columns import Columns

from taxi_platform import output
from taxi_platform.lake.months import RawVersion
from taxi_platform.output import MARKS, SafeConsole, accept_any_encoding, print_status, print_table, print_versions
from taxi_platform.runs.result import IngestStatus, MonthResult
from taxi_platform.runs.status import MonthStatus, Status
from taxi_platform.settings import load_settings
from taxi_platform.trips.months import DatasetMonth, Month
from taxi_platform.trips.text import printable_lines
from taxi_platform_tests.support.hostile_texts import HOSTILE


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """A terminal of 80 characters, and a command that was called by its path."""
    monkeypatch.setattr(output, "out", SafeConsole(width=80))
    monkeypatch.setattr(output, "errors", SafeConsole(width=80, stderr=True))
    monkeypatch.setattr(sys, "argv", [".venv/bin/taxi", "ingest"])


def result(month, status, **counts):
    return MonthResult(DatasetMonth.parse("green", month), IngestStatus(status), 61.25, **counts)


def test_a_table_of_large_months_is_whole_at_80_columns(capsys):
    rows = 33_000_000
    print_table(
        [
            result("2020-04", "unchanged", rows_read=10 * rows, rows_clean=10 * rows, rows_in_table=10 * rows),
            result("2020-05", "loaded", rows_read=rows, rows_clean=rows, rows_rejected=9_999_999, rows_in_table=rows),
        ]
    )
    printed = capsys.readouterr().out.splitlines()
    assert max(map(len, printed)) <= 80
    assert " ".join(printed[0].split()) == "dataset month status rows read clean rejected in table seconds"
    assert printed[1].split() == ["green", "2020-04", "unchanged", *["330,000,000"] * 3, "61.2"]
    assert " ".join(printed[2].split()) == "green 2020-05 loaded 33,000,000 33,000,000 9,999,999 33,000,000 61.2"


def test_a_table_with_a_month_that_is_not_published_is_whole_at_80_columns(capsys):
    rows = dict.fromkeys(("rows_read", "rows_clean", "rows_in_table"), 33_000_000)
    print_table([result("2020-04", "loaded", rows_rejected=9_999_999, **rows), result("2020-05", "not published")])
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert max(map(len, printed.splitlines())) == 80


def test_raw_files_are_listed_whole_at_80_columns(capsys):
    time = "2026-11-24T10:00:00"
    raw = RawVersion("key", "url", "v", None, None, 8_589_934_592, "f" * 64, 33_000_000, time, instead_of="w")
    print_versions([raw])
    printed = capsys.readouterr().out.splitlines()
    assert " ".join(printed[1].split()) == f"{'f' * 12} 2026-11-24 10:00 33,000,000 8,589,934,592 restored, current"
    assert max(map(len, printed)) <= 80


def test_all_that_is_left_is_repeated_with_its_flags_and_only_what_was_begun_is_in_the_table(capsys):
    months = [
        result("2020-01", "loaded"),
        result("2020-02", "interrupted"),
        result("2020-05", "failed", problem="[No]"),
    ]
    print_table(
        [*months, *(result(f"2020-{n:02}", IngestStatus.NOT_BEGUN) for n in (3, 6, 7))],
        force=True,
        reject=["zero_distance"],
    )
    printed, wrong = capsys.readouterr()
    assert [line.split()[1] for line in printed.splitlines()[1:]] == ["2020-01", "2020-02", "2020-05"]
    assert wrong.splitlines() == [
        "green 2020-05: [No]",
        "Finish the remaining months with:",
        "  .venv/bin/taxi ingest green 2020-02 2020-03 --force --reject zero_distance",
        "  .venv/bin/taxi ingest green 2020-05 2020-07 --force --reject zero_distance",
    ]


def test_a_dataset_is_repeated_with_the_rules_it_has(capsys):
    fhv = MonthResult(DatasetMonth.parse("fhv", "2020-03"), IngestStatus.NOT_BEGUN)
    print_table([result("2020-02", "not begun"), fhv], reject=["over_24_hours", "zero_distance"])
    assert capsys.readouterr().err.splitlines()[1:] == [
        "  .venv/bin/taxi ingest fhv 2020-03 --reject over_24_hours",
        "  .venv/bin/taxi ingest green 2020-02 --reject over_24_hours,zero_distance",
    ]


def test_the_command_goes_by_its_name_where_it_is_found_by_it(capsys, tmp_path, monkeypatch):
    (tmp_path / "taxi").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "taxi")])
    print_table([result("2020-01", IngestStatus.NOT_BEGUN)])
    assert capsys.readouterr() == ("", "Finish the remaining months with:\n  taxi ingest green 2020-01\n")


def test_a_month_to_come_says_when_it_is_expected(capsys):
    this_month = Month.of(date.today())
    print_table([result(str(this_month), "not published", problem="Not there.")])
    print_table([result("2020-01", "not published", problem="Not there.")])
    soon, long_ago = capsys.readouterr().err.splitlines()
    assert "Not there. It is expected about 2" in soon
    assert long_ago == "green 2020-01: Not there."


@pytest.mark.fault(88)
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_others_named_is_printed_as_it_reads_and_commands_no_terminal(capsys, monkeypatch, text):
    monkeypatch.setattr(output, "errors", SafeConsole(width=80, stderr=True, force_terminal=True, color_system=None))
    print_table([result("2020-01", "failed", problem=text)])
    output.out.print(Columns([text]))
    table = output._table("name", numbers=())
    table.add_row(text)
    output.out.print(table)
    printed, wrong = capsys.readouterr()
    assert all(character.isprintable() or character == "\n" for character in printed + wrong)
    assert wrong.split("Finish")[0] == f"green 2020-01: {printable_lines(text)}\n"  # brackets and colons stay


def status_of(stages):
    months = [MonthStatus("green", f"2020-{n:02}", stage) for n, stage in enumerate(stages, 1)]
    return Status(months)


@pytest.mark.fault(89)
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_every_encoding_tells_the_stages_apart(monkeypatch, tmp_path, encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    accept_any_encoding()
    print_status(load_settings({"TAXI_DATASETS": "green", "TAXI_HOME": str(tmp_path)}), status_of(MARKS))
    output.out.print("Cleaning … 東京 ●")
    stream.flush()
    printed = stream.buffer.getvalue().decode(encoding)
    marks = next(line for line in printed.splitlines() if line.startswith("  2020")).split()[1:]
    legend = {" ".join(words[1:]): words[0] for words in map(str.split, re.split("   +|\n", printed)) if len(words) > 1}
    assert len(set(marks)) == len(MARKS)
    assert [legend[stage] for stage in MARKS] == marks
    assert printed.splitlines()[-1] == ("Cleaning … 東京 ●" if encoding == "utf-8" else "Cleaning ... ?? *")
