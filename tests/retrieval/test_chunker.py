"""Chunks cover a text, fit, and end where a reader would end them."""

from __future__ import annotations

import time
from pydoc_data.topics import topics

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cluster.documents.chunker import chunk_text
from cluster.documents.headings import find_headings, title_of

# Made of what cuts are made of, so that the rules meet each other.
PIECES = st.sampled_from(
    [
        *("word", "Longerword", "x", "。", "e\u0301", "\U0001f600", "\x00", "\u2028"),
        *(" ", "\n", "\n\n", "\r\n", "\t", ". ", "! ", '." ', "# Head\n", "## \n"),
        *("Title\n=====\n", "===\nOver\n====\n", "---\n", "a" * 150, "\u3000"),
    ]
)
TEXTS = st.lists(PIECES, max_size=60).map("".join) | st.text(max_size=300)


@given(TEXTS, st.integers(1, 200))
@example("# a\n" * 40, 1)
@example("a" * 130 + " b", 100)
@example("word。" * 50, 10)
def test_chunks_are_exact_fit_and_cover_everything_but_blanks(text: str, max_chars: int) -> None:
    chunks = chunk_text(text, max_chars)
    covered = 0
    for ordinal, chunk in enumerate(chunks):
        assert chunk.ordinal == ordinal
        assert text[chunk.start : chunk.end] == chunk.text == chunk.text.strip() != ""
        assert len(chunk.text) <= max_chars
        assert chunk.start >= covered
        assert not text[covered : chunk.start].strip()
        covered = chunk.end
    assert not text[covered:].strip()


@given(TEXTS)
def test_headings_are_spans_of_the_text_in_order(text: str) -> None:
    headings = find_headings(text)
    for heading in headings:
        assert heading.title in text[heading.start : heading.end]
    assert [h.start for h in headings] == sorted(h.start for h in headings)


def test_a_short_text_is_one_chunk() -> None:
    (chunk,) = chunk_text("\n  One sentence. Another.\n\n", 100)
    assert (chunk.start, chunk.end, chunk.text) == (3, 25, "One sentence. Another.")


def test_paragraphs_are_kept_whole_where_they_fit() -> None:
    paragraphs = [f"{letter * 10}. {letter * 10}." for letter in "abcdef"]
    chunks = chunk_text("\n\n".join(paragraphs), 50)
    assert [chunk.text for chunk in chunks] == [
        "\n\n".join(paragraphs[i : i + 2]) for i in (0, 2, 4)
    ]


def test_a_long_paragraph_is_cut_between_sentences() -> None:
    text = "The first one is here. The second one is here! Is the third one here? Yes."
    assert [chunk.text for chunk in chunk_text(text, 50)] == [
        "The first one is here. The second one is here!",
        "Is the third one here? Yes.",
    ]


def test_a_word_is_cut_only_when_it_is_longer_than_a_chunk() -> None:
    assert [c.text for c in chunk_text("one " + "y" * 25 + " two", 10)] == [
        "one",
        "y" * 10,
        "y" * 10,
        "yyyyy two",
    ]


@pytest.mark.parametrize("heading", ["# Second", "Second\n======", "======\nSecond\n======"])
def test_a_heading_begins_a_chunk_and_never_ends_one(heading: str) -> None:
    text = f"{'first ' * 12}\n\n{heading}\n\n{'second ' * 12}"
    first, second, *_ = chunk_text(text, 100)
    assert first.text == ("first " * 12).strip()
    assert second.text.startswith(heading)
    assert second.text.endswith("second")


def test_a_heading_stays_with_a_paragraph_that_does_not_fit_behind_it() -> None:
    for chunk in chunk_text(f"# Title\n\n## Sub\n\n{'word ' * 100}", 60):
        assert not chunk.text.endswith(("Title", "Sub"))


def test_no_heading_of_the_reference_is_parted_from_its_text() -> None:
    for text in topics.values():
        ends = {heading.end for heading in find_headings(text) if text[heading.end :].strip()}
        assert not ends & {chunk.end for chunk in chunk_text(text, 1200)}


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("intro\n\n# The *title* ##\n\ntext", "The *title*"),
        ("====\nBook\n====\n\ntext", "Book"),
        ("Title\r\n=====\r\ntext", "Title"),
        ("no heading\n---\nbut a rule", "guide"),
        ("#hashtag\n\n| a | b |\n|---|---|", "guide"),
        ("", "guide"),
    ],
)
def test_the_title_is_the_first_heading_or_the_stem(text: str, title: str) -> None:
    assert title_of(text, "docs/guide.md") == title


@pytest.mark.parametrize("piece", ["a", "\n", " ", ".", "-", "---\n", "# ", "word ", "。", "é\n\n"])
def test_a_large_text_of_any_kind_is_cut_in_linear_time(piece: str) -> None:
    started_s = time.monotonic()
    for chunk in chunk_text(piece * (2**20 // len(piece)), 1200):
        assert len(chunk.text) <= 1200
    assert time.monotonic() - started_s < 20
