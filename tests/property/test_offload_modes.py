"""Every mode against random lives on tiny pools of the device and of the host."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random

import pytest

from cluster.blocks.pool import BlockPool, blocks_for
from cluster.blocks.segment import Home
from cluster.errors import InvalidArgument, Overloaded
from cluster.ids import RequestId
from cluster.knowledge.cache import no_cache
from cluster.request import Request, Sampling
from cluster.scheduling.curves import line
from cluster.scheduling.iteration import IterationScheduler
from cluster.scheduling.limits import IterationLimits
from cluster.scheduling.offload import Offload, OffloadMode
from cluster.scheduling.plan import PlanKind, StepPlan
from cluster.scheduling.stages import StageCosts

MODES = list(OffloadMode)


def random_costs(random: Random) -> StageCosts:
    """Hosts that are hidden easily, hardly, or never."""
    return StageCosts(
        linear=line(random.choice([1e-5, 1e-4]), at_least=random.choice([0.0, 1e-2])),
        prefill=line(1e-8),
        decode=line(1e-7),
        host=line(random.choice([1e-8, 1e-6, 1e-5])),
        exchange=line(0.0, random.choice([0.0, 1e-4, 1e-2])),
    )


@dataclass
class Life:
    """A scheduler of random limits. `computed` is what each request must have in its blocks."""

    seed: int
    mode: OffloadMode
    alive: dict[RequestId, Request] = field(default_factory=dict)
    computed: dict[RequestId, int] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    num_paged: int = 0

    def __post_init__(self) -> None:
        self.random = random = Random(self.seed)
        most = random.randint(1, 8)
        self.limits = IterationLimits(random.randint(most, 64), most, random.randint(0, 6), 400)
        self.pool, host_blocks = BlockPool(random.randint(4, 24)), random.randint(0, 40)
        self.offload = Offload(
            self.mode,
            costs=random_costs(random),
            progress_steps=random.choice([4, 32]),
            host_share=random.choice([0.5, 1.0]),
        )
        cache = no_cache(self.pool, host_blocks)
        self.scheduler = IterationScheduler(self.limits, cache, self.offload)

    def live(self, num_steps: int) -> None:
        for step in range(num_steps):
            if self.random.random() < 0.4:
                self.arrive(step)
            if self.alive and self.random.random() < 0.05:
                self.scheduler.cancelled(self.random.choice(list(self.alive)))
            self.step(step)
        self.end(num_steps)

    def end(self, step: int) -> None:
        """Whoever is left comes to its end, with something computed in every step, and every block
        comes back."""
        for _ in range(5000):
            if not self.scheduler.has_work:
                break
            self.step(step)
        assert not self.scheduler.has_work
        host = self.scheduler.cache.host.pool
        assert (self.pool.num_free, host.num_free) == (self.pool.num_blocks, host.num_blocks)

    def arrive(self, step: int) -> None:
        lengths = [self.random.randint(1, 50) for _ in range(self.random.choice([1, 1, 2, 3]))]
        if self.random.random() < 0.2:
            lengths = [self.random.randint(60, 300)]
        request = Request(
            id=RequestId(f"r{step}"),
            segments=tuple(tuple(range(100, 100 + n)) for n in lengths),
            sampling=Sampling(max_tokens=self.random.randint(1, 40)),
            deadline_s=1e9,
        )
        try:
            self.scheduler.arrived(request, float(step))
        except (InvalidArgument, Overloaded):
            return
        self.alive[request.id] = request
        self.computed[request.id] = 0

    def step(self, step: int) -> None:
        plan = self.scheduler.plan(float(step))
        for finished in plan.finished:
            del self.alive[finished.request_id]
        self.computed.update(dict.fromkeys(plan.preempted, 0))
        self.check(plan)
        self.scheduler.measured(plan.why.times)
        sampled = {c.request_id: 9 for c in plan.chunks if c.sampling is not None}
        for finished in self.scheduler.record(sampled, float(step)).finished:
            del self.alive[finished.request_id]
        self.scheduler.check()
        self.kinds[plan.why.kind] += 1
        self.num_paged += len(plan.moves)

    def check(self, plan: StepPlan) -> None:
        """Rows, seats, blocks and ids: each within its limit, nothing twice."""
        chunks, running = plan.chunks, self.scheduler.requests.running
        assert sum(len(c.token_ids) for c in chunks) <= self.limits.step_tokens
        assert len({c.request_id for c in chunks}) == len(chunks) <= self.limits.max_running
        assert all(plan.batches)
        assert len(plan.batches) == len(plan.why.works) <= 2
        used: set[tuple[bool, int]] = set()
        for chunk in chunks:
            assert chunk.start == self.computed[chunk.request_id]
            end = self.computed[chunk.request_id] = chunk.start + len(chunk.token_ids)
            assert sum(view.num_tokens for view in chunk.segments) == end
            for view in chunk.segments:
                assert len(view.blocks) == blocks_for(view.num_tokens)
                blocks = {(view.home is Home.DEVICE, block) for block in view.blocks}
                assert not used & blocks
                used |= blocks
        assert chunks or not running
        patience = self.offload.progress_steps + 2
        assert all(s.num_skipped <= patience for s in running if s.is_decoding)


@pytest.mark.parametrize("mode", MODES)
def test_plans_hold_every_limit_whatever_happens(mode: OffloadMode) -> None:
    lives = [Life(seed, mode) for seed in range(100)]
    for life in lives:
        life.live(100)
    kinds = sum((life.kinds for life in lives), Counter[str]())
    expected = {PlanKind.GPU_ONLY} if mode is OffloadMode.GPU_ONLY else set(PlanKind)
    assert set(kinds) == expected
    assert any(life.num_paged for life in lives) is (mode is not OffloadMode.GPU_ONLY)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mode", MODES)
def test_plans_hold_every_limit_over_a_million_steps(mode: OffloadMode) -> None:
    for seed in range(1000, 1000 + 3400):
        Life(seed, mode).live(100)


@pytest.mark.parametrize("mode", [OffloadMode.NEO, OffloadMode.ADAPTIVE])
@pytest.mark.parametrize("seed", range(5))
def test_without_pressure_the_plans_are_those_of_the_device_alone(
    mode: OffloadMode, seed: int
) -> None:
    """NEO computes a prompt whole, and so do both where every prompt fits a step."""
    plans = {}
    for each in (OffloadMode.GPU_ONLY, mode):
        random = Random(seed)
        limits = IterationLimits(4096, 32, 32, 400)
        cache = no_cache(BlockPool(4096), 4096)
        scheduler = IterationScheduler(limits, cache, Offload(each, costs=random_costs(random)))
        plans[each] = [story(scheduler, random, step) for step in range(200)]
    assert plans[mode] == plans[OffloadMode.GPU_ONLY]


def story(scheduler: IterationScheduler, random: Random, step: int) -> object:
    if random.random() < 0.3:
        request = Request(
            id=RequestId(f"r{step}"),
            segments=(tuple(range(100, 100 + random.randint(1, 200))),),
            sampling=Sampling(max_tokens=random.randint(1, 40)),
            deadline_s=1e9,
        )
        scheduler.arrived(request, float(step))
    plan = scheduler.plan(float(step))
    scheduler.measured(plan.why.times)
    sampled = {c.request_id: 9 for c in plan.chunks if c.sampling is not None}
    scheduler.record(sampled, float(step))
    return plan.batches, plan.moves, plan.preempted
