"""What a step is made of, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence as Ids
from dataclasses import dataclass

from cluster.blocks.segment import SegmentView
from cluster.ids import RequestId
from cluster.knowledge.commands import DiskCommand, Move
from cluster.request import CachedTokens, FinishReason, Sampling, TokenIds


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows of one request: `token_ids` at positions `start...`, attending `segments`.

    `segments` already count these rows. With `sampling` set the last row's logits give the next
    token. `ids` are all of the request's as they stand during the step, the first `num_prompt` of
    them its prompt.
    """

    request_id: RequestId
    start: int
    token_ids: TokenIds
    segments: tuple[SegmentView, ...]
    sampling: Sampling | None
    ids: Ids[int] = ()
    num_prompt: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """A request is over."""

    request_id: RequestId
    reason: FinishReason
    num_recomputed: int


@dataclass(frozen=True, slots=True)
class FirstToken:
    """A prompt is computed: seconds it waited, and seconds from its first step to here. `cached`
    and `num_computed` together are the prompt's tokens, each counted once."""

    request_id: RequestId
    queue_s: float
    prefill_s: float
    cached: CachedTokens
    num_computed: int


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What to run now, and what happened while deciding: `moves` in their order, then the chunks;
    a disk has its commands beside."""

    chunks: tuple[Chunk, ...]
    finished: tuple[Finished, ...]
    preempted: tuple[RequestId, ...]
    moves: tuple[Move, ...] = ()
    disk: tuple[DiskCommand, ...] = ()


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """One new token for each sampled request that goes on or ends by length; a stop id is not
    passed on."""

    tokens: tuple[tuple[RequestId, int], ...]
    first_tokens: tuple[FirstToken, ...]
    finished: tuple[Finished, ...]
