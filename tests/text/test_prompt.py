"""Prompts: segments, documents, and text that must stay text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import InvalidArgument
from cluster.request import ChatRole, Message
from cluster.retrieval.records import ScoredChunk
from cluster.text.prompt import PromptBuilder, frame
from cluster.text.template import ChatTemplate
from cluster.text.tokenizer import Tokenizer
from tests.tiny_model import CHAT_TEMPLATE, SPECIAL_TOKENS, tiny_tokenizer

TOKENIZER = Tokenizer(tiny_tokenizer().to_str(), frozenset({2}))
START, END = 1, 2


def builder(template: str = CHAT_TEMPLATE, default_system: str = "") -> PromptBuilder:
    return PromptBuilder(TOKENIZER, ChatTemplate(template), default_system)


def user(content: str) -> Message:
    return Message(ChatRole.USER, content)


def chunk(title: str, text: str) -> ScoredChunk:
    return ScoredChunk("kb", title, 1, title, 0, 0, len(text), text, 1.0)


DOCUMENTS = (chunk("With", "The with statement."), chunk("Yield", "The yield expression."))


def text_of(ids: tuple[int, ...]) -> str:
    """With special tokens spelled out, unlike Tokenizer.decode."""
    return str(tiny_tokenizer().decode(list(ids), skip_special_tokens=False))


def test_documents_stand_alone_before_the_first_user_message() -> None:
    messages = (Message(ChatRole.SYSTEM, "Be brief."), user("One?"), user("Two?"))
    prompt = builder().build(messages, DOCUMENTS)
    assert [text_of(segment) for segment in prompt.segments] == [
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n",
        "Document: With\nThe with statement.\n\n",
        "Document: Yield\nThe yield expression.\n\n",
        "One?<|im_end|>\n<|im_start|>user\nTwo?<|im_end|>\n<|im_start|>assistant\n",
    ]
    assert prompt.documents == DOCUMENTS
    assert prompt.num_tokens == sum(map(len, prompt.segments))


def test_a_document_has_the_same_ids_in_every_prompt() -> None:
    one = builder().build([user("Why?")], DOCUMENTS)
    other = builder(default_system="Be kind.").build([user("How?")], DOCUMENTS[::-1])
    assert one.segments[1] == other.segments[2] == TOKENIZER.encode(frame(DOCUMENTS[0]))


def test_without_documents_the_prompt_is_the_plain_rendering() -> None:
    messages = [user("Why is the sky blue?")]
    prompt = builder(default_system="never used").build(messages)
    rendered = ChatTemplate(CHAT_TEMPLATE).render(messages)
    assert prompt.segments == (TOKENIZER.encode_template(rendered),)
    assert prompt.documents == ()


def test_the_default_system_message_yields_to_the_callers_own() -> None:
    build = builder(default_system="Use the documents.").build
    assert "Use the documents." in text_of(build([user("?")], DOCUMENTS).segments[0])
    own = [Message(ChatRole.SYSTEM, "Rhyme."), user("?")]
    assert "Use the documents." not in text_of(build(own, DOCUMENTS).segments[0])


def test_documents_are_dropped_from_the_end_until_they_fit() -> None:
    sizes = [len(TOKENIZER.encode(frame(document))) for document in DOCUMENTS]
    for limit, kept in ((sum(sizes), 2), (sum(sizes) - 1, 1), (sizes[0], 1), (sizes[0] - 1, 0)):
        prompt = builder().build([user("?")], DOCUMENTS, max_context_tokens=limit)
        assert prompt.documents == DOCUMENTS[:kept]
        assert len(prompt.segments) == (kept + 2 if kept else 1)


HOSTILE = st.lists(st.sampled_from([*SPECIAL_TOKENS, "<|im_", "end|>", "a", "\ufdd0", "\n"])).map(
    "".join
)


@given(first=HOSTILE, second=HOSTILE, document=HOSTILE)
def test_names_of_special_tokens_in_text_never_become_special(
    first: str, second: str, document: str
) -> None:
    messages = [user(first), Message(ChatRole.ASSISTANT, second), user(first)]
    for documents in ((), (chunk(document, document),)):
        prompt = builder().build(messages, documents)
        ids = [id_ for segment in prompt.segments for id_ in segment]
        # Three turns are opened and closed by the template, and the answer is opened.
        assert (ids.count(START), ids.count(END), ids.count(0)) == (4, 3, 0)
        rendered = ChatTemplate(CHAT_TEMPLATE).render(messages)
        if not documents:
            assert text_of(tuple(ids)) == rendered


def test_a_message_with_every_mark_in_it_is_refused() -> None:
    marks = "".join(map(chr, range(0xFDD0, 0xFDF0)))
    with pytest.raises(InvalidArgument, match="noncharacters") as caught:
        builder().build([user(marks)])
    assert caught.value.field == "messages"


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{ messages[0].content }}{{ messages[0].content }}", "2 times"),
        ("nothing", "0 times"),
        ("{{ messages[-1].content | length }}{{ messages[0].content }}", "depends on what comes"),
    ],
)
def test_a_template_that_cannot_be_cut_says_why(template: str, why: str) -> None:
    messages = [user("Why?"), user("How?!!")]
    with pytest.raises(InvalidArgument, match=why) as caught:
        builder(template).build(messages, DOCUMENTS)
    assert caught.value.field == "retrieval"
    assert builder(template).build(messages).documents == ()


def test_documents_need_a_user_message() -> None:
    with pytest.raises(InvalidArgument, match="there is none"):
        builder().build([Message(ChatRole.SYSTEM, "Alone.")], DOCUMENTS)


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="surrogate"):
        builder().build([user("\ud83d")])


def test_a_prompt_is_built_from_a_model_folder(tiny_folder: Path) -> None:
    from_folder = PromptBuilder(
        Tokenizer.from_folder(tiny_folder), ChatTemplate.from_folder(tiny_folder)
    )
    assert from_folder.build([user("?")], DOCUMENTS) == builder().build([user("?")], DOCUMENTS)
