"""What is asked and what is answered, in words that every floor shares.

A prompt is a tuple of *segments*, each a tuple of token ids. The cuts are part of the request:
attention folds inside a segment first and over segments second, so the same ids cut elsewhere are
another sum in floating point.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from cluster.errors import InvalidArgument
from cluster.ids import RequestId

TokenIds = tuple[int, ...]


class FinishReason(StrEnum):
    """Why an answer ended; the values are those of the OpenAI API where it has one."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"


def _require(name: str, value: object, holds: bool, limit: str) -> None:
    if not holds:
        raise InvalidArgument(f"{name} is {value}; it must be {limit}", field=name, limit=limit)


class ChatRole(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn.

    `temperature` 0 is greedy. `top_k` None keeps every token. `choice` numbers the answers drawn
    from one prompt.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    seed: int = 0
    choice: int = 0
    max_tokens: int = 256
    stop_ids: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        """Raises InvalidArgument for a value out of its range."""
        _require("temperature", self.temperature, 0.0 <= self.temperature <= 2.0, "0 to 2")
        _require("top_p", self.top_p, 0.0 < self.top_p <= 1.0, "more than 0, at most 1")
        _require("top_k", self.top_k, self.top_k is None or self.top_k >= 1, "at least 1")
        _require("seed", self.seed, 0 <= self.seed < 2**63, "0 to 2**63 - 1")
        _require("max_tokens", self.max_tokens, self.max_tokens >= 1, "at least 1")


@dataclass(frozen=True, slots=True)
class Request:
    """One generation as a worker sees it.

    `output_ids` were generated elsewhere, before: they are computed like a prompt and generation
    goes on after them (`sampling.max_tokens` counts them). `deadline_s` is on the worker's clock.
    """

    id: RequestId
    segments: tuple[TokenIds, ...]
    sampling: Sampling
    deadline_s: float
    output_ids: TokenIds = ()

    @property
    def num_prompt_tokens(self) -> int:
        return sum(map(len, self.segments))


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: ChatRole
    content: str


@dataclass(frozen=True, slots=True)
class RetrievalOptions:
    """What to look up before answering. `query` None searches for the last user message."""

    collections: tuple[str, ...]
    top_k: int = 4
    filters: Mapping[str, str] = field(default_factory=dict)
    max_context_tokens: int | None = None
    query: str | None = None
    citations: bool = True


@dataclass(frozen=True, slots=True)
class ChatCall:
    """One call for an answer, validated. `stop` strings are matched on text, by whoever owns the
    text."""

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling
    stop: tuple[str, ...] = ()
    retrieval: RetrievalOptions | None = None
    timeout_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time went, in seconds.

    `queue_s`: in the worker's queue before the first step. `prefill_s`: first step of the prompt to
    first token. `time_to_first_token_s`: request validated to first token, as the gateway saw it.
    """

    queue_s: float = 0.0
    retrieval_s: float = 0.0
    prefill_s: float = 0.0
    time_to_first_token_s: float = 0.0
    total_s: float = 0.0


@dataclass(frozen=True, slots=True)
class WorkerLoad:
    """What a worker has to do and what room it has. `prefill_tokens` counts prompt tokens not yet
    computed."""

    num_running: int = 0
    num_waiting: int = 0
    prefill_tokens: int = 0
    num_blocks: int = 0
    num_free_blocks: int = 0
    max_waiting: int = 0
