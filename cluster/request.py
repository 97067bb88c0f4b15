"""What is asked and what is answered, in words that every floor shares.

A prompt is a tuple of *segments*, each a tuple of token ids. The cuts are part of the request:
attention folds inside a segment first and over segments second, so the same ids cut elsewhere are
another sum in floating point.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf

from cluster.errors import InvalidArgument
from cluster.ids import RequestId

TokenIds = tuple[int, ...]

MAX_CHOICES = 16
MAX_LOGPROBS = 20
MAX_LOGIT_BIAS = 1024
MAX_GRAMMAR_CHARS = 2**16


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


class GrammarKind(StrEnum):
    """In what words a grammar is written."""

    JSON_SCHEMA = "json_schema"
    REGEX = "regex"


@dataclass(frozen=True, slots=True)
class Grammar:
    """What the text of an answer has to match as a whole: a JSON schema, as JSON, or a regex."""

    kind: GrammarKind
    source: str

    def __post_init__(self) -> None:
        """Raises InvalidArgument for one that is too long to be read."""
        if len(self.source) > MAX_GRAMMAR_CHARS:
            raise InvalidArgument(
                f"{self.kind} has {len(self.source)} characters, {MAX_GRAMMAR_CHARS} are allowed",
                field=self.kind,
                limit=f"at most {MAX_GRAMMAR_CHARS} characters",
            )


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn; `cluster.engine.sampling` says in which order the rules apply.

    `temperature` 0 is greedy. `top_k` None keeps every token. `presence_penalty` and
    `frequency_penalty` count generated tokens, `repetition_penalty` the prompt's too.
    `num_logprobs` None: none are wanted, 0: only those of the tokens drawn. `choice` numbers the
    answers drawn from one prompt.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int = 0
    choice: int = 0
    max_tokens: int = 256
    min_tokens: int = 0
    stop_ids: frozenset[int] = frozenset()
    num_logprobs: int | None = None
    grammar: Grammar | None = None

    def __post_init__(self) -> None:
        """Raises InvalidArgument for a value out of its range."""
        # Written so that a NaN is out of every range.
        _require("temperature", self.temperature, 0.0 <= self.temperature <= 2.0, "0 to 2")
        _require("top_p", self.top_p, 0.0 < self.top_p <= 1.0, "more than 0, at most 1")
        top_k = 1 if self.top_k is None else self.top_k
        _require("top_k", self.top_k, 1 <= top_k < 2**31, "at least 1")
        _require("min_p", self.min_p, 0.0 <= self.min_p <= 1.0, "0 to 1")
        for name in ("presence_penalty", "frequency_penalty"):
            penalty = getattr(self, name)
            _require(name, penalty, -2.0 <= penalty <= 2.0, "-2 to 2")
        repetition = self.repetition_penalty
        _require("repetition_penalty", repetition, 0.0 < repetition < inf, "more than 0")
        _require("seed", self.seed, 0 <= self.seed < 2**63, "0 to 2**63 - 1")
        _require("choice", self.choice, 0 <= self.choice < MAX_CHOICES, f"below {MAX_CHOICES}")
        _require("max_tokens", self.max_tokens, self.max_tokens >= 1, "at least 1")
        _require("min_tokens", self.min_tokens, 0 <= self.min_tokens < 2**31, "at least 0")
        logprobs = self.num_logprobs or 0
        _require("logprobs", logprobs, 0 <= logprobs <= MAX_LOGPROBS, f"0 to {MAX_LOGPROBS}")
        self._check_bias()

    def _check_bias(self) -> None:
        count = len(self.logit_bias)
        _require("logit_bias", f"{count} ids", count <= MAX_LOGIT_BIAS, f"{MAX_LOGIT_BIAS} or less")
        for token_id, bias in self.logit_bias.items():
            _require(f"logit_bias[{token_id}]", bias, -100.0 <= bias <= 100.0, "-100 to 100")

    @property
    def has_penalties(self) -> bool:
        """Whether the tokens that are there already change the next one's logits."""
        return (self.presence_penalty, self.frequency_penalty, self.repetition_penalty) != (0, 0, 1)


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """How likely a token was under the model itself, before bias, penalties, temperature and
    filters. `top` holds the likeliest ids with theirs, best first. Natural logarithms."""

    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class SegmentSource:
    """What a segment is, for one whose keys and values are worth keeping: a passage of a document,
    or, without a `document_id`, a system prompt.

    `salt` (at most 64 bytes) parts tenants: equal segments of different salts share nothing. It
    comes from the server, which knows whom it answers, never from the call.
    """

    collection: str = ""
    document_id: str = ""
    chunk: int = 0
    version: int = 0
    salt: bytes = b""


@dataclass(frozen=True, slots=True)
class Request:
    """One generation as a worker sees it.

    `sources` name the leading segments; the others, of which there is at least one, are nobody
    else's. `template` tells by what rules the segments were written. `output_ids` were generated
    elsewhere, before: they are computed like a prompt and generation goes on after them
    (`sampling.max_tokens` counts them). `deadline_s` is on the worker's clock.
    """

    id: RequestId
    segments: tuple[TokenIds, ...]
    sampling: Sampling
    deadline_s: float
    output_ids: TokenIds = ()
    sources: tuple[SegmentSource, ...] = ()
    template: str = ""

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
    """One call for `n` answers, validated. `stop` strings are matched on text, by whoever owns the
    text. `ignore_eos`: the model's own end of a turn does not end the answer."""

    model: str
    messages: tuple[Message, ...]
    sampling: Sampling
    stop: tuple[str, ...] = ()
    retrieval: RetrievalOptions | None = None
    timeout_s: float = 600.0
    n: int = 1
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        """Raises InvalidArgument for a number of answers out of its range."""
        _require("n", self.n, 1 <= self.n <= MAX_CHOICES, f"1 to {MAX_CHOICES}")


@dataclass(frozen=True, slots=True)
class CachedTokens:
    """Tokens of a prompt that were not computed, by the tier where they were found."""

    device: int = 0
    host: int = 0
    disk: int = 0

    @property
    def total(self) -> int:
        return self.device + self.host + self.disk


@dataclass(frozen=True, slots=True)
class Usage:
    """`cached` is the part of `prompt_tokens` that was not computed."""

    prompt_tokens: int
    completion_tokens: int
    cached: CachedTokens = CachedTokens()


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
    computed; `num_cached_blocks` hold documents, in use or not, and `num_evictable_blocks` of them
    make room. Of the host's blocks requests may hold `num_host_blocks`, and hold
    `num_lent_host_blocks`; `num_on_host` requests lie there."""

    num_running: int = 0
    num_waiting: int = 0
    prefill_tokens: int = 0
    num_blocks: int = 0
    num_free_blocks: int = 0
    num_cached_blocks: int = 0
    max_waiting: int = 0
    max_running: int = 0
    num_host_blocks: int = 0
    num_lent_host_blocks: int = 0
    num_on_host: int = 0
    num_evictable_blocks: int = 0
