"""The commands of a shell block, as words: what a reader would paste into a terminal."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field

SEPARATORS = frozenset("();<>|&")
KEYWORDS = ("do", "then", "else", "!", "{", "}", "exec", "sudo", "time")
NO_COMMANDS = ("for", "done", "fi", "if", "while", "case", "esac", "in")
ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)


@dataclass(frozen=True)
class Command:
    """One command: the variables that are set for it or exported, its program (empty if it only sets), its words."""

    variables: dict[str, str] = field(default_factory=dict)
    program: str = ""
    arguments: list[str] = field(default_factory=list)


def commands(block: str) -> Iterator[Command]:
    """The commands of a block in order; raises `ValueError` where a quotation is not closed.

    Loops are read as their parts. What stands in `$(…)` stays a part of its word.
    """
    for line in _logical_lines(block):
        words: list[str] = []
        skip = False  # the word after > or < is a file
        for token in _split(line):
            if set(token) <= SEPARATORS:
                skip = token.strip("&")[-1:] in ("<", ">")
                if not skip:
                    yield from _command(words)
                    words = []
            elif skip:
                skip = False
            else:
                words.append(token)
        yield from _command(words)


def _logical_lines(block: str) -> Iterator[str]:
    """Lines, joined where one ends with a backslash or within a quotation."""
    pending = ""
    for line in block.splitlines():
        pending = f"{pending}\n{line}" if pending else line
        if pending.endswith("\\"):
            pending = pending[:-1]
            continue
        try:
            _split(pending)
        except ValueError:
            continue
        yield pending
        pending = ""
    if pending:
        raise ValueError(f"a quotation is not closed: {pending[:80]}")


def _split(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    return list(lexer)


def _command(words: list[str]) -> Iterator[Command]:
    while words and words[0] in KEYWORDS:
        words = words[1:]
    if not words or words[0] in NO_COMMANDS:
        return
    is_export = words[0] == "export"
    rest = words[1:] if is_export else words
    variables = {}
    while rest and (match := ASSIGNMENT.fullmatch(rest[0])):
        variables[match[1]] = match[2]
        rest = rest[1:]
    if is_export:
        yield Command(variables)
    else:
        yield Command(variables, *(rest[:1] or [""]), rest[1:])
