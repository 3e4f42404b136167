"""What can be wrong with a page: each check yields sentences that say what, and nothing if all is well.

Nothing is run here, and no network is used: addresses elsewhere have to be well-formed and on a host that is listed.
A lake in a bucket needs credentials, or the name of an emulator in the environment.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click
import yaml

from taxi_platform.cli import cli
from taxi_platform.settings import check_urls, load_settings, unknown_names
from taxi_platform.trips.contract import all_rules
from taxi_platform.trips.errors import TaxiError
from taxi_platform.trips.months import DatasetMonth, Month
from taxi_platform.ui.access import load_access
from taxi_platform_tests.support.documents import ROOT, Page, read_page
from taxi_platform_tests.support.shell_blocks import Command, commands

HOSTS = frozenset(
    {
        "appriseit.com",
        "caddyserver.com",
        "cloud.google.com",
        "dagster.io",
        "docs.dagster.io",
        "keepachangelog.com",
        "marimo.io",
        "oauth2-proxy.github.io",
        "prometheus.io",
        "semver.org",
    }
)
"""Hosts that pages link to. A new one is added here by somebody who has looked at it."""

PROGRAMS = frozenset(
    {
        *("bq", "cd", "cp", "curl", "docker", "duckdb", "gcloud", "git", "helm", "kubectl", "make", "mkdir", "openssl"),
        *("pg_dump", "pg_restore", "promtool", "psql", "python", "python3", "rm", "sh", "ssh", "systemctl", "umask"),
        *("pip", "chown", "install", "ln", "mv", "systemd-run", "systemd-sysusers"),
    }
)
"""Programs that pages may call, besides those in .venv/bin."""

LANGUAGES = frozenset({"", "sh", "python", "sql", "yaml", "toml", "json", "ini", "nginx", "mermaid"})
INCOMPLETE = re.compile(r"[…<\[|{]|\$\w|\.\.\.")
"""What marks code in a sentence as a form that a reader fills in."""
CALL = re.compile(
    r"(\.venv/bin/\S|taxi -|taxi [a-z]|make [a-z]|sh scripts/|python (-m |scripts/)|pytest |TAXI_[A-Z_]+=)"
)
TOP = r"(\.ci|benchmarks|deploy|docs|examples|scripts|taxi_platform|taxi_platform_tests)"
REPOSITORY_PATH = re.compile(rf"{TOP}/[\w/.-]+")
FILE_IN_A_ROOM = re.compile(r"[a-z_]+/[\w/.-]+\.(py|toml|sql|html|csv|yaml)")
ASK_FOR_HELP = ("-h", "--help", "--version")
ROOMS = (ROOT, ROOT / "taxi_platform", ROOT / "taxi_platform_tests")
MADE_BY_COMMANDS = ("benchmarks/results.md",)
"""Files that pages name and that git does not keep."""


def link_problems(page: Page) -> Iterator[str]:
    """Addresses of links and images: files and headings that are not there, hosts that are not listed."""
    for address in page.links:
        if problem := _link_problem(page, address):
            yield problem
    for address in page.images:
        if urlsplit(address).scheme or not (page.path.parent / unquote(address)).is_file():
            yield f"the image {address} is not a file"


def _link_problem(page: Page, address: str) -> str | None:
    parts = urlsplit(address)
    if parts.scheme:
        if parts.scheme != "https" or not parts.hostname or re.search(r"\s", address):
            return f"{address} is not an https address"
        return None if parts.hostname in HOSTS else f"{parts.hostname} is not in HOSTS"
    target = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
    if not target.exists() or not target.is_relative_to(ROOT):
        return f"{address} is not in the repository"
    if parts.fragment:
        anchors = page.anchors if target == page.path else _page(target).anchors if target.suffix == ".md" else ()
        if parts.fragment not in anchors:
            return f"{address}: there is no such heading"
    return None


@cache
def _page(path: Path) -> Page:
    return read_page(path)


def command_problems(page: Page) -> Iterator[str]:
    """Commands in shell blocks and in sentences that would be refused, or whose program or file is not there."""
    spans = [span for span in page.spans if CALL.match(span) and not INCOMPLETE.search(span)]
    for text in [*page.code("sh"), *spans]:
        try:
            for command in commands(text):
                yield from _problems_of(command)
        except ValueError as error:
            yield str(error)
    for text in page.code(""):
        if call := re.search(rf"^\s*(\$ )?{CALL.pattern}.*", text, re.MULTILINE):
            yield f"a block with the command {call[0].strip()!r} is not marked as sh"


def _problems_of(command: Command) -> Iterator[str]:
    yield from _value_problems(command.variables)
    program, arguments = command.program, command.arguments
    for word in [program, *arguments]:
        if REPOSITORY_PATH.fullmatch(word) and not (ROOT / word).exists():
            yield f"{word} is not in the repository"
    name = program.rpartition("/bin/")[2]
    if program.startswith(".venv/") and not Path(sys.executable).with_name(name).exists():
        yield f"{program} is not in the environment"
    elif not program.startswith(".venv/") and name and name not in {*PROGRAMS, "taxi", "pytest"}:
        yield f"{program} is not in PROGRAMS"
    if check := CHECKS.get(name):
        yield from check(arguments)


def _taxi_problems(arguments: list[str]) -> Iterator[str]:
    line = f"taxi {' '.join(arguments)}"
    words = [word for word in arguments if word not in ASK_FOR_HELP]
    try:
        _check_values(_parameters(cli, words))
    except click.MissingParameter as error:
        if words == arguments and len(words) > 1:  # `taxi accept` in a sentence names the command
            yield f"{line}: {error.format_message()}"
    except click.UsageError as error:
        yield f"{line}: {error.format_message()}"
    except TaxiError as error:
        yield f"{line}: {error}"


def _parameters(command: click.Command, arguments: list[str]) -> Mapping[str, object]:
    """What the command would be called with; raises `UsageError` as it would."""
    if isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
        if arguments[0] not in command.commands:
            raise click.UsageError(f"no such command: {arguments[0]}")
        return _parameters(command.commands[arguments[0]], arguments[1:])
    if isinstance(command, click.Group):  # it would print its commands
        return {}
    return command.make_context(command.name, list(arguments)).params


def _check_values(parameters: Mapping[str, object]) -> None:
    """Raise `TaxiError` for a dataset, month or rule that does not exist."""
    dataset, month = parameters.get("dataset"), parameters.get("month")
    if dataset:
        DatasetMonth.parse(str(dataset), str(month or "2024-01"))
    if last := parameters.get("last_month"):
        Month.parse(str(last))
    if unknown := {rule for rule in str(parameters.get("reject") or "").split(",") if rule} - set(all_rules()):
        raise TaxiError(f"{', '.join(sorted(unknown))} is not a rule")


def _make_problems(arguments: list[str]) -> Iterator[str]:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    for target in arguments:
        if "=" not in target and not target.startswith("-") and target not in targets:
            yield f"make has no target {target}"


def _python_problems(arguments: list[str]) -> Iterator[str]:
    if arguments[:1] == ["-c"]:
        yield from _syntax_problem(arguments[1])
        return
    if arguments[:1] != ["-m"]:
        return
    spec = find_spec(arguments[1])
    if spec is None:
        yield f"there is no module {arguments[1]}"
    elif arguments[1].startswith(("taxi_platform", "benchmarks")):
        folder = Path(spec.origin or "")
        sources = folder.parent.glob("*.py") if folder.name == "__init__.py" else [folder]
        text = "".join(source.read_text("utf-8") for source in sources)
        yield from (
            f"{arguments[1]} has no option {word}"
            for word in arguments[2:]
            if word.startswith("--") and f'"{word}"' not in text
        )


def _pytest_problems(arguments: list[str]) -> Iterator[str]:
    markers = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["pytest"]["ini_options"]["markers"]
    known = {marker.partition(":")[0].partition("(")[0] for marker in markers} | {"and", "or", "not"}
    for option, value in pairwise(arguments):
        if option == "-m":
            yield from (f"pytest has no mark {mark}" for mark in re.findall(r"\w+", value) if mark not in known)


CHECKS: dict[str, Callable[[list[str]], Iterator[str]]] = {
    "taxi": _taxi_problems,
    "make": _make_problems,
    "python": _python_problems,
    "pytest": _pytest_problems,
}


def _value_problems(variables: Mapping[str, str]) -> Iterator[str]:
    """Settings whose value would be refused. Values that a reader fills in are not looked at."""
    ours = {name: value for name, value in variables.items() if name.startswith("TAXI_")}
    complete = {name: value for name, value in ours.items() if not re.search(r"[…$]", value)}
    try:
        check_urls(load_settings(complete))
        load_access(3000, complete)
    except TaxiError as error:
        yield str(error)


def setting_problems(text: str) -> Iterator[str]:
    """Names in any text that look like settings and are none."""
    names = set(re.findall(r"\bTAXI_[A-Z_]*[A-Z]\b", text))
    yield from (f"{name} is not a setting" for name in unknown_names(dict.fromkeys(names, "")))


def file_problems(page: Page) -> Iterator[str]:
    """Files that sentences name, as a path from the root or from the package, and that are not there."""
    for span in page.spans:
        if REPOSITORY_PATH.fullmatch(span):
            if not (ROOT / span).exists() and span not in MADE_BY_COMMANDS:
                yield f"{span} is not in the repository"
        elif FILE_IN_A_ROOM.fullmatch(span) and not any((room / span).exists() for room in ROOMS):
            yield f"{span} is neither in the repository nor in a room"


def _read_toml(text: str) -> None:
    """A file, or one entry of an array."""
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        tomllib.loads(f"entries = [\n{text}]")


READERS: dict[str, Callable[[str], object]] = {
    "yaml": lambda text: list(yaml.safe_load_all(text)),
    "toml": _read_toml,
    "json": json.loads,
}


def syntax_problems(page: Page) -> Iterator[str]:
    """Blocks in a language that is not known here, and those that their language does not accept."""
    for block in page.blocks:
        if block.language not in LANGUAGES:
            yield f"{block.language} is not in LANGUAGES"
        elif block.language == "python":
            yield from _syntax_problem(block.text)
        elif read := READERS.get(block.language):
            try:
                read(block.text)
            except (ValueError, yaml.YAMLError) as error:
                yield f"{block.language}: {error}"


def _syntax_problem(text: str) -> Iterator[str]:
    try:
        ast.parse(text)
    except SyntaxError as error:
        yield f"python: {error}"
