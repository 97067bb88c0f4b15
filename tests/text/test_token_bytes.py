"""The bytes of single tokens join to the bytes of the text."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cluster.text.tokenizer import Tokenizer
from tests.text.tokenizers_of_many_kinds import byte_level, metaspace, sentencepiece

TEXT = "a fox: naïve 漢字 🦊\n\tdogs"


@pytest.mark.parametrize("make", [byte_level, sentencepiece])
def test_the_bytes_of_tokens_join_to_the_text(make: Callable[[], Tokenizer]) -> None:
    tokenizer = make()
    ids = tokenizer.encode(TEXT)
    joined = b"".join(map(tokenizer.bytes_of, ids))
    # Llama 2's kind puts a blank before a text, and drops it when it decodes.
    assert joined.removeprefix(b" ") == TEXT.encode()


def test_a_blank_is_a_blank_where_tokens_are_words() -> None:
    tokenizer = metaspace()
    ids = tokenizer.encode("the lazy fox")
    assert b"".join(map(tokenizer.bytes_of, ids)) == b" the lazy fox"


def test_part_of_a_character_is_its_bytes() -> None:
    tokenizer = byte_level()
    first, *rest = tokenizer.encode("漢")
    assert rest
    assert "漢".encode().startswith(tokenizer.bytes_of(first))
    assert tokenizer.decode([first]) == "�"


def test_special_tokens_have_names_and_padding_has_none() -> None:
    tokenizer = byte_level()
    assert tokenizer.bytes_of(2) == b"<|im_end|>"
    assert tokenizer.bytes_of(tokenizer.vocab_size + 7) == b""
