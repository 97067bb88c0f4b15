"""What the public door answers, and what may be asked of it, as a client holds them.

A stream is `Started, Delta*, Finished`, or ends in a `ThothError` at any point. With `n` above 1
the deltas of the choices come as they are ready, and a `ChoiceFinished` follows the last of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from cluster.request import FinishReason, Timings, Usage
from cluster.retrieval.records import Citation, Document, ScoredChunk, UpsertResult


class AskOptions(TypedDict, total=False):
    """What a call may say beside its messages; what it does not say is the server's choice."""

    # Retrieval: nothing is looked up without collections.
    collections: Sequence[str]
    top_k: int
    filters: Mapping[str, str]
    max_context_tokens: int
    query: str
    citations: bool
    # Generation. `top_k_tokens` keeps so many likely tokens; a `temperature` of 0 is greedy.
    model: str
    max_tokens: int
    temperature: float
    top_p: float
    top_k_tokens: int
    min_p: float
    presence_penalty: float
    frequency_penalty: float
    repetition_penalty: float
    logit_bias: Mapping[int, float]
    seed: int
    n: int
    stop: Sequence[str]
    stop_ids: Sequence[int]
    min_tokens: int
    ignore_eos: bool
    # Log probabilities of the tokens, and of so many likeliest ones in the place of each.
    logprobs: int
    # What the text has to match: one of the two. A schema is JSON, written or as Python has it.
    json_schema: str | Mapping[str, Any]
    regex: str
    # Seconds for the whole answer, retries included.
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Started:
    """First event: what was retrieved for the answer."""

    request_id: str
    model: str
    citations: tuple[Citation, ...]
    retrieval_s: float


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token and the natural logarithm of how likely the model held it to be.

    `bytes` is what it stands for: a character may be spread over several tokens. `top` are the
    likeliest tokens in its place, best first.
    """

    id: int
    bytes: bytes
    logprob: float
    top: tuple[TokenLogprob, ...] = ()

    @property
    def text(self) -> str:
        """Half a character is U+FFFD."""
        return self.bytes.decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Delta:
    """The next piece of an answer; pieces of one choice join without separators."""

    text: str
    choice: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class ChoiceFinished:
    """One of several answers is whole, others may go on."""

    choice: int
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True)
class Finished:
    """Last event of an answer that went well. `finish_reason` is the first choice's; `usage` counts
    the prompt once and the tokens of every choice."""

    finish_reason: FinishReason
    usage: Usage
    timings: Timings


StreamEvent = Started | Delta | ChoiceFinished | Finished


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the answers to a call. `logprobs` are there when they were asked for."""

    index: int
    text: str
    finish_reason: FinishReason
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer with what it rests on and what it cost. `text` and `finish_reason` are those
    of the first of its `choices`."""

    text: str
    citations: tuple[Citation, ...]
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    request_id: str
    model: str
    choices: tuple[Choice, ...] = ()


@dataclass(frozen=True, slots=True)
class Retrieved:
    """Chunks, best first."""

    chunks: tuple[ScoredChunk, ...]
    retrieval_s: float


@dataclass(frozen=True, slots=True)
class ServedModel:
    id: str
    context_tokens: int


@dataclass(frozen=True, slots=True)
class Upserted:
    """One result per document, in order; everything up to `sequence` of the log is durable."""

    results: tuple[UpsertResult, ...]
    sequence: int


@dataclass(frozen=True, slots=True)
class DocumentPage:
    """Documents without their texts. `next` is the `after` of the next page; empty on the last."""

    documents: tuple[Document, ...]
    next: str
