"""An engine that computes nothing: the scheduler's plans, on a clock that true costs move.

What is planned is the product's; what a step takes is said by `truth`, which may be another than
the scheduler believes, and may change between steps. Every sampled token is 1, and an answer is as
long as its request's `max_tokens`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cluster.blocks.pool import blocks_for
from cluster.blocks.segment import Home, SegmentView
from cluster.errors import InvariantBroken
from cluster.ids import RequestId
from cluster.knowledge.commands import PageIn, PageOut, SwapIn, SwapOut
from cluster.request import Request
from cluster.scheduling.iteration import IterationScheduler
from cluster.scheduling.offload import OffloadMode
from cluster.scheduling.plan import Chunk, StepPlan
from cluster.scheduling.stages import StageCosts, StageTimes, Work, keys_of

TOKEN = 1
# Rows and keys of a probe of the host, and how many times what two layers take all of them do.
PROBE = (4, 256)
PROBED_LAYERS = 16
# So many plans without a row, one after another, and nothing will come of the rest either.
MOST_IDLE = 50


def work_of(chunks: Iterable[Chunk]) -> Work:
    """What a sub-batch has to do, read off its chunks alone."""
    return sum(map(_work, chunks), Work())


def _work(chunk: Chunk) -> Work:
    rows = len(chunk.token_ids)
    host_tokens = rows * sum(v.num_tokens for v in chunk.segments if v.home is Home.HOST)
    keys = keys_of(chunk.start, rows) - host_tokens
    return Work(
        rows=rows,
        prefill_keys=keys if rows > 1 else 0,
        device_tokens=keys if rows == 1 else 0,
        host_rows=rows if host_tokens else 0,
        host_tokens=host_tokens,
        streamed_rows=rows if chunk.segments[-1].home is Home.STREAMED else 0,
        drawn=int(chunk.sampling is not None),
    )


@dataclass(frozen=True, slots=True)
class Bus:
    """Copies blocks in both directions at once, beside the step."""

    block_s: float = 0.0

    def seconds(self, plan: StepPlan) -> float:
        """Of a plan's moves, and of what its prompts stream to the host and read from there."""
        out = sum(len(m.device) for m in plan.moves if isinstance(m, PageOut | SwapOut))
        back = sum(len(m.device) for m in plan.moves if isinstance(m, PageIn | SwapIn))
        for chunk in plan.chunks:
            for view in chunk.segments:
                if view.home is Home.STREAMED:
                    new = _new_blocks(chunk, view)
                    out += new
                    back += len(view.blocks) - new
        return self.block_s * max(out, back)


def _new_blocks(chunk: Chunk, view: SegmentView) -> int:
    return min(len(view.blocks), blocks_for(len(chunk.token_ids)))


def published_s(times: Sequence[StageTimes]) -> float:
    """Of a step's layers as NEO runs them (arXiv 2411.01142, section 3): two stages, each as long
    as the longer of the device's part and the host's.

    stage A   linear operators of batch 0                            beside   host, batch 1
    stage B   linear operators of batch 1, device attention of both  beside   host, batch 0
    """
    first, second = (*times, StageTimes(), StageTimes())[:2]
    stage_a = max(first.linear_s, second.host_s)
    device_s = first.device_s + first.exchange_s + second.device_s + second.exchange_s
    stage_b = max(second.linear_s + device_s, first.host_s)
    return stage_a + stage_b


@dataclass(slots=True)
class Life:
    """A request as whoever waits for it sees it; steps count all steps of the engine."""

    arrived_s: float
    max_tokens: int
    num_tokens: int = 0
    last_s: float = 0.0
    last_step: int = 0
    longest_gap_s: float = 0.0
    longest_gap_steps: int = 0
    finished_s: float | None = None
    num_recomputed: int = 0

    def token(self, now_s: float, step: int) -> None:
        if self.num_tokens:
            self.longest_gap_s = max(self.longest_gap_s, now_s - self.last_s)
            self.longest_gap_steps = max(self.longest_gap_steps, step - self.last_step)
        self.num_tokens += 1
        self.last_s, self.last_step = now_s, step


@dataclass(frozen=True, slots=True)
class Step:
    """What a step was, when it ended, and how many tokens came of it."""

    plan: StepPlan
    works: tuple[Work, ...]
    seconds: float
    ended_s: float
    num_tokens: int


@dataclass(slots=True)
class SimulatedEngine:
    """`mode` says how two sub-batches share the time: as published, or as `StageCosts` says."""

    scheduler: IterationScheduler
    truth: StageCosts
    mode: OffloadMode
    bus: Bus = field(default_factory=Bus)
    now_s: float = 0.0
    num_steps: int = 0
    lives: dict[RequestId, Life] = field(default_factory=dict)
    _num_idle: int = 0

    def arrived(self, request: Request) -> None:
        """Raises what the scheduler refuses it with."""
        self.scheduler.arrived(request, self.now_s)
        self.lives[request.id] = Life(self.now_s, request.sampling.max_tokens)

    def step(self) -> Step:
        """Raises InvariantBroken when plan after plan has no row."""
        costs = self.scheduler.offload.costs
        if costs.is_doubted:
            self.now_s += self._probe(costs)
        plan = self.scheduler.plan(self.now_s)
        self._num_idle = 0 if plan.batches else self._num_idle + 1
        if self._num_idle > MOST_IDLE:
            raise InvariantBroken(f"{MOST_IDLE} plans without a row, and requests wait")
        works = tuple(work_of(batch) for batch in plan.batches)
        times, seconds = self.taken(plan, works)
        self.now_s += seconds
        self.num_steps += 1
        self.scheduler.measured(times)
        return Step(plan, works, seconds, self.now_s, self._record(plan))

    def _probe(self, costs: StageCosts) -> float:
        """As the engine probes its host; the seconds of one layer."""
        rows, tokens = PROBE
        seconds = self.truth.host_s(rows, tokens)
        costs.probed(rows, tokens, seconds)
        return seconds / PROBED_LAYERS

    def taken(self, plan: StepPlan, works: Sequence[Work]) -> tuple[tuple[StageTimes, ...], float]:
        """What each sub-batch takes in truth, and all of the step."""
        times = tuple(self.truth.times(work) for work in works)
        rest_s = self.truth.rest.at(sum(work.drawn for work in works))
        step_s = rest_s + self._layers_s(times)
        return times, max(step_s, self.bus.seconds(plan))

    def _layers_s(self, times: Sequence[StageTimes]) -> float:
        if self.mode is OffloadMode.NEO:
            return published_s(times)
        first, second = (*times, StageTimes(), StageTimes())[:2]
        return self.truth.round_s(first, second)

    def _record(self, plan: StepPlan) -> int:
        sampled = {chunk.request_id: TOKEN for chunk in plan.chunks if chunk.sampling is not None}
        outcome = self.scheduler.record(sampled, self.now_s)
        for request_id, _ in outcome.tokens:
            self.lives[request_id].token(self.now_s, self.num_steps)
        for finished in outcome.finished:
            life = self.lives[finished.request_id]
            life.finished_s, life.num_recomputed = self.now_s, finished.num_recomputed
        return len(outcome.tokens)
