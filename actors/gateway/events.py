"""What an answer is asked with, and what it is told in."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.ids import RequestId
from cluster.request import ChatCall, FinishReason, Timings, Usage
from cluster.retrieval.records import Citation


@dataclass(frozen=True, slots=True)
class Ask:
    """A call with a name.

    `max_tokens` None: the call gave none, and gets the default or what is left of the context;
    `call.sampling.max_tokens` says nothing then.
    """

    request_id: RequestId
    call: ChatCall
    max_tokens: int | None


@dataclass(frozen=True, slots=True)
class Started:
    """First: the request was accepted, and rests on these passages."""

    request_id: RequestId
    model: str
    citations: tuple[Citation, ...]
    retrieval_s: float


@dataclass(frozen=True, slots=True)
class Delta:
    """More text, never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """Last."""

    finish_reason: FinishReason
    usage: Usage
    timings: Timings


AnswerEvent = Started | Delta | Finished
