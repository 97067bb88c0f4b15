"""Which rows a worker computes in its next step.

    arrived, cancelled --plan--> StepPlan --the engine runs it--> measured, record --> StepOutcome

`requests` says who holds what, the mode (`oldest_first`, `neo`, `adaptive`) who computes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from cluster.blocks.pool import BlockPool
from cluster.blocks.segment import Home
from cluster.errors import InvalidArgument, InvariantBroken, Overloaded
from cluster.ids import RequestId
from cluster.knowledge.cache import KnowledgeCache
from cluster.knowledge.commands import DiskDone
from cluster.knowledge.keys import NodeKey
from cluster.request import FinishReason, Request, WorkerLoad
from cluster.scheduling.adaptive import Adaptive
from cluster.scheduling.draft import Draft, Entry, chunk_of
from cluster.scheduling.limits import IterationLimits, Room, check_fits
from cluster.scheduling.neo import Neo
from cluster.scheduling.offload import Offload, OffloadMode
from cluster.scheduling.oldest_first import NoHost, OldestFirst
from cluster.scheduling.plan import Chunk, Finished, FirstToken, StepOutcome, StepPlan, Why
from cluster.scheduling.requests import Requests
from cluster.scheduling.reuse import keep_computed
from cluster.scheduling.sequence import Sequence
from cluster.scheduling.stages import StageTimes


class Mode(Protocol):
    def fill(self, draft: Draft, /) -> None:
        """Decides what the step computes. What it plans has its blocks."""
        ...


@dataclass(slots=True)
class IterationScheduler:
    """The brain: arrivals and cancels in, a plan a step out, the sampled tokens back in."""

    limits: IterationLimits
    cache: KnowledgeCache
    offload: Offload = field(default_factory=Offload)
    requests: Requests = field(init=False)
    _mode: Mode = field(init=False)
    _cancelled: set[RequestId] = field(init=False, default_factory=set)
    _why: Why = field(init=False, default_factory=Why)

    def __post_init__(self) -> None:
        is_used = self.offload.mode is not OffloadMode.GPU_ONLY
        self.requests = Requests(self.cache, self.offload.host_share if is_used else 0.0)
        match self.offload.mode:
            case OffloadMode.GPU_ONLY:
                self._mode = OldestFirst(self.requests, self.limits, NoHost(self.requests))
            case OffloadMode.NEO:
                self._mode = Neo(self.requests, self.limits, self.offload)
            case OffloadMode.ADAPTIVE:
                self._mode = Adaptive(self.requests, self.limits, self.offload)

    @property
    def pool(self) -> BlockPool:
        """The device's blocks: of those that run, of documents, or free."""
        return self.cache.pool

    def arrived(self, request: Request, now_s: float) -> None:
        """Raises InvalidArgument for what can never run here, Overloaded when the queue is full."""
        requests, limits = self.requests, self.limits
        sequence = Sequence(request, now_s, self.cache.chain(request))
        room = Room(self.pool.num_blocks, requests.host_limit)
        check_fits(request, limits, room, len(sequence.keys))
        free_seats = limits.max_running - len(requests.running)
        if len(requests.waiting) >= limits.max_waiting + max(0, free_seats):
            raise Overloaded(
                f"{len(requests.waiting)} requests wait already (limit {limits.max_waiting})",
                limit=f"max_waiting {limits.max_waiting}",
                retry_after_s=2.0,
            )
        if request.id in requests:
            raise InvalidArgument(f"request {request.id} is already here", field="request_id")
        requests.arrived(sequence)

    def cancelled(self, request_id: RequestId) -> None:
        """Takes effect at the next plan; unknown ids are those that have just ended."""
        self._cancelled.add(request_id)

    @property
    def has_work(self) -> bool:
        return bool(self.requests.waiting or self.requests.running)

    def plan(self, now_s: float) -> StepPlan:
        """Decides one step. The caller runs it and answers with `record`."""
        finished = self._end_unwanted(now_s)
        draft = Draft(self.limits.step_tokens)
        self._mode.fill(draft)
        self._why = draft.why(self.offload.costs)
        batches = tuple(
            self._chunks(batch, now_s) for batch in (draft.first, draft.second) if batch
        )
        for sequence in self.requests.running:
            sequence.num_skipped = 0 if sequence.planned is not None else sequence.num_skipped + 1
            sequence.num_steps_there += 1
        preempted, self.requests.preempted = self.requests.preempted, []
        return StepPlan(
            batches,
            tuple(finished),
            tuple(preempted),
            self.cache.take_moves(),
            self.cache.take_disk_commands(now_s),
            self._why,
        )

    def _chunks(self, entries: list[Entry], now_s: float) -> tuple[Chunk, ...]:
        for entry in entries:
            sequence = entry.sequence
            sequence.planned = entry.end
            if sequence.first_step_s is None:
                sequence.first_step_s = now_s
                sequence.cost_s = self._cost_s(sequence)
        return tuple(map(chunk_of, entries))

    def measured(self, times: Collection[StageTimes], rest_s: float | None = None) -> None:
        """The step that was planned last has taken so long, each sub-batch of it, and the rest.
        Where no plan rests on costs there is nothing to correct."""
        if times and self.offload.mode is not OffloadMode.GPU_ONLY:
            self.offload.costs.observed(self._why.works, times, rest_s)

    def damaged(self, keys: Collection[NodeKey]) -> None:
        """Moves of the plan found these copies damaged: the plan is void, and is to be made anew.
        Whoever had adopted one computes it instead; who has attended it in earlier steps begins
        again."""
        for sequence in reversed(list(self.requests.running)):
            sequence.planned = None
            lost = [i for i, node in enumerate(sequence.nodes) if node.key in keys]
            if lost and lost[0] < sequence.num_settled:
                self.requests.preempt(sequence)
            elif lost:
                self.requests.cut(sequence, lost[0])
        for key in keys:
            if self.cache.find(key) is not None:
                self.cache.damaged(key)

    def disk_done(self, event: DiskDone, now_s: float) -> None:
        """A disk has ended a command."""
        self.cache.disk_done(event, now_s)

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
        for sequence in list(self.requests.running):
            request, end = sequence.request, sequence.planned
            if end is not None:
                self._computed(sequence, end)
            token = sampled.get(request.id)
            if token is None:
                continue
            if not sequence.has_sampled:
                sequence.has_sampled = True
                first_tokens.append(_first_token(sequence, now_s))
            if token in request.sampling.stop_ids:
                finished.append(self.requests.finish(sequence, FinishReason.STOP))
                continue
            sequence.tokens.append(token)
            tokens.append((request.id, token))
            if request.id in ended:
                finished.append(self.requests.finish(sequence, FinishReason.STOP))
            elif len(sequence.tokens) >= sequence.most_tokens:
                finished.append(self.requests.finish(sequence, FinishReason.LENGTH))
        return StepOutcome(tuple(tokens), tuple(first_tokens), tuple(finished))

    def _computed(self, sequence: Sequence, end: int) -> None:
        sequence.planned = None
        sequence.computed(end)
        if not sequence.room_until:
            keep_computed(self.cache, sequence)
            sequence.num_settled = len(sequence.nodes)
            sequence.stand()

    def load(self) -> WorkerLoad:
        requests, pool = self.requests, self.pool
        num_own = sum(s.num_own_blocks() for s in requests.running)
        remaining = (s.num_remaining for s in requests.running)
        return WorkerLoad(
            num_running=len(requests.running),
            num_waiting=len(requests.waiting),
            prefill_tokens=sum(n for n in remaining if n > 1) + requests.waiting_tokens,
            num_blocks=pool.num_blocks,
            num_free_blocks=pool.num_free,
            num_cached_blocks=pool.num_blocks - pool.num_free - num_own,
            max_waiting=self.limits.max_waiting,
            max_running=self.limits.max_running,
            num_host_blocks=requests.host_limit,
            num_lent_host_blocks=self.cache.host.num_lent,
            num_on_host=sum(s.home is Home.HOST for s in requests.running),
            num_evictable_blocks=self.cache.tree.num_evictable,
        )

    def _cost_s(self, sequence: Sequence) -> float:
        """T(alpha, beta) / beta of a prompt that is begun with alpha tokens cached."""
        if not sequence.keys:
            return 0.0
        alpha = sequence.num_computed
        beta = max(1, sequence.request.num_prompt_tokens - alpha)
        return self.cache.prefill.prefill_s(alpha, beta) / beta

    def _end_unwanted(self, now_s: float) -> list[Finished]:
        finished = []
        for request_id in sorted(self._cancelled):
            sequence = self.requests.find(request_id)
            if sequence is not None:
                finished.append(self.requests.finish(sequence, FinishReason.CANCELLED))
        self._cancelled.clear()
        for sequence in list(self.requests.expired(now_s)):
            finished.append(self.requests.finish(sequence, FinishReason.DEADLINE))
        return finished

    def check(self) -> None:
        self.requests.check()


def _first_token(sequence: Sequence, now_s: float) -> FirstToken:
    if sequence.first_step_s is None:
        raise InvariantBroken(f"{sequence.request.id} has a token and was never in a step")
    queue_s = sequence.first_step_s - sequence.arrived_s
    return FirstToken(
        sequence.request.id,
        queue_s,
        now_s - sequence.first_step_s,
        sequence.cached_tokens,
        sequence.num_fresh,
    )
