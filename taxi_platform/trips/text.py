"""Text that files, servers, databases and users supply, made safe to show: the one place where that is done.

A column may be named `![](http://host/x.png)`, a file after an escape code that rewrites the terminal's title. Every
`TaxiError` passes `printable` and the console `printable_lines`; whatever Dagster's UI or a channel renders as Markdown
passes `markdown`, and what becomes part of a page or picture `escaped_html`.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

MAX_TEXT, MAX_NAME, MAX_NAMES = 2_000, 80, 40
PLAIN_WORD = re.compile(r"(?!.*(\b_|_\b|://|www\.))[^\\`*\[\]<>|&~#@$]*", re.IGNORECASE)
"""Holds nothing that Markdown, GitHub's or a messenger's, gives a meaning to; a bare URL would become a link."""
CODE_WORD = re.compile(r"`[^`]+`[.,;:]?")


def printable_lines(text: str) -> str:
    """The text without control, format and bidirectional characters, each of which becomes a space; lines stay."""
    return "".join(character if character.isprintable() or character == "\n" else " " for character in text)


def printable(text: str, limit: int = MAX_TEXT) -> str:
    """The text as one line of at most `limit` characters, without what `printable_lines` removes."""
    line = printable_lines(text[: limit + 1]).replace("\n", " ")
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def markdown(text: str, limit: int = MAX_TEXT) -> str:
    """The text as one line of Markdown that reads the same without rendering, and contains no link, image or HTML.

    Words that Markdown would interpret become code. Text that has been through here is returned as it is.
    """
    return re.sub(r"\S+", _literal, printable(text, limit))


def _literal(word: re.Match[str]) -> str:
    if PLAIN_WORD.fullmatch(word[0]) or CODE_WORD.fullmatch(word[0]):
        return word[0]
    return f"`{word[0].replace('`', chr(39))}`"


def escaped_html(text: str) -> str:
    """The text for HTML and SVG, in elements and in quoted attributes."""
    return html.escape(printable(text))


def listed_names(names: Sequence[str]) -> str:
    """The names as a list: at most 40 of them, each of at most 80 characters."""
    shown = ", ".join(printable(name, MAX_NAME) for name in names[:MAX_NAMES])
    return f"{shown} and {len(names) - MAX_NAMES:,} more" if len(names) > MAX_NAMES else shown
