"""Questions in words: anything may be typed, and the better match comes first."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cluster.store.documents import DocumentStore
from cluster.store.match import MAX_WORDS, match_any
from cluster.store.search import SearchReader
from tests.retrieval.making import entry, words


@settings(max_examples=300)
@given(query=st.text(st.characters(), max_size=50))
@example(query='"')
@example(query="a AND NOT (b OR NEAR(c)) ^d* title:e -f")
@example(query="\x00 a\x00b")
@example(query="\ud800 \udfff")
@example(query="_ ' \\ ; --")
@example(query="e\u0301 हिन्दी 中文 \U0001d400")
def test_no_question_is_a_syntax_error(
    shared: tuple[DocumentStore, SearchReader], query: str
) -> None:
    _, reader = shared
    with reader.snapshot() as snapshot:
        snapshot.by_words("kb", query, 10, {})


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[DocumentStore, SearchReader]]:
    folder = tmp_path_factory.mktemp("store")
    store = DocumentStore(folder)
    store.create_collection("kb")
    store.upsert("kb", [entry("a", "a b c AND NOT NEAR title é हिन्दी 中文")])
    reader = SearchReader(folder)
    yield store, reader
    reader.close()
    store.close()


def test_a_word_is_found_whatever_surrounds_it(
    shared: tuple[DocumentStore, SearchReader],
) -> None:
    for query in ('"near"', "NEAR(", "near* AND", "x:near", "n\u0065ar", "e\u0301", "हिन्दी!"):
        assert words(shared[1], query) == ["a"], query


def test_words_count_alone_and_words_of_every_text_beside_them() -> None:
    assert match_any("What does the with statement do?").split(" OR ") == [
        '"statement"',
        '"with statement"',
        '"statement do"',
    ]
    assert match_any("to be, or not: to be").split(" OR ") == ['"to"', '"be"', '"or"', '"not"']
    assert match_any("?! \x00 --") == ""


def test_words_side_by_side_are_worth_more(store: DocumentStore, reader: SearchReader) -> None:
    others = (entry(f"other{i}", "Of this and of that") for i in range(10))
    store.upsert("kb", [entry("apart", "cup, then tea"), entry("beside", "tea cup here"), *others])
    assert words(reader, "the tea cup") == ["beside", "apart"]


def test_a_question_of_many_words_is_cut(shared: tuple[DocumentStore, SearchReader]) -> None:
    query = " ".join(f"w{i}" for i in range(10_000))
    assert match_any(query).count(" OR ") == 2 * MAX_WORDS - 2
    assert words(shared[1], query) == []
