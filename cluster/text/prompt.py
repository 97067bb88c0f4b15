"""Messages and documents, made into the segments of a prompt.

    rendered   <system ..> <user> | first user message .. <assistant>
    segments   prefix               document  document  ..   rest

A mark is put before the first user message and the rendering is cut there. Each document is
tokenised alone, in a frame that does not depend on its place, so its ids are the same in every
prompt. Without documents the prompt is one segment: the plain rendering.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from cluster.errors import InvalidArgument
from cluster.request import ChatRole, Message, TokenIds
from cluster.retrieval.records import ScoredChunk
from cluster.text.quoting import Quoting, free_characters
from cluster.text.template import ChatTemplate
from cluster.text.tokenizer import Tokenizer

# A document as the model reads it.
FRAME = "Document: {title}\n{text}\n\n"


@dataclass(frozen=True, slots=True)
class Prompt:
    """`documents` are those that were kept, in the order of their segments."""

    segments: tuple[TokenIds, ...]
    documents: tuple[ScoredChunk, ...]

    @property
    def num_tokens(self) -> int:
        return sum(map(len, self.segments))


@dataclass(frozen=True, slots=True)
class PromptBuilder:
    """`default_system` opens a prompt with documents that brings no system message of its own."""

    tokenizer: Tokenizer
    template: ChatTemplate
    default_system: str = ""

    @property
    def fingerprint(self) -> str:
        """By what rules segments are written: template, frame and tokenizer."""
        rules = "\0".join((self.template.source, FRAME, self.tokenizer.fingerprint))
        return sha256(rules.encode()).hexdigest()

    def build(
        self,
        messages: Sequence[Message],
        documents: Sequence[ScoredChunk] = (),
        max_context_tokens: int | None = None,
    ) -> Prompt:
        """Documents are dropped from the end until all of them take `max_context_tokens` or fewer.

        Raises InvalidArgument when the template cannot be cut, or refuses the messages.
        """
        framed = [self.tokenizer.encode(frame(document)) for document in documents]
        kept = _num_that_fit(framed, max_context_tokens)
        if not kept:
            return Prompt((self._whole(messages),), ())
        prefix, rest = self._cut(self._with_system(messages))
        return Prompt((prefix, *framed[:kept], rest), tuple(documents[:kept]))

    def _with_system(self, messages: Sequence[Message]) -> Sequence[Message]:
        if not self.default_system or any(m.role is ChatRole.SYSTEM for m in messages):
            return messages
        return (Message(ChatRole.SYSTEM, self.default_system), *messages)

    def _whole(self, messages: Sequence[Message]) -> TokenIds:
        quoting = Quoting(self.tokenizer, *free_characters(messages, 2))
        return quoting.encode(self.template.render([quoting.quote(m) for m in messages]))

    def _cut(self, messages: Sequence[Message]) -> tuple[TokenIds, TokenIds]:
        """The ids before the first user message, and from there on."""
        opening, closing, mark = free_characters(messages, 3)
        quoting = Quoting(self.tokenizer, opening, closing)
        marked = [quoting.quote(message) for message in messages]
        first = _first_user(messages)
        marked[first] = replace(marked[first], content=mark + marked[first].content)
        before, after = self._split(marked, mark)
        probe = [*marked[:first], Message(ChatRole.USER, f"{mark}another question")]
        if self._split(probe, mark)[0] != before:
            raise _uncuttable("what it writes before the documents depends on what comes after")
        return quoting.encode(before), quoting.encode(after)

    def _split(self, messages: Sequence[Message], mark: str) -> tuple[str, str]:
        parts = self.template.render(messages).split(mark)
        if len(parts) != 2:
            raise _uncuttable(f"it writes the first user message {len(parts) - 1} times")
        return parts[0], parts[1]


def frame(document: ScoredChunk) -> str:
    """A document as the model reads it."""
    return FRAME.format(title=document.title, text=document.text)


def _num_that_fit(framed: Sequence[TokenIds], max_tokens: int | None) -> int:
    """How many of the first documents take `max_tokens` or fewer together."""
    kept = len(framed)
    if max_tokens is None:
        return kept
    total = sum(map(len, framed))
    while kept and total > max_tokens:
        kept -= 1
        total -= len(framed[kept])
    return kept


def _first_user(messages: Sequence[Message]) -> int:
    for index, message in enumerate(messages):
        if message.role is ChatRole.USER:
            return index
    raise InvalidArgument(
        "documents are put before the first user message, and there is none",
        field="messages",
        limit="at least one user message",
    )


def _uncuttable(why: str) -> InvalidArgument:
    return InvalidArgument(
        f"documents cannot be put into this model's chat template: {why}",
        field="retrieval",
        limit="a template that writes the first user message once, after a fixed beginning",
    )
