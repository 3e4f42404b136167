"""The pages that people read, taken apart: links, headings, code blocks and code in sentences."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
FOLDERS = ("docs", "deploy", "examples", "benchmarks")
"""Where pages are, besides the root."""

_parser = MarkdownIt("commonmark").enable("table")


@dataclass(frozen=True)
class Block:
    """Fenced code: its language, in lower case, and its text."""

    language: str
    text: str


@dataclass(frozen=True)
class Page:
    """A Markdown file: `links` and `images` are addresses, `anchors` those of its headings on GitHub."""

    path: Path
    anchors: frozenset[str]
    blocks: list[Block] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    spans: list[str] = field(default_factory=list)
    """Code in sentences and tables, between single backticks."""

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    def code(self, language: str) -> list[str]:
        """The texts of all blocks of one language."""
        return [block.text for block in self.blocks if block.language == language]


def documents() -> list[Page]:
    """Every page of the repository."""
    paths = [*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))]
    return [read_page(path) for path in sorted(paths)]


def read_page(path: Path, text: str | None = None) -> Page:
    """Take a page apart; `text` stands in for the file's, to try what a page would say."""
    tokens = _parser.parse(path.read_text("utf-8") if text is None else text)
    headings = [after.children or [] for token, after in pairwise(tokens) if token.type == "heading_open"]
    titles = ["".join(part.content for part in heading if part.type in ("text", "code_inline")) for heading in headings]
    page = Page(path, frozenset(_anchors(titles)))
    for token in tokens:
        if token.type in ("fence", "code_block"):
            page.blocks.append(Block(token.info.strip().partition(" ")[0].lower(), token.content))
        for part in [token, *(token.children or [])]:
            if part.type == "link_open":
                page.links.append(str(part.attrs["href"]))
            elif part.type == "image":
                page.images.append(str(part.attrs["src"]))
            elif part.type == "code_inline":
                page.spans.append(part.content)
            elif part.type in ("html_block", "html_inline"):
                page.links.extend(re.findall(r'\bhref="([^"]*)"', part.content))
                page.images.extend(re.findall(r'\bsrc(?:set)?="([^"\s]*)', part.content))
    return page


def _anchors(titles: list[str]) -> list[str]:
    """As GitHub names headings: lower case, without punctuation, a hyphen for each space, numbered if repeated."""
    seen: Counter[str] = Counter()
    anchors = []
    for title in titles:
        slug = re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")
        anchors.append(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return anchors
