"""SmolLM2's text side, made from the GGUF, against transformers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest
from tokenizers.pre_tokenizers import Digits, Sequence
from transformers import AutoTokenizer

from cluster.models.folder import ModelFolder
from cluster.request import ChatRole, Message
from cluster.text.prompt import PromptBuilder
from cluster.text.template import ChatTemplate
from cluster.text.tokenizer import Tokenizer

pytestmark = pytest.mark.model

ODD_TEXTS = (
    "",
    " ",
    "\n\n\t  \r\n",
    "naïve café, Ελλάδα, Привет, 日本語, עברית, हिन्दी, ไทย",
    "😀👩‍👩‍👧 e\u0301 \u200b\u202e \ufffd \x00",
    "3.14159 1,000,000 2024-01-31 ٣٤ ½ ²",
    "it's we'LL they'd I'm DON'T",
    "    def f(x):\n\treturn x  # tabs\tand  runs   of    blanks",
    "a" * 300,
)


@pytest.fixture(scope="module")
def ours(smollm: ModelFolder) -> Tokenizer:
    return Tokenizer.from_folder(smollm.path)


def conversations() -> Iterator[list[Message]]:
    system, question = Message(ChatRole.SYSTEM, "Be brief."), Message(ChatRole.USER, "Why, 2+2?")
    yield [question]
    yield [system, question]
    yield [system, question, Message(ChatRole.ASSISTANT, "4."), Message(ChatRole.USER, "Sûr? 😀")]
    yield [Message(ChatRole.USER, topics["with"])]


def test_ids_equal_those_of_the_tokenizer_transformers_reads_from_the_gguf(
    ours: Tokenizer, smollm_gguf: Path
) -> None:
    """But for one thing: it does not look at the GGUF's `tokenizer.ggml.pre`, which is "smollm" and
    means that digits are set apart before words are. That step is put in here."""
    theirs: Any = AutoTokenizer.from_pretrained(smollm_gguf.parent, gguf_file=smollm_gguf.name)
    backend = theirs.backend_tokenizer
    backend.pre_tokenizer = Sequence([Digits(individual_digits=True), backend.pre_tokenizer])
    texts = [*ODD_TEXTS, *(topics[name] for name in sorted(topics))]
    different = [
        text
        for text in texts
        if list(ours.encode(text)) != theirs.encode(text, add_special_tokens=False)
    ]
    assert different == []


def test_every_text_reads_back(ours: Tokenizer) -> None:
    for text in (*ODD_TEXTS, *topics.values()):
        assert ours.decode(ours.encode(text)) == text


def test_chat_ids_equal_those_of_apply_chat_template(ours: Tokenizer, smollm: ModelFolder) -> None:
    theirs: Any = AutoTokenizer.from_pretrained(smollm.path)
    builder = PromptBuilder(ours, ChatTemplate.from_folder(smollm.path))
    for messages in conversations():
        turns = [{"role": str(m.role), "content": m.content} for m in messages]
        expected = theirs.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
        assert builder.build(messages).segments == (tuple(expected),)


def test_the_model_ends_its_turn_with_im_end(ours: Tokenizer) -> None:
    assert {ours.encode_template("<|im_end|>")} == {tuple(ours.eos_ids)}
