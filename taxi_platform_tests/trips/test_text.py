"""What outside text becomes before it is shown, judged by a real Markdown and a real HTML parser."""

from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt

from taxi_platform.trips.errors import TaxiError
from taxi_platform.trips.text import escaped_html, listed_names, markdown, printable, printable_lines
from taxi_platform_tests.support.hostile_texts import HOSTILE

each_hostile_text = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())


def is_harmless(text):
    return all(character.isprintable() for character in text)


def read(text):
    """The words but for quotes: a backtick becomes one, and `a` in the text is code already."""
    return text.replace("`", "").replace("'", "").split()


@pytest.mark.fault(88)
@each_hostile_text
def test_a_line_has_nothing_but_printable_characters(text):
    assert is_harmless(printable(text))
    assert len(printable(text)) <= 2000
    assert is_harmless(printable_lines(text).replace("\n", ""))
    assert printable_lines(text).count("\n") == text.count("\n")


@pytest.mark.fault(88)
@each_hostile_text
def test_markdown_of_it_is_text_and_code_that_reads_as_it_is(text):
    safe = markdown(f"Stored: {text}, plain_name.")
    assert is_harmless(safe)
    parser = MarkdownIt("gfm-like", {"html": True, "linkify": False})
    blocks = parser.parse(safe)
    assert [block.type for block in blocks] == ["paragraph_open", "inline", "paragraph_close"]
    inline = blocks[1].children
    assert {token.type for token in inline} <= {"text", "code_inline"}
    assert read("".join(token.content for token in inline)) == read(printable(f"Stored: {text}, plain_name."))
    assert not any("://" in token.content or "www." in token.content for token in inline if token.type == "text")
    assert markdown(safe) == safe


@pytest.mark.fault(88)
@each_hostile_text
def test_html_of_it_is_text(text):
    elements, shown = [], []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: elements.append((tag, attributes))
    parser.handle_endtag = lambda tag: elements.append(tag)
    parser.handle_data = shown.append
    parser.feed(f'<p title="{escaped_html(text)}">{escaped_html(text)}')
    parser.close()
    assert elements == [("p", [("title", printable(text))])]
    assert "".join(shown) == printable(text)


@pytest.mark.fault(88)
@each_hostile_text
def test_an_error_that_quotes_it_is_a_printable_line(text):
    error = TaxiError(f"Found {text}.", f"Remove {text}.")
    assert is_harmless(str(error)) and is_harmless(error.problem) and is_harmless(error.remedy)


def test_usual_sentences_are_left_as_they_are():
    for text in (
        "12 of 300 rows rejected (4.000%).",
        "Stored in extra_columns: SharedRide, trip_type. One line in the contract makes each a column.",
        "33,000,000 rows read from CSV, 1 published in Parquet: +12 rows, as CSV and Parquet may differ.",
        "Größe: 3 km – 'a' (b); c=d/e",
    ):
        assert markdown(text) == printable(text) == text


def test_many_names_are_counted():
    assert listed_names(["a", "b\n", "x" * 99]) == f"a, b , {'x' * 79}…"
    assert listed_names([str(number) for number in range(1018)]).endswith(", 38, 39 and 978 more")
