"""Which rows a worker computes in its next step.

One idea: requests are kept in order of arrival and every step serves that order. Whoever came first
gets blocks first, takes them from the youngest when the pool is empty, and is therefore never
starved. The older ones are the ones that decode, a row each; whatever they leave of the step's
token budget is a chunk of the next prompt.

    waiting -> running     admitted: a seat is free and the blocks of its whole prompt are
    running -> waiting     preempted: an older sequence needed its blocks; it goes back to the head
    waiting | running -> done   stop id, max_tokens, cancelled, deadline
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping
from collections.abc import Sequence as Ids
from dataclasses import dataclass, field

from cluster.blocks.pool import BLOCK_TOKENS, BlockPool, blocks_for
from cluster.blocks.segment import SegmentView
from cluster.errors import InvalidArgument, InvariantBroken, Overloaded
from cluster.ids import RequestId
from cluster.request import FinishReason, Request, Sampling, TokenIds, WorkerLoad
from cluster.scheduling.sequence import Sequence


@dataclass(frozen=True, slots=True)
class IterationLimits:
    """`step_tokens` rows per step, `max_running` requests in it, `max_waiting` behind it."""

    step_tokens: int
    max_running: int
    max_waiting: int
    context_tokens: int

    def __post_init__(self) -> None:
        if self.step_tokens < self.max_running:
            raise InvalidArgument(
                f"step_tokens {self.step_tokens} is less than max_running {self.max_running}: "
                "a decode would wait for a step with room",
                field="gpu_worker.step_tokens",
                limit=f"at least {self.max_running}",
            )


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
    """A prompt is computed: seconds it waited, and seconds from its first step to here."""

    request_id: RequestId
    queue_s: float
    prefill_s: float


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What to run now, and what happened while deciding."""

    chunks: tuple[Chunk, ...]
    finished: tuple[Finished, ...]
    preempted: tuple[RequestId, ...]


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """One new token for each sampled request that goes on or ends by length; a stop id is not
    passed on."""

    tokens: tuple[tuple[RequestId, int], ...]
    first_tokens: tuple[FirstToken, ...]
    finished: tuple[Finished, ...]


