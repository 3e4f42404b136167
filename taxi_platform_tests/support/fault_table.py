"""The faults that the platform withstands, and the tests that prove it.

`python -m taxi_platform_tests.support.fault_table` writes docs/faults.md, for people, and docs/fault-tests.md, which
lists the tests of each. A test names its faults with a mark: `@pytest.mark.fault(29, 36)`.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "faults.md"
EVIDENCE_PAGE = PAGE.with_name("fault-tests.md")

FAULTS: dict[int, tuple[str, str]] = {
    1: ("a truncated gzip file", "The file is refused; nothing is published."),
    2: ("a gzip file with wrong bytes or a wrong checksum", "The file is refused; nothing is published."),
    3: ("several gzip members; garbage after the last", "All members are read; garbage is refused."),
    4: ("a decompression bomb", "Reading stops at 16 GiB or 200 times the file's size, in bounded memory."),
    5: ("an HTML page with status 200", "Its first bytes give it away; it never becomes a raw file."),
    6: ("an empty file", "The file is refused; it does not count as a month without trips."),
    7: ("a header without rows", "The file is refused unless forced."),
    8: ("columns in another order; the wrong file", "Columns match by name; a wrong file fails, listing both sides."),
    9: ("an unknown column", "It is kept in `extra_columns` and named by a warning."),
    10: ("a missing column", "It is null, with a warning; without pick-up times the file is refused."),
    11: ("a byte order mark; UTF-16", "The mark is ignored; UTF-16 is refused with a clear message."),
    12: ("CRLF, LF or CR line endings; none at the end", "The rows are the same."),
    13: ("bytes that are not UTF-8", "Only that row is rejected."),
    14: ("newlines and commas in quotes", "They are read as RFC 4180 says; every row is accounted for."),
    15: ("lines with too few or too many fields", "Only those rows are rejected, with line number and text."),
    16: ("NUL bytes", "Only that row is rejected; no NUL byte reaches a table."),
    17: ("a line of hundreds of megabytes", "It is one rejected row, in bounded memory."),
    18: ("repeated rows; the same file again", "Repeated rows are kept and counted; the same file changes nothing."),
    19: ("trips of other months and centuries", "They are kept and counted; a reject rule can reject them."),
    20: ("numbers that overflow, NaN, `1,234.5`", "The row is rejected. A negative fare is a reversal and is kept."),
    21: ("a damaged Parquet file; changing types", "The file is refused; a value that does not fit rejects its row."),
    22: ("the hours that daylight saving repeats or skips", "Wall clock times stay as published; no row is lost."),
    23: ("the machine's clock and time zone", "They have no effect: the partition says which month it is."),
    24: ("403 and 404: not published, or rate limited", "The run skips the month; repeated refusals fail it."),
    25: ("429 or 503 with Retry-After", "The wait is honoured up to a limit, within the deadline."),
    26: ("500 a few times, then 200", "The request is retried; one file results."),
    27: ("a server that sends slowly or stops sending", "The transfer ends below a minimum rate and at the deadline."),
    28: ("a connection reset in the middle of a body", "The transfer resumes or restarts; the whole file is hashed."),
    29: ("a body shorter than announced", "It is never accepted."),
    30: ("a file that changes during the transfer", "The transfer restarts; versions are never mixed."),
    31: ("redirects to http, this machine, a private network, or in a loop", "They are refused at once."),
    32: ("a full disk", "The error says what to do; no file is half-written; work continues once there is room."),
    33: ("SIGKILL at any point of publishing", "Readers see the old or the new month, whole; the next run repairs it."),
    34: ("a step that runs twice at the same time", "Compare-and-swap lets one win; the other starts over."),
    35: ("several runs of a month at once", "One version remains, whole; the others end cleanly and say why."),
    36: ("a bucket that is busy, refuses, or loses an answer", "Requests are retried; own writes are recognised."),
    37: ("an object damaged or deleted between two steps", "The error names it and the asset to materialize."),
    38: ("BigQuery jobs that fail, repeat, or answer late", "Retried by kind of error; a lost answer is the same job."),
    39: ("a table with rows that differ from its file", "The load fails, and the next run loads it again."),
    40: ("PostgreSQL restarted, or a session ended during COPY", "The old month remains; the next run loads the new."),
    41: ("Dagster's own database restarted during a run", "The run continues; nothing is lost."),
    42: ("a DuckDB or SQLite file held by another process; a log left by a kill", "Waited for, then named; replayed."),
    43: ("path traversal, NUL, odd names of datasets and months", "They are refused before anything runs."),
    44: ("SQL in names and values", "It is quoted or refused, and never executed."),
    45: ("secrets in URLs, errors, logs, metadata", "They appear nowhere."),
    46: ("a notification channel that is down, slow or redirects", "No run is affected; retried for three days."),
    47: ("Ctrl-C or SIGTERM at any stage", "The run ends within seconds; nothing is half-published or left over."),
    48: ("a dataset removed while one of its runs waits", "The run fails with a clear error; loaded months remain."),
    49: ("a range of months materialized in the UI", "Every month is a run of its own, with all its checks."),
    50: ("a tick over the whole archive", "It ends within 20 s, says what it did not reach; the next continues there."),
    51: ("a table locked while a tick or `taxi status` runs", "It is not waited for; months are judged by the lake."),
    52: ("months that fail for ever", "They are tried once a day and hold up no other month."),
    53: ("the day's requests to a source used up", "Nothing more is asked; those months come first the next day."),
    54: ("a file republished without ETag, under the same length", "It is fetched every 30 days and compared."),
    55: (
        "messages where no daemon runs, or whose URLs changed places",
        "`taxi ingest` delivers them, to the recipient they were meant for.",
    ),
    56: ("a reader beside a load", "`trips.duckdb` never blocks; a reader of the warehouse is waited for, then named."),
    57: ("taxi zones that are missing or incomplete", "The next load writes them again; `taxi doctor` says so."),
    58: ("a new version of a month that lost its rows", "It is set aside; the month stays until a person accepts it."),
    59: ("another dataset's file, or one of another time", "Its columns or its count give it away; it is set aside."),
    60: ("a file of another month", "Its pick-ups give it away when it is cleaned; it is set aside."),
    61: (
        "a file set aside that is right or returns",
        "`taxi accept` loads it; it is not fetched or judged again.",
    ),
    62: ("1,018 or 50,000 columns; a binary column", "The file is refused, and the message says which it is."),
    63: ("numbers such as `1_000` and `+-1`, which DuckDB reads", "The row is rejected, by every reader."),
    64: (
        "fewer bytes than announced, or headers, ranges or an MD5 of another file",
        "The file is downloaded once more; what is still in doubt is refused.",
    ),
    65: (
        "a raw file damaged on the way, in the lake, or at its source",
        "It is fetched again in the same run; a file damaged at its source is left until it changes.",
    ),
    66: (
        "redirects to a name that changes its address, does not exist, or is a private address in IPv6 spelling",
        "Each host is looked up once, checked, and connected to as it was looked up; TLS verifies its name.",
    ),
    67: (
        "a mistyped address instead of a month that is not published",
        "`taxi doctor` tries months that should be there; it, ingest and status name the addresses.",
    ),
    68: (
        "an error of the operating system other than a full disk",
        "It is named, with what helps against it, and blamed on the place where it happened.",
    ),
    69: (
        "one value of a table altered: a cent, a microsecond, a float's last bit; values swapped; a row doubled",
        "It is seen in every engine, and the next run of the month loads it again.",
    ),
    70: (
        "a table replaced by another version while it is compared",
        "The comparison starts over, and says which version is there; it never calls that damage.",
    ),
    71: (
        "files in the lake or tables damaged while nobody looks",
        "`taxi audit` and `audit_schedule` read everything, and name each with the command that repairs it.",
    ),
    72: ("a month replaced while it is audited", "It is looked at again, and only what is still wrong is reported."),
    73: (
        "a clean file, rejected rows, report or checksums that are cut, altered or lost",
        "Each is compared with its sha256 before it is used; the next run cleans the month again, to the same bytes.",
    ),
    74: ("a damaged manifest", 'Status and runs name it and say what to do; never "Nothing to do" and status 0.'),
    75: ("files of a newer format; unknown fields", 'Refused with "Upgrade taxi_platform", and left alone; ignored.'),
    76: ("the version before over the same lake: a rollback, mixed versions", "Both read every month, and lose none."),
    77: (
        "what the operating system refuses in the lake: no permission, a file for a folder, a long name, a loop",
        "The lake's own error names the file and the right setting; other months go on.",
    ),
    78: ("a power failure after folders were made", "They are synced up to the root, like the files in them."),
    79: ("a run, code server, daemon or machine killed", "The run is run again; its backfill ends complete."),
    80: ("a `dagster.yaml` that is empty or cut", "It is written again; the damaged one is kept beside it."),
    81: ("Dagster's SQLite files locked for a minute, or damaged", "Waited for; named, with how to go on."),
    82: ("a process that is stuck with a month", "Only runs of that month wait; their logs name the process."),
    83: ("a clock that was years ahead", "Sensors and schedules look again within their interval."),
    84: ("odd characters in TAXI_HOME, modules in the working folder", "All work; a ? is refused by name."),
    85: ("wrong tokens, thirty at a time", "Each waits for itself alone; the right token is let in at once."),
    86: ("a reject rule that the dataset does not have", "A mistake, which lists the rules it has."),
    87: ("a restore by digits that begin several versions", "None is restored; all are named."),
    88: (
        "escape codes, Markdown, HTML or line ends in names",
        "Terminal, UI and messages show them as text; no address in them is called.",
    ),
    89: ("a terminal in ASCII or Latin-1", "What it lacks is printed in ASCII."),
    90: (
        "the process that runs are forked from killed",
        "Its runs end with it, are reported and run again, forked from a new one; their backfill ends complete.",
    ),
    91: (
        "a kill between trips and marts, or within the marts",
        "The next run makes what is missing; until then tables have the old marts, and `trips.duckdb` lacks the month.",
    ),
    92: (
        "marts over negative, huge, missing and odd values",
        "The sums are equal on every engine, and equal to the file's.",
    ),
    93: ("a month before there were taxi zones", "Its marts have one row without a zone."),
    94: ("a month without trips", "Its marts are empty; its quality says so."),
    95: ("a mart that was changed or dropped by hand", "The comparison notices; the next run makes it again."),
    96: ("trips of another version in the warehouse when marts are made", "The run says so; the marts stay."),
    97: ("a mart that is missing, damaged or left over in the lake", "It is made again, or swept."),
    98: (
        "marts that were never built, are of an older version, or were dropped by hand",
        "The survey or the check notices; only the marts of the month are built, never a full reload.",
    ),
    99: ("somebody's own table or view with the name of one of our views", "It stays, is named, and fails no ingest."),
    100: ("a warehouse user who must not create views", "The month is loaded; the log says what to grant."),
    101: ("marts that are missing, or older than their trips", "They are named; no frame is made of what is left."),
    102: (
        "names and texts of a file that attack the overview",
        "The page shows them as text; it has no script, and its policy lets a browser run and load nothing.",
    ),
    103: ("a home that cannot be written, when the overview is drawn", "The page goes to a temporary folder, named."),
    104: ("marts of another version, or none, when the overview is drawn", "They are not counted; the page says so."),
    105: ("more refused CSV values than DuckDB keeps an account of", "The month is read with care, in bounded memory."),
    106: (
        "an agent on another machine, with a lake or a table on one machine's disk",
        "It refuses to start and says what cannot be shared.",
    ),
    107: (
        "an agent killed with its runs, which never comes back",
        "Noticed after a minute without an answer; its runs are run again by another.",
    ),
    108: (
        "an agent that answers slowly, or is frozen for some seconds",
        "It keeps its runs.",
    ),
    109: (
        "a run's process killed under its agent, or a task that ended while the run says it runs",
        "The agent answers without it; the run fails and is run again.",
    ),
    110: (
        "a broker that is down, or forgets what it was told",
        "Runs go on and others wait; lost messages are sent again. Nobody counts as lost in the meantime.",
    ),
    111: ("an agent of another version, or with other settings", "It says what differs, and takes nothing."),
    112: ("a queue that nobody serves", "Its runs wait and never fail for that; log, UI and `taxi agents` name it."),
    113: (
        "an agent that is told to end",
        "It finishes its runs and answers until then; a second signal interrupts them, and they are run again.",
    ),
    114: (
        "Dagster's storage restarted under agents or Kubernetes Jobs, or down for minutes",
        "The runs wait for it, and succeed.",
    ),
    115: (
        "a run for an agent canceled while it runs or waits",
        "It ends as canceled and is not run again; the month stays as it was.",
    ),
    116: ("a Kubernetes Job killed in mid-run", "It is noticed; the month is run again once and loaded once."),
    117: ("a Kubernetes API that does not answer", "Runs go on; none is reported as failed or started again."),
    118: ("a run canceled while its Kubernetes Job works", "Job and pods are deleted; the month stays as it was."),
    119: ("a pod that never starts: no room, no image", "The run fails at the start timeout, with Kubernetes' reason."),
    120: ("a Job that starts after its run was given up", "It does nothing; the month of the second run stays."),
    121: (
        "parts of `taxi serve`, and itself, killed at random during a backfill",
        "They are started again; every month is loaded once, and no run is left over.",
    ),
    122: (
        "a second `taxi serve` on one home, or on one database from another machine",
        "It says who holds it, and since when, and ends.",
    ),
    123: (
        "`taxi serve` stopped or reloaded while runs are in progress",
        "It waits for them; a second signal interrupts them, and they are run again after the next start.",
    ),
    124: (
        "Dagster's database away when `taxi serve` starts, or while it runs",
        "It waits up to a limit and says so; it goes on when the database answers again.",
    ),
    125: ("a backup of Dagster's database while it is written", "The copy is whole, and opens with all runs."),
    126: ("a part that hangs when /health or /metrics asks it", "The answer comes in seconds, and says which part."),
    127: ("a scrape while Dagster's database is away", "It shows what was known, and that the database is down."),
    128: ("a wrong token, or none, for metrics and health", "Metrics are refused; health tells its code alone."),
    129: (
        "a daemon that has stopped; a code server that is stuck",
        "/health answers 503 and names it to who may know.",
    ),
    130: (
        "a home that a newer version of the platform opened",
        "A home that it can read is opened, with a warning; another is refused by name, and nothing is changed.",
    ),
    131: (
        "Dagster's database with the tables of an earlier or a later Dagster",
        "The doctor names earlier ones, and one command migrates them with their history; later ones are used.",
    ),
    132: (
        "a failed run that Dagster's daemon misses: it looked before the run was recorded as failed",
        "Within about a minute it is found and run again, once; its backfill goes on.",
    ),
    133: (
        "a run killed after its last step, before it is recorded as successful",
        "It is shown as failed, and run again as a whole, which finds its work done.",
    ),
    134: (
        "an agent cut off from the network in the middle of a run, which comes back",
        "Its run is run again by another; it ends what it had, takes runs again, and nothing is doubled.",
    ),
    135: (
        "a clock that is set while runs are in progress",
        "They go on; a process is known by when it started since the boot, not by the time of day.",
    ),
    136: (
        "a `dagster.yaml` that Dagster does not accept when `taxi serve` reloads it",
        "Nothing is reloaded: parts and runs go on as they are, and the log says what is wrong.",
    ),
    137: ("a part of `taxi serve` that logs without end", "Its log is set aside at 10 MB; one such file is kept."),
    138: (
        "the message of a run that comes twice, to the agent that works on it",
        "The run is executed once, and counts as at work until it ends.",
    ),
    139: ("a run that somebody looks at in the UI while it begins", "It runs; both make the file of its events."),
    140: (
        "a killed run of a backfill that Dagster ends before the run is run again",
        "The backfill waits for it; one of a job, which Dagster ends all the same, has it run again nevertheless.",
    ),
    141: (
        "a run that ends in the moment in which somebody looks for runs of killed processes",
        "It is left as it ended; without a second look it would be reported as failed.",
    ),
    142: (
        "a new home that several processes open at the same moment",
        "One after the other; Dagster's tables are made once.",
    ),
    143: (
        "a killed run of `taxi ingest --through-dagster`, looked at before it is stored that it is to be run again",
        "It is followed on; the result is that of the run that succeeds.",
    ),
    144: ("a home on a file system without hard links, such as exFAT", "Runs begin there as elsewhere."),
    150: (
        "a queue that is renamed in TAXI_QUEUES while runs wait in it",
        "They go to the new one, and none is left in the old.",
    ),
    151: (
        "an agent on a machine that has the name of the code server's",
        "It is refused: its runs would count there as those of killed processes.",
    ),
    152: (
        "a damaged file of what is known of a clean file's rows",
        "It is made again from the clean file; what a table holds is compared as before.",
    ),
    158: (
        "a run canceled while its agent or the broker cannot be reached",
        "It is canceling at once, and interrupted when they can; the daemon goes on with others.",
    ),
    159: (
        "a backfill canceled while its runs wait for agents, also in a queue that nobody serves",
        "They are canceled within some seconds, and the backfill ends.",
    ),
    160: (
        "commands in a container that has the host name of the server's, as with `docker compose run`",
        "Neither takes the other's runs for those of killed processes.",
    ),
    170: (
        "a home or lake that is moved or copied, whose `trips.duckdb` reads the old place",
        "`taxi doctor` says so; the next run makes the views again.",
    ),
    171: (
        "a lake in which a run cannot take its month's lock: no permission, read-only, a file in the way",
        "Result, status and message say what is wrong and what to do, though no step has begun.",
    ),
}
"""Number → the fault, and what happens then."""


class Kind(NamedTuple):
    """Faults that stand together on the page; `numbers` is a list of numbers and ranges, such as `1-8, 11`."""

    title: str
    summary: str
    numbers: str

    @property
    def anchor(self) -> str:
        return self.title.lower().replace(",", "").replace(" ", "-")

    def faults(self) -> list[int]:
        """Those of its numbers that are in `FAULTS`, in the order in which they are listed."""
        ends = [part.strip().partition("-") for part in self.numbers.split(",")]
        listed = [number for first, _, last in ends for number in range(int(first), int(last or first) + 1)]
        return [number for number in listed if number in FAULTS]


KINDS = (
    Kind(
        "Damaged files and wrong files",
        "A file that cannot be read is refused; one that can be read but looks wrong is set aside. The month stays.",
        "1-8, 11, 21, 62, 58-61",
    ),
    Kind(
        "Rows and columns",
        "Only rows that cannot be stored truthfully are rejected, with the reason; all others are kept.",
        "9, 10, 12-20, 22, 23, 63, 105",
    ),
    Kind(
        "The source and the network",
        "What may pass is retried within limits; what cannot be trusted is never accepted.",
        "24-31, 64, 66, 67, 53, 54",
    ),
    Kind(
        "The lake, disks and buckets",
        "What is stored is compared with its checksums before it is used, and made again where it differs.",
        "32, 36, 37, 65, 68, 71-74, 77, 78, 144, 171",
    ),
    Kind(
        "Killed runs, and runs at the same time",
        "Readers see the old month or the new one, whole, and the next run completes it.",
        "33-35, 47, 79, 82, 90, 91, 132, 133, 135, 140-143, 160",
    ),
    Kind(
        "The warehouse",
        "A month is replaced in one transaction, and the table is compared with its file.",
        "38-40, 42, 51, 56, 57, 69, 70, 152",
    ),
    Kind(
        "Marts, views, pictures and the overview",
        "Sums are compared with the file's; what is missing or older than its trips is named and made again.",
        "92-104, 170",
    ),
    Kind(
        "Dagster, schedules and backfills",
        "Dagster's history decides nothing, so nothing is lost with it.",
        "41, 48-50, 52, 80, 81, 83, 139",
    ),
    Kind("Notifications", "Messages are kept until they are delivered, and never affect a run.", "46, 55"),
    Kind(
        "Names, settings, secrets and access",
        "Mistakes are refused before anything runs, attacks have no effect, and secrets appear nowhere.",
        "43-45, 84-89",
    ),
    Kind(
        "Agents on other machines",
        "A run whose agent is lost is noticed and run again; no month is loaded twice or forgotten.",
        "106-115, 134, 138, 150, 151, 158, 159",
    ),
    Kind("Kubernetes and Cloud Run", "A job that is lost, refused or never starts is reported.", "116-120"),
    Kind(
        "The server, its health and its metrics",
        "Parts that die are started again, and what does not answer is named.",
        "121-129, 136, 137",
    ),
    Kind(
        "Upgrades and rollbacks",
        "What an older version wrote is read; what a newer one wrote is refused and left alone.",
        "75, 76, 130, 131",
    ),
)
"""The sections of the page, in order."""


@cache
def marked_tests() -> dict[int, list[str]]:
    """Fault → the tests that carry its number, as `folder/file.py::test`."""
    tests: dict[int, list[str]] = {number: [] for number in FAULTS}
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            for mark in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.fault":
                    for argument in mark.args:
                        tests[ast.literal_eval(argument)].append(f"{path.relative_to(TESTS).as_posix()}::{node.name}")
    return tests


def page() -> str:
    """The text of docs/faults.md."""
    tests, kinds = marked_tests(), [(kind, kind.faults()) for kind in KINDS]
    lines = [
        "# Faults, and what happens",
        "",
        f"What the platform does when something goes wrong: {len(FAULTS)} faults, each with tests that cause it and",
        "look at what is left. The tests use real parts: HTTP servers and proxies on loopback, PostgreSQL, emulators",
        "of Google's services, processes killed by the kernel, a full disk. [Reliability](reliability.md) says what is",
        "promised, and how to recover; `taxi doctor` and `taxi status` say what is wrong now.",
        "",
        *(f"- [{kind.title}](#{kind.anchor})" for kind, faults in kinds if faults),
    ]
    for kind, faults in kinds:
        if faults:
            lines += [
                "",
                f"## {kind.title}",
                "",
                kind.summary,
                "",
                "| fault | what happens | shown by |",
                "|---|---|---|",
            ]
        for number in faults:
            fault, outcome = FAULTS[number]
            count = "1 test" if len(tests[number]) == 1 else f"{len(tests[number])} tests"
            lines.append(f"| {fault} | {outcome} | [{count}](fault-tests.md#fault-{number}) |")
    lines += ["", "Generated by `python -m taxi_platform_tests.support.fault_table`; do not edit."]
    return "\n".join(lines) + "\n"


def evidence() -> str:
    """The text of docs/fault-tests.md."""
    lines = [
        "# The tests of each fault",
        "",
        "[Faults](faults.md) says what happens in each. The names of the tests are sentences that say what they look",
        "at. Generated by `python -m taxi_platform_tests.support.fault_table`; do not edit.",
    ]
    for number, tests in marked_tests().items():
        lines += ["", f"## Fault {number}", "", f"{FAULTS[number][0][:1].upper()}{FAULTS[number][0][1:]}.", ""]
        for test in tests:
            file, _, name = test.partition("::")
            lines.append(f"- [{file}](../{TESTS.name}/{file}): `{name}`")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    EVIDENCE_PAGE.write_text(evidence(), "utf-8")
