"""What the sync and the async client have in common: questions, batches and the reading of streams.

Nothing here waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from cluster.errors import InvalidArgument, Lost, Refused, ThothError, TooLarge
from cluster.proofs import GoalOutcome
from cluster.request import ChatRole, Message
from cluster.retrieval.records import Document, UpsertResult
from cluster.wire.answers import (
    Answer,
    AskOptions,
    Finished,
    Started,
    StreamEvent,
    Upserted,
)
from cluster.wire.choices import Choices
from cluster.wire.proofs import ProofEvent, Proofs, ProofsFinished, ProveOptions
from cluster.wire.public import EncodedDocument, encode_document, upsert_documents
from cluster.wire.requests import Call
from cluster.wire.serving import MAX_MESSAGE_BYTES

# Room for the names around a document in its message.
MAX_DOCUMENT_BYTES = MAX_MESSAGE_BYTES - 64 * 2**10
BATCH_DOCUMENTS = 64
BATCH_BYTES = 4 * 2**20

# A turn of a conversation: a record, or the mapping that the OpenAI API uses.
Turn = Message | Mapping[str, str]


Options = TypeVar("Options", AskOptions, ProveOptions)


def checked_options(options: Options, known: type[Options]) -> Options:
    """Raises TypeError for a name that is none, as a call with plain arguments would."""
    unknown = sorted(set(options) - set(known.__annotations__))
    if unknown:
        raise TypeError(f"unexpected keyword argument {unknown[0]!r}")
    return options


def to_messages(turns: Sequence[Turn]) -> tuple[Message, ...]:
    """Raises InvalidArgument for a turn without role or content, or of an unknown role."""
    return tuple(_to_message(turn, f"messages[{i}]") for i, turn in enumerate(turns))


def _to_message(turn: Turn, field: str) -> Message:
    if isinstance(turn, Message):
        return turn
    roles = ", ".join(ChatRole)
    if set(turn) != {"role", "content"}:
        raise InvalidArgument(f"{field} must have role and content, and no more", field=field)
    if turn["role"] not in list(ChatRole):
        raise InvalidArgument(
            f"{field}.role is {turn['role']!r}, not one of {roles}",
            field=f"{field}.role",
            limit=roles,
        )
    return Message(ChatRole(turn["role"]), turn["content"])


def question_messages(question: str) -> tuple[Message, ...]:
    return (Message(ChatRole.USER, question),)


@dataclass(frozen=True, slots=True)
class Batch:
    """Part of an upsert: documents `first` and following of the caller's."""

    call: Call[Upserted]
    first: int

    @contextmanager
    def named_by_caller(self) -> Iterator[None]:
        """The server counts the documents of a batch; the caller counts all of them."""
        try:
            yield
        except ThothError as error:
            raise _shifted(error, self.first) from None


def _shifted(error: ThothError, by: int) -> ThothError:
    head, bracket, rest = error.field.partition("]")
    number = head.removeprefix("documents[")
    if bracket and number.isdecimal():
        field = f"documents[{int(number) + by}]{rest}"
        error.message = error.message.replace(error.field, field)
        error.args = (error.message,)
        error.field = field
    return error


def upsert_batches(collection: str, documents: Iterable[Document]) -> Iterator[Batch]:
    """Batches of at most `BATCH_DOCUMENTS` documents and, unless one alone is larger,
    `BATCH_BYTES`. Raises TooLarge or InvalidArgument when it comes to a bad document: the batches
    before it were already handed out."""
    pending: list[EncodedDocument] = []
    num_bytes = first = 0
    for i, document in enumerate(documents):
        encoded = _encode(document, i)
        is_full = len(pending) == BATCH_DOCUMENTS or num_bytes + encoded.num_bytes > BATCH_BYTES
        if pending and is_full:
            yield Batch(upsert_documents(collection, pending), first)
            pending, num_bytes, first = [], 0, i
        pending.append(encoded)
        num_bytes += encoded.num_bytes
    if pending:
        yield Batch(upsert_documents(collection, pending), first)


def _encode(document: Document, i: int) -> EncodedDocument:
    encoded = encode_document(document, f"documents[{i}]")
    if encoded.num_bytes > MAX_DOCUMENT_BYTES:
        raise TooLarge(
            f"documents[{i}].text: document {document.id!r} takes {encoded.num_bytes} bytes, "
            f"the limit is {MAX_DOCUMENT_BYTES}",
            field=f"documents[{i}].text",
            limit=f"{MAX_DOCUMENT_BYTES} bytes",
        )
    return encoded


def joined(parts: Iterable[Upserted]) -> Upserted:
    """The results of all batches as of one."""
    results: list[UpsertResult] = []
    sequence = 0
    for part in parts:
        results.extend(part.results)
        sequence = part.sequence
    return Upserted(tuple(results), sequence)


def to_proofs(events: Sequence[ProofEvent]) -> Proofs:
    """A stream of outcomes that was read to its end. Raises the error that it ended in, and Lost
    where it just stops."""
    last = events[-1] if events else None
    if isinstance(last, ThothError):
        raise last
    if not isinstance(last, ProofsFinished):
        raise Lost("the stream ended without its last event")
    outcomes = tuple(event for event in events if isinstance(event, GoalOutcome))
    return Proofs(outcomes, last.request_id, last.seconds)


class StreamReader:
    """Checks the order of a stream's events and remembers what they say together."""

    def __init__(self) -> None:
        self.started: Started | None = None
        self.finished: Finished | None = None
        self._choices = Choices()

    def read(self, event: StreamEvent | ThothError) -> StreamEvent:
        """Raises what the server sent as an error."""
        match event:
            case ThothError():
                raise event
            case Started():
                self.started = event
            case Finished():
                self.finished = event
        self._choices.add(event)
        return event

    def ended(self) -> Lost:
        """What it means that no more events come before the last one has."""
        num_pieces = self._choices.num_pieces
        said = f"after {num_pieces} pieces" if num_pieces else "before the answer"
        return Lost(f"the stream ended {said}, without its last event")

    def answer(self) -> Answer:
        """Everything that was read, as one answer."""
        if self.started is None or self.finished is None:
            raise Refused("the stream was not read to its end: there is no whole answer")
        choices = self._choices.whole()
        return Answer(
            text=choices[0].text,
            citations=self.started.citations,
            finish_reason=self.finished.finish_reason,
            usage=self.finished.usage,
            timings=self.finished.timings,
            request_id=self.started.request_id,
            model=self.started.model,
            choices=choices,
        )