@dataclass(slots=True)
class IterationScheduler:
    """The brain: arrivals and cancels in, a plan a step out, the sampled tokens back in."""

    limits: IterationLimits
    pool: BlockPool
    _waiting: deque[Sequence] = field(init=False, default_factory=deque)
    _running: list[Sequence] = field(init=False, default_factory=list)
    _cancelled: set[RequestId] = field(init=False, default_factory=set)
    _planned: dict[RequestId, int] = field(init=False, default_factory=dict)

    def arrived(self, request: Request, now_s: float) -> None:
        """Raises InvalidArgument for what can never run here, Overloaded when the queue is full."""
        _check_fits(request, self.limits, self.pool.num_blocks)
        free_seats = self.limits.max_running - len(self._running)
        if len(self._waiting) >= self.limits.max_waiting + max(0, free_seats):
            raise Overloaded(
                f"{len(self._waiting)} requests wait already (limit {self.limits.max_waiting})",
                limit=f"max_waiting {self.limits.max_waiting}",
                retry_after_s=2.0,
            )
        if any(s.request.id == request.id for s in self._all()):
            raise InvalidArgument(f"request {request.id} is already here", field="request_id")
        self._waiting.append(Sequence(request, now_s))

    def cancelled(self, request_id: RequestId) -> None:
        """Takes effect at the next plan; unknown ids are those that have just ended."""
        self._cancelled.add(request_id)

    @property
    def has_work(self) -> bool:
        return bool(self._waiting or self._running)

    def plan(self, now_s: float) -> StepPlan:
        """Decides one step. The caller runs it and answers with `record`."""
        finished = self._end_unwanted(now_s)
        preempted: list[RequestId] = []
        self._planned = {}
        chunks: list[Chunk] = []
        budget = self.limits.step_tokens
        for sequence in self._in_order():
            end = min(sequence.num_computed + budget, len(sequence.tokens))
            budget -= end - sequence.num_computed
            if not self._make_room(sequence, end, preempted):
                break
            chunks.append(self._chunk(sequence, end, now_s))
            if budget == 0:
                break
        return StepPlan(tuple(chunks), tuple(finished), tuple(preempted))

    def record(
        self,
        sampled: Mapping[RequestId, int],
        now_s: float,
        ended: Collection[RequestId] = (),
    ) -> StepOutcome:
        """The step ran; `sampled` holds a token for every chunk that had `sampling` set.

        Answers in `ended` are whole with this token.
        """
        tokens: list[tuple[RequestId, int]] = []
        first_tokens: list[FirstToken] = []
        finished: list[Finished] = []
        for sequence in list(self._running):
            sequence.num_computed = self._planned.pop(sequence.request.id, sequence.num_computed)
            token = sampled.get(sequence.request.id)
            if token is None:
                continue
            if not sequence.has_sampled:
                sequence.has_sampled = True
                first_tokens.append(_first_token(sequence, now_s))
            sampling = sequence.request.sampling
            if token in sampling.stop_ids:
                finished.append(self._finish(sequence, FinishReason.STOP))
                continue
            sequence.tokens.append(token)
            tokens.append((sequence.request.id, token))
            if sequence.request.id in ended:
                finished.append(self._finish(sequence, FinishReason.STOP))
            elif sequence.num_output >= sampling.max_tokens:
                finished.append(self._finish(sequence, FinishReason.LENGTH))
        return StepOutcome(tuple(tokens), tuple(first_tokens), tuple(finished))

    def load(self) -> WorkerLoad:
        return WorkerLoad(
            num_running=len(self._running),
            num_waiting=len(self._waiting),
            prefill_tokens=sum(s.num_remaining for s in self._all() if s.num_remaining > 1),
            num_blocks=self.pool.num_blocks,
            num_free_blocks=self.pool.num_free,
            max_waiting=self.limits.max_waiting,
            max_running=self.limits.max_running,
        )

    def _all(self) -> Iterator[Sequence]:
        yield from self._running
        yield from self._waiting

    def _in_order(self) -> Iterator[Sequence]:
        """The running ones, oldest first, then whoever can be admitted."""
        served = 0
        # By index: whoever is served may take the youngest off the end.
        while served < len(self._running):
            yield self._running[served]
            served += 1
        while self._waiting and len(self._running) < self.limits.max_running:
            head = self._waiting[0]
            if head.missing(len(head.tokens)) > self.pool.num_free:
                return
            self._running.append(self._waiting.popleft())
            yield head

    def _make_room(self, sequence: Sequence, end: int, preempted: list[RequestId]) -> bool:
        """Allocates for the first `end` tokens, from the youngest if need be. False: that was
        itself.

        Whoever is planned already is older, so no planned chunk loses its blocks.
        """
        while (missing := sequence.missing(end)) > self.pool.num_free:
            victim = self._running.pop()
            self.pool.release(victim.let_go())
            victim.restart()
            self._waiting.appendleft(victim)
            preempted.append(victim.request.id)
            if victim is sequence:
                return False
        sequence.grow(end, self.pool.allocate(missing))
        return True

    def _chunk(self, sequence: Sequence, end: int, now_s: float) -> Chunk:
        if sequence.first_step_s is None:
            sequence.first_step_s = now_s
        start, request = sequence.num_computed, sequence.request
        self._planned[request.id] = end
        return Chunk(
            request_id=request.id,
            start=start,
            token_ids=tuple(sequence.tokens[start:end]),
            segments=sequence.views(end),
            sampling=request.sampling if end == len(sequence.tokens) else None,
            ids=sequence.tokens,
            num_prompt=request.num_prompt_tokens,
        )

    def _end_unwanted(self, now_s: float) -> list[Finished]:
        finished = []
        for sequence in list(self._all()):
            if sequence.request.id in self._cancelled:
                finished.append(self._finish(sequence, FinishReason.CANCELLED))
            elif sequence.request.deadline_s <= now_s:
                finished.append(self._finish(sequence, FinishReason.DEADLINE))
        self._cancelled.clear()
        return finished

    def _finish(self, sequence: Sequence, reason: FinishReason) -> Finished:
        self.pool.release(sequence.let_go())
        (self._running if sequence in self._running else self._waiting).remove(sequence)
        return Finished(sequence.request.id, reason, sequence.num_recomputed)

    def check(self) -> None:
        """Blocks: held by exactly one sequence or free. Order: arrival, running before waiting."""
        self.pool.check()
        held = [block for s in self._all() for block in s.blocks()]
        if len(held) != len(set(held)) or len(held) + self.pool.num_free != self.pool.num_blocks:
            raise InvariantBroken(f"{len(held)} blocks in tables, {self.pool.num_free} free")
        if any(s.blocks() for s in self._waiting):
            raise InvariantBroken("a waiting sequence holds blocks")
        arrivals = [s.arrived_s for s in self._all()]
        if arrivals != sorted(arrivals):
            raise InvariantBroken("running and waiting are out of order of arrival")
        for sequence in self._running:
            if sequence.missing(sequence.num_computed):
                raise InvariantBroken(f"{sequence.request.id} computed tokens it has no blocks for")


def _first_token(sequence: Sequence, now_s: float) -> FirstToken:
    if sequence.first_step_s is None:
        raise InvariantBroken(f"{sequence.request.id} has a token and was never in a step")
    queue_s = sequence.first_step_s - sequence.arrived_s
    return FirstToken(sequence.request.id, queue_s, now_s - sequence.first_step_s)


def _check_fits(request: Request, limits: IterationLimits, num_blocks: int) -> None:
    """What can never run is refused at the door, with both numbers."""
    if not request.segments or not all(request.segments):
        raise InvalidArgument(
            "a prompt has at least one segment, none of them empty", field="segments"
        )
    if request.sampling.max_tokens <= len(request.output_ids):
        raise InvalidArgument(
            f"max_tokens is {request.sampling.max_tokens}, and {len(request.output_ids)} are there",
            field="max_tokens",
            limit=f"more than {len(request.output_ids)}",
        )
    num_prompt, max_tokens = request.num_prompt_tokens, request.sampling.max_tokens
    if num_prompt + max_tokens > limits.context_tokens:
        raise InvalidArgument(
            f"{num_prompt} prompt tokens and max_tokens {max_tokens} exceed the context of "
            f"{limits.context_tokens} tokens",
            field="messages",
            limit=f"{limits.context_tokens} tokens",
        )
    *documents, last = map(len, request.segments)
    needed = sum(map(blocks_for, documents)) + blocks_for(last + max_tokens)
    if needed > num_blocks:
        raise InvalidArgument(
            f"{num_prompt} prompt tokens and max_tokens {max_tokens} need {needed} KV blocks of "
            f"{BLOCK_TOKENS} tokens; the worker has {num_blocks}",
            field="messages",
            limit=f"{num_blocks} blocks",
        )
