"""Which rows a worker computes in its next step.

One idea: requests are kept in order of arrival and every step serves that order. Whoever came first
gets blocks first, takes them from the youngest when the pool is empty, and is therefore never
starved. The older ones are the ones that decode, a row each; whatever they leave of the step's
token budget is a chunk of the next prompt. Documents that nobody uses make room before anybody is
preempted.

    waiting -> running     admitted: a seat is free and the blocks of its whole prompt are
    running -> waiting     preempted: an older sequence needed its blocks; it goes back to the head
    waiting | running -> done   stop id, max_tokens, cancelled, deadline
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from cluster.blocks.pool import BlockPool
from cluster.blocks.segment import Home
from cluster.errors import InvalidArgument, InvariantBroken, Overloaded
from cluster.ids import RequestId
from cluster.knowledge.cache import KnowledgeCache
from cluster.knowledge.commands import DiskDone
from cluster.knowledge.keys import NodeKey
from cluster.request import FinishReason, Request, WorkerLoad
from cluster.scheduling.limits import IterationLimits, check_fits
from cluster.scheduling.plan import Chunk, Finished, FirstToken, StepOutcome, StepPlan
from cluster.scheduling.reuse import Walk, blocks_beyond, keep_computed, to_keep, walk
from cluster.scheduling.sequence import Sequence


@dataclass(slots=True)
class IterationScheduler:
    """The brain: arrivals and cancels in, a plan a step out, the sampled tokens back in."""

    limits: IterationLimits
    cache: KnowledgeCache
    _waiting: deque[Sequence] = field(init=False, default_factory=deque)
    _running: list[Sequence] = field(init=False, default_factory=list)
    _cancelled: set[RequestId] = field(init=False, default_factory=set)
    _planned: dict[RequestId, int] = field(init=False, default_factory=dict)
    # Preempted since the last plan.
    _set_back: list[RequestId] = field(init=False, default_factory=list)

    @property
    def pool(self) -> BlockPool:
        """The device's blocks: of those that run, of documents, or free."""
        return self.cache.pool

    def arrived(self, request: Request, now_s: float) -> None:
        """Raises InvalidArgument for what can never run here, Overloaded when the queue is full."""
        check_fits(request, self.limits, self.pool.num_blocks)
        free_seats = self.limits.max_running - len(self._running)
        if len(self._waiting) >= self.limits.max_waiting + max(0, free_seats):
            raise Overloaded(
                f"{len(self._waiting)} requests wait already (limit {self.limits.max_waiting})",
                limit=f"max_waiting {self.limits.max_waiting}",
                retry_after_s=2.0,
            )
        if any(s.request.id == request.id for s in self._all()):
            raise InvalidArgument(f"request {request.id} is already here", field="request_id")
        self._waiting.append(Sequence(request, now_s, self.cache.chain(request)))

    def cancelled(self, request_id: RequestId) -> None:
        """Takes effect at the next plan; unknown ids are those that have just ended."""
        self._cancelled.add(request_id)

    @property
    def has_work(self) -> bool:
        return bool(self._waiting or self._running)

    def plan(self, now_s: float) -> StepPlan:
        """Decides one step. The caller runs it and answers with `record`."""
        finished = self._end_unwanted(now_s)
        preempted, self._set_back = self._set_back, []
        self._planned = {}
        chunks: list[Chunk] = []
        claimed: set[NodeKey] = set()
        budget = self.limits.step_tokens
        for sequence in self._in_order():
            sequence.come_nearer()
            ended = self._walk(sequence, claimed, preempted)
            if ended is Walk.PREEMPTED:
                break
            claimed.update(to_keep(self.cache, sequence))
            if ended is Walk.WAIT:
                continue
            end = min(sequence.num_computed + budget, len(sequence.tokens))
            budget -= end - sequence.num_computed
            if not self._make_room(sequence, sequence.missing(end), preempted):
                break
            sequence.grow(end, self.pool.allocate(sequence.missing(end)))
            chunks.append(self._chunk(sequence, end, now_s))
            if budget == 0:
                break
        return StepPlan(
            (tuple(chunks),) if chunks else (),
            tuple(finished),
            tuple(preempted),
            self.cache.take_moves(),
            self.cache.take_disk_commands(now_s),
        )

    def _walk(
        self, sequence: Sequence, claimed: Collection[NodeKey], preempted: list[RequestId]
    ) -> Walk:
        def free(count: int) -> bool:
            return self._make_room(sequence, count, preempted)

        return walk(self.cache, sequence, claimed, free)

    def damaged(self, keys: Collection[NodeKey]) -> None:
        """Moves of the plan found these copies damaged: the plan is void, and is to be made anew.
        Whoever had adopted one computes it instead; who has attended it in earlier steps begins
        again."""
        self._planned = {}
        for sequence in reversed(list(self._running)):
            lost = [i for i, node in enumerate(sequence.nodes) if node.key in keys]
            if lost and lost[0] < sequence.num_settled:
                self._preempt(sequence, self._set_back)
            elif lost:
                blocks, nodes = sequence.cut(lost[0])
                self.pool.release(blocks)
                self.cache.unpin(nodes)
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
        for sequence in list(self._running):
            end = self._planned.pop(sequence.request.id, None)
            if end is not None:
                sequence.computed(end)
                keep_computed(self.cache, sequence)
                sequence.num_settled = len(sequence.nodes)
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
        num_own = sum(s.num_own_blocks for s in self._running)
        return WorkerLoad(
            num_running=len(self._running),
            num_waiting=len(self._waiting),
            prefill_tokens=sum(s.num_remaining for s in self._all() if s.num_remaining > 1),
            num_blocks=self.pool.num_blocks,
            num_free_blocks=self.pool.num_free,
            num_cached_blocks=self.pool.num_blocks - self.pool.num_free - num_own,
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
            needed, available = blocks_beyond(self.cache, head)
            if needed > available:
                return
            self._running.append(self._waiting.popleft())
            yield head

    def _make_room(self, sequence: Sequence, count: int, preempted: list[RequestId]) -> bool:
        """Frees so many blocks: from documents that nobody uses, then from the youngest. False:
        that was the sequence itself.

        Whoever is planned already is older, so no planned chunk loses its blocks.
        """
        while not self.cache.make_room(count):
            victim = self._running[-1]
            self._preempt(victim, preempted)
            if victim is sequence:
                return False
        return True

    def _preempt(self, victim: Sequence, preempted: list[RequestId]) -> None:
        """Of several the youngest goes first, so that those who wait stay in order."""
        self._running.remove(victim)
        self._let_go(victim)
        self._waiting.appendleft(victim)
        preempted.append(victim.request.id)

    def _let_go(self, sequence: Sequence) -> None:
        blocks, nodes = sequence.let_go()
        self.pool.release(blocks)
        self.cache.unpin(nodes)

    def _chunk(self, sequence: Sequence, end: int, now_s: float) -> Chunk:
        if sequence.first_step_s is None:
            sequence.first_step_s = now_s
            sequence.cost_s = self._cost_s(sequence)
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

    def _cost_s(self, sequence: Sequence) -> float:
        """T(alpha, beta) / beta of a prompt that is begun with alpha tokens cached."""
        if not sequence.keys:
            return 0.0
        alpha = sequence.num_computed
        beta = max(1, sequence.request.num_prompt_tokens - alpha)
        return self.cache.prefill.prefill_s(alpha, beta) / beta

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
        self._let_go(sequence)
        (self._running if sequence in self._running else self._waiting).remove(sequence)
        return Finished(sequence.request.id, reason, sequence.num_recomputed)

    def check(self) -> None:
        """Blocks: of exactly one sequence, of a node, or free (P5). Pins: of the running ones (P7).
        Order: arrival, running before waiting."""
        self.cache.check()
        nodes = self.cache.tree.nodes.values()
        held = [block for s in self._all() for block in s.blocks()]
        held += [block for node in nodes for block in node.device]
        if len(held) != len(set(held)) or len(held) + self.pool.num_free != self.pool.num_blocks:
            raise InvariantBroken(f"{len(held)} blocks in tables, {self.pool.num_free} free")
        if any(s.blocks() or s.nodes for s in self._waiting):
            raise InvariantBroken("a waiting sequence holds blocks")
        arrivals = [s.arrived_s for s in self._all()]
        if arrivals != sorted(arrivals):
            raise InvariantBroken("running and waiting are out of order of arrival")
        pins = Counter(node.key for s in self._running for node in s.nodes)
        if any(node.pins != pins[node.key] for node in nodes):
            raise InvariantBroken("a node is pinned by nobody, or not by somebody who uses it")
        for sequence in self._running:
            _check_running(sequence)


def _check_running(sequence: Sequence) -> None:
    request = sequence.request
    if sequence.missing(sequence.num_computed):
        raise InvariantBroken(f"{request.id} computed tokens it has no blocks for")
    for node, table in zip(sequence.nodes, sequence.tables, strict=False):
        lies = node.device if table.home is Home.DEVICE else node.host
        if not lies or (table.is_shared and tuple(table.blocks) != lies):
            raise InvariantBroken(f"{request.id} uses a node where it does not lie")
    counted = sequence.cached_tokens.total + sequence.num_fresh
    if counted != min(sequence.num_reached, request.num_prompt_tokens):
        raise InvariantBroken(f"{request.id}: {counted} tokens cached and computed")


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
