"""A worker's whole life: decide, run, record.

The engine belongs to one thread. It knows token ids and no text, blocks and no documents' names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch

from cluster.blocks.segment import Home
from cluster.clock import Clock
from cluster.engine.forward import Forward
from cluster.engine.host_attention import HostAttention
from cluster.engine.sampling import Drawn, Sampler
from cluster.engine.step import lay_out
from cluster.errors import InvalidArgument, ThothError
from cluster.ids import BlockId, RequestId
from cluster.knowledge.cache import KnowledgeCache
from cluster.knowledge.commands import (
    DiskCommand,
    DiskDone,
    Move,
    PageIn,
    PageOut,
    SwapOut,
    num_ready,
)
from cluster.knowledge.keys import NodeKey
from cluster.knowledge.snapshot import CacheSums, sums
from cluster.request import Request, TokenLogprobs, WorkerLoad
from cluster.scheduling.iteration import IterationScheduler
from cluster.scheduling.plan import Finished, FirstToken, StepPlan, Why
from cluster.scheduling.stages import StageTimes

# A step that has nothing to compute waits so long for a disk.
DISK_WAIT_S = 0.05


class HostHands(Protocol):
    """Whoever copies blocks between device and host, beside a step that computes."""

    def begin(self, moves: Sequence[Move], /) -> tuple[NodeKey, ...]:
        """The keys whose copy on the host was damaged. A layer of the step waits for what it
        touches."""
        ...

    def finish(self) -> None:
        """All that has begun is done when it returns, in the order of the moves."""
        ...

    def run(self, moves: Sequence[Move], /) -> tuple[NodeKey, ...]:
        """Both, where no step computes meanwhile."""
        ...


class DiskHands(Protocol):
    """Whoever reads and writes nodes on disk, beside the steps."""

    def submit(self, commands: Sequence[DiskCommand], /) -> None: ...

    def completed(self, timeout_s: float, /) -> tuple[DiskDone, ...]:
        """What ended since the last call; waits for something if there is nothing yet."""
        ...


@dataclass(frozen=True, slots=True)
class StepReport:
    """What a step did: new tokens, ends, and its size and time for whoever counts.

    `logprobs` are those of the new tokens, of requests that asked for them. What `failed` has no
    token and is over; nobody else is touched. `why` and `times` are those of the plan's
    sub-batches, `request_ids` whose rows were in each, and `begun_s` is when the first one began,
    after `decide_s`; drawing tokens took `draw_s`.
    """

    tokens: tuple[tuple[RequestId, int], ...] = ()
    logprobs: Mapping[RequestId, TokenLogprobs] = field(default_factory=dict)
    failed: tuple[tuple[RequestId, ThothError], ...] = ()
    first_tokens: tuple[FirstToken, ...] = ()
    finished: tuple[Finished, ...] = ()
    num_preempted: int = 0
    num_prefill_rows: int = 0
    num_decode_rows: int = 0
    seconds: float = 0.0
    cache: CacheSums | None = None
    why: Why = field(default_factory=Why)
    times: tuple[StageTimes, ...] = ()
    begun_s: float = 0.0
    decide_s: float = 0.0
    draw_s: float = 0.0
    request_ids: tuple[tuple[RequestId, ...], ...] = ()


@dataclass(slots=True)
class Engine:
    """One model on one device, with one pool of KV blocks."""

    forward: Forward
    vocab_size: int
    scheduler: IterationScheduler
    clock: Clock
    sampler: Sampler = field(default_factory=Sampler)
    host: HostHands | None = None
    disk: DiskHands | None = None
    attention: HostAttention | None = None

    @property
    def cache(self) -> KnowledgeCache:
        return self.scheduler.cache

    def submit(self, request: Request) -> None:
        """Raises InvalidArgument for what can never run, Overloaded when the queue is full."""
        for segment in (*request.segments, request.output_ids):
            self._check_ids("segments", segment)
        self._check_ids("logit_bias", request.sampling.logit_bias)
        self._check_ids("stop_ids", request.sampling.stop_ids)
        self.scheduler.arrived(request, self.clock.now_s())

    def _check_ids(self, field: str, ids: Iterable[int]) -> None:
        highest = max(ids, default=0)
        if highest >= self.vocab_size:
            raise InvalidArgument(
                f"token id {highest} is not in the vocabulary of {self.vocab_size}",
                field=field,
                limit=f"ids below {self.vocab_size}",
            )

    def cancel(self, request_id: RequestId) -> None:
        """Its blocks are back after the next step."""
        self.scheduler.cancelled(request_id)

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work

    def load(self) -> WorkerLoad:
        return self.scheduler.load()

    @torch.inference_mode()
    def step(self) -> StepReport:
        """Decide, run, record."""
        started_s = self.clock.now_s()
        plan = self._plan(started_s)
        begun_s = self.clock.now_s()
        try:
            self._await_host(plan)
            outcomes, times, draw_s = self._run(plan)
        finally:
            self._end_moves(plan)
        drawn = {id: token for id, token in outcomes.items() if isinstance(token, Drawn)}
        failed = tuple((id, e) for id, e in outcomes.items() if isinstance(e, ThothError))
        now_s = self.clock.now_s()
        self._learn(plan, now_s - begun_s)
        if times:
            self.scheduler.measured(times, _rest_s(plan, times, now_s - started_s))
        outcome = self.scheduler.record(
            {id: token.token_id for id, token in drawn.items()},
            now_s,
            ended=frozenset(id for id, token in drawn.items() if token.is_last),
        )
        self._let_go(plan.finished + outcome.finished, failed)
        self._hear_disk(0.0 if plan.chunks else DISK_WAIT_S)
        return StepReport(
            tokens=outcome.tokens,
            logprobs={id: token.logprobs for id, token in drawn.items() if token.logprobs},
            failed=failed,
            first_tokens=outcome.first_tokens,
            finished=plan.finished + outcome.finished,
            num_preempted=len(plan.preempted),
            num_prefill_rows=_prefill_rows(plan),
            num_decode_rows=sum(len(c.token_ids) == 1 for c in plan.chunks),
            seconds=now_s - started_s,
            cache=sums(self.cache),
            why=plan.why,
            times=times,
            begun_s=begun_s,
            decide_s=begun_s - started_s,
            draw_s=draw_s,
            request_ids=tuple(tuple(c.request_id for c in batch) for batch in plan.batches),
        )

    def _plan(self, now_s: float) -> StepPlan:
        """The step's plan, its moves begun; what is left of its `disk` waits for their end. A plan
        that rests on a damaged copy is made anew."""
        finished: list[Finished] = []
        preempted: list[RequestId] = []
        if self.attention is not None:
            self._ask_host(self.attention)
        while True:
            plan = self.scheduler.plan(now_s)
            finished += plan.finished
            preempted += plan.preempted
            damaged = self.host.begin(plan.moves) if self.host and plan.moves else ()
            plan = self._submit_ready(plan)
            if not damaged:
                return replace(plan, finished=tuple(finished), preempted=tuple(preempted))
            self._end_moves(plan)
            self.scheduler.damaged(damaged)

    def _ask_host(self, attention: HostAttention) -> None:
        """What it costs now, which is measured if it was not for long."""
        costs = self.scheduler.offload.costs
        self.cache.attended_in(attention.block_s)
        costs.attended_by(attention.costs)
        if costs.is_doubted and (probe := attention.probe()) is not None:
            costs.probed(*probe)

    def _submit_ready(self, plan: StepPlan) -> StepPlan:
        """The plan with those of the disk's commands that are left."""
        count = num_ready(plan.disk, plan.moves)
        if self.disk and count:
            self.disk.submit(plan.disk[:count])
        return replace(plan, disk=plan.disk[count:])

    def _await_host(self, plan: StepPlan) -> None:
        """A step may touch a layer of the device before the host's side of it is copied: where it
        attends or writes the same blocks of the host, it waits for all."""
        moves = (m.host for m in plan.moves if isinstance(m, SwapOut | PageOut | PageIn))
        moving = {block for blocks in moves for block in blocks}
        if self.host and moving and not moving.isdisjoint(_on_host(plan)):
            self.host.finish()

    def _end_moves(self, plan: StepPlan) -> None:
        if self.host and plan.moves:
            self.host.finish()
        if self.disk and plan.disk:
            self.disk.submit(plan.disk)

    def _learn(self, plan: StepPlan, seconds: float) -> None:
        """A chunk that had the step to itself, on the device alone, and waited for no copy, says
        what such a chunk costs."""
        if len(plan.chunks) == 1 and not plan.moves:
            (chunk,) = plan.chunks
            if all(segment.home is Home.DEVICE for segment in chunk.segments):
                self.cache.prefill.observed(chunk.start, len(chunk.token_ids), seconds)

    def _hear_disk(self, timeout_s: float) -> None:
        if self.disk is None or not self.cache.disk.num_jobs:
            return
        for event in self.disk.completed(timeout_s):
            self.scheduler.disk_done(event, self.clock.now_s())

    def _let_go(
        self, finished: Sequence[Finished], failed: Sequence[tuple[RequestId, ThothError]]
    ) -> None:
        for end in finished:
            self.sampler.forget(end.request_id)
        for request_id, _ in failed:
            self.scheduler.cancelled(request_id)

    def _run(
        self, plan: StepPlan
    ) -> tuple[dict[RequestId, Drawn | ThothError], tuple[StageTimes, ...], float]:
        """What was drawn, what the sub-batches have taken as far as that is known, and what drawing
        has."""
        if not plan.batches:
            return {}, (), 0.0
        steps = [lay_out(batch) for batch in plan.batches]
        draws = [draw for step in steps for draw in step.draws]
        computed = self.forward.compute(steps)
        computed_s = self.clock.now_s()
        outcomes = self.sampler.draw(computed.logits, draws)
        draw_s = self.clock.now_s() - computed_s
        ids = (draw.request_id for draw in draws)
        return dict(zip(ids, outcomes, strict=True)), computed.times, draw_s


def _prefill_rows(plan: StepPlan) -> int:
    return sum(len(c.token_ids) for c in plan.chunks if len(c.token_ids) > 1)


def _rest_s(plan: StepPlan, times: Sequence[StageTimes], seconds: float) -> float | None:
    """Of a step's seconds, those of no sub-batch; None where copies were waited for too."""
    if plan.moves:
        return None
    return max(0.0, seconds - sum(t.busy_s + t.waited_s for t in times))


def _on_host(plan: StepPlan) -> Iterator[BlockId]:
    for chunk in plan.chunks:
        for segment in chunk.segments:
            if segment.home is not Home.DEVICE:
                yield from segment.blocks
