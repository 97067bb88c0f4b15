"""What a step is made of, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence as Ids
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from cluster.blocks.segment import SegmentView
from cluster.ids import RequestId
from cluster.knowledge.commands import DiskCommand, Move
from cluster.request import CachedTokens, FinishReason, Sampling, TokenIds
from cluster.scheduling.stages import StageTimes, Work


class Chunk(NamedTuple):
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


class PlanKind(StrEnum):
    """How a step is computed: without the host, with it beside the device's attention, or in two
    sub-batches that take turns."""

    GPU_ONLY = "gpu_only"
    ONE_BATCH = "one_batch"
    TWO_BATCH = "two_batch"


@dataclass(frozen=True, slots=True)
class Why:
    """A plan's reasons: its kind, each sub-batch's work and predicted seconds, the whole step's
    predicted seconds, and in words what else was looked at."""

    kind: PlanKind = PlanKind.GPU_ONLY
    works: tuple[Work, ...] = ()
    times: tuple[StageTimes, ...] = ()
    seconds: float = 0.0
    said: str = ""


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What to run now, and what happened while deciding: `moves` in their order, then the chunks,
    in one sub-batch or in two that take turns; a disk has its commands beside."""

    batches: tuple[tuple[Chunk, ...], ...]
    finished: tuple[Finished, ...]
    preempted: tuple[RequestId, ...]
    moves: tuple[Move, ...] = ()
    disk: tuple[DiskCommand, ...] = ()
    why: Why = Why()

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        """Of all sub-batches."""
        return tuple(chunk for batch in self.batches for chunk in batch)


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """One new token for each sampled request that goes on or ends by length; a stop id is not
    passed on."""

    tokens: tuple[tuple[RequestId, int], ...]
    first_tokens: tuple[FirstToken, ...]
    finished: tuple[Finished, ...]
