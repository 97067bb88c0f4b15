"""What the public door answers, and what may be asked of it, as a client holds them.

A stream is `Started, Delta*, Finished`, or ends in a `ThothError` at any point.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

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
    seed: int
    stop: Sequence[str]
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
class Delta:
    """The next piece of the answer; pieces join without separators."""

    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """Last event of an answer that went well."""

    finish_reason: FinishReason
    usage: Usage
    timings: Timings


StreamEvent = Started | Delta | Finished


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer with what it rests on and what it cost."""

    text: str
    citations: tuple[Citation, ...]
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    request_id: str
    model: str


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
