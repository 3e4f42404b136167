"""The faults we hold out against, and the tests that show it: `python -m taxi_platform_tests.support.fault_table`
writes docs/faults.md. A test names its faults by a mark, `@pytest.mark.fault(29, 36)`."""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "faults.md"

FAULTS: dict[int, tuple[str, str]] = {
    1: ("a gzip file that is cut", "refused; nothing is published"),
    2: ("a gzip file with wrong bytes or checksum", "refused; nothing is published"),
    3: ("several gzip members; garbage behind the last", "all are read; garbage is refused"),
    4: ("a decompression bomb", "stopped at 16 GiB or 200 times its size, in bounded memory"),
    5: ("an HTML page with status 200", "refused by its first bytes, never kept as a raw file"),
    6: ("an empty file", "refused, not taken for a month without trips"),
    7: ("a header and no rows", "refused unless forced"),
    8: ("columns in another order; the wrong file", "found by name; refused with what was expected and found"),
    9: ("a column nobody knows", "kept in `extra_columns`, named by a warning"),
    10: ("a column that is missing", "null, and told; without pick-up times the file is refused"),
    11: ("a byte order mark; UTF-16", "left out; refused in clear words"),
    12: ("line ends of CRLF, LF or CR, none at the end", "the same rows"),
    13: ("bytes that are no UTF-8", "the row is rejected alone"),
    14: ("newlines and commas in quotes", "read as RFC 4180 says, every row accounted for"),
    15: ("lines with too few or too many fields", "rejected alone, with line number and text"),
    16: ("NUL bytes", "the row is rejected alone; none reaches a table"),
    17: ("a line of hundreds of megabytes", "one rejected row, in bounded memory"),
    18: ("repeated rows; the same file again", "kept and counted; no change"),
    19: ("trips of other months and centuries", "kept and counted; rejected only if configured"),
    20: ("numbers that overflow, NaN, `1,234.5`", "rejected; a negative fare is a reversal and stays"),
    21: ("a damaged Parquet file; types that drift", "refused; cast where the value fits, else the row is rejected"),
    22: ("the hours that daylight saving repeats or skips", "wall clock as published; nothing lost or doubled"),
    23: ("the machine's clock and time zone", "have no say: the month is the partition's"),
    24: ("403 and 404: not published, or rate limited", "a skip without a failure; tried again later, then failed"),
    25: ("429 or 503 with Retry-After", "honoured up to a cap, within the deadline"),
    26: ("500 a few times, then 200", "tried again; one file"),
    27: ("a server that drips or falls silent", "given up below a least rate, and at the deadline"),
    28: ("a connection reset in mid-body", "goes on where it broke, or starts afresh; hashed whole"),
    29: ("a body shorter than announced", "never taken"),
    30: ("a file that changes while it is fetched", "started afresh, never mixed"),
    31: ("redirects to http, to this machine, to a private network, without end", "refused at once"),
    32: ("a full disk", "told with what to do; nothing half-written; goes on once there is room"),
    33: ("SIGKILL wherever something is published", "readers see old or new, whole; the next run repairs all"),
    34: ("a step that runs twice, both alive", "one wins by compare-and-swap, the other starts over"),
    35: ("several runs of a month at once", "one version stays, whole; losers end clean and say why"),
    36: ("a bucket that is busy, refuses or loses an answer", "tried again; its own write recognised by content"),
    37: ("an object damaged or gone between two steps", "refused by name, with what to materialize"),
    38: ("BigQuery jobs that fail, repeat, or answer late", "tried again by class; a lost answer is the same job"),
    39: ("a table with other rows than its file", "fails, and is loaded again"),
    40: ("PostgreSQL restarted or a session ended in mid-COPY", "the old month stays; the next run loads"),
    41: ("Dagster's own database restarted in mid-run", "the run goes on, nothing is lost"),
    42: ("a DuckDB file or SQLite held by another process; a log left by a kill", "waited for, then named; recovered"),
    43: ("path traversal, NUL, odd names of datasets and months", "refused before anything runs"),
    44: ("SQL in names and values", "quoted or refused; never executed"),
    45: ("secrets in URLs, errors, logs, metadata", "shown nowhere"),
    46: ("a channel of notifications that is down, slow or redirects", "hurts no run; tried again for three days"),
    47: ("Ctrl-C or SIGTERM at any stage", "ends in seconds, nothing half-published, nothing left"),
    48: ("a dataset taken out while a run of it waits", "the run fails clearly; what was loaded stays"),
}
"""Number → the fault, and what happens."""


def marked_tests() -> dict[int, list[str]]:
    """Fault → the tests that carry its number, as `folder/file.py::test`."""
    found: dict[int, list[str]] = {number: [] for number in FAULTS}
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            for mark in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.fault":
                    for argument in mark.args:
                        found[ast.literal_eval(argument)].append(f"{path.relative_to(TESTS).as_posix()}::{node.name}")
    return found


def page() -> str:
    """docs/faults.md."""
    lines = [
        "# Faults, what happens, and the tests that show it",
        "",
        "Made from the tests by `python -m taxi_platform_tests.support.fault_table`. Each runs on the real parts:",
        "HTTP servers and proxies on loopback, a real PostgreSQL, the emulators of Google's services, real processes",
        "killed by the kernel, a real full disk. [Reliability](reliability.md) says what is promised.",
        "",
        "| | fault | what happens | tests |",
        "|---:|---|---|---|",
    ]
    for number, tests in marked_tests().items():
        fault, outcome = FAULTS[number]
        lines.append(f"| {number} | {fault} | {outcome} | {'<br>'.join(f'`{test}`' for test in tests)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
