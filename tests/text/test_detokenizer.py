"""Text that streams is the text that would have come whole."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.text.detokenizer import Detokenizer
from cluster.text.tokenizer import Tokenizer
from tests.text.tokenizers_of_many_kinds import byte_level, metaspace, sentencepiece

KINDS = {"byte level": byte_level(), "sentencepiece": sentencepiece(), "metaspace": metaspace()}


def cut(ids: list[int], sizes: list[int]) -> list[list[int]]:
    """Pieces of the given sizes, then the rest."""
    pieces: list[list[int]] = []
    for size in sizes:
        pieces.append(ids[:size])
        ids = ids[size:]
    return [*pieces, ids]


def assert_streams_as_whole(tokenizer: Tokenizer, pieces: list[list[int]]) -> None:
    detokenizer = Detokenizer(tokenizer)
    whole = tokenizer.decode([id_ for piece in pieces for id_ in piece])
    released = ""
    for piece in pieces:
        released += detokenizer.push(piece)
        assert whole.startswith(released)
    assert released + detokenizer.flush() == whole


SIZES = st.lists(st.integers(0, 4), max_size=30)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data(), sizes=SIZES)
@settings(max_examples=400)
def test_any_ids_in_any_pieces_give_the_text_of_all(
    kind: str, data: st.DataObject, sizes: list[int]
) -> None:
    tokenizer = KINDS[kind]
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size + 20), max_size=40))
    assert_streams_as_whole(tokenizer, cut(ids, sizes))


@pytest.mark.parametrize("kind", KINDS)
@given(text=st.text(max_size=30), sizes=SIZES)
@settings(max_examples=200)
def test_the_ids_of_any_text_in_any_pieces_give_the_text(
    kind: str, text: str, sizes: list[int]
) -> None:
    tokenizer = KINDS[kind]
    assert_streams_as_whole(tokenizer, cut(list(tokenizer.encode(text)), sizes))


def test_a_character_is_released_when_its_last_byte_arrives() -> None:
    tokenizer = KINDS["byte level"]
    ids = tokenizer.encode("😀")
    assert len(ids) > 1
    detokenizer = Detokenizer(tokenizer)
    assert [detokenizer.push([id_]) for id_ in ids] == [""] * (len(ids) - 1) + ["😀"]


def test_ordinary_text_is_released_token_by_token() -> None:
    for tokenizer in KINDS.values():
        ids = tokenizer.encode("the fox jumps")
        detokenizer = Detokenizer(tokenizer)
        released = [detokenizer.push([id_]) for id_ in ids]
        assert released == [tokenizer.decode(ids[:1]), *released[1:]]
        assert "".join(released) == "the fox jumps"
        assert detokenizer.flush() == ""


def test_bytes_that_never_become_a_character_are_released_but_the_last() -> None:
    tokenizer = KINDS["byte level"]
    lead = tokenizer.encode("é")[0]
    detokenizer = Detokenizer(tokenizer)
    assert "".join(detokenizer.push([lead]) for _ in range(5)) == "�" * 4
    assert detokenizer.flush() == "�"
