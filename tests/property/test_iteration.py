"""The iteration scheduler against random lives of many requests on tiny pools."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cluster.blocks.pool import BlockPool
from cluster.errors import InvalidArgument, Overloaded
from cluster.ids import RequestId
from cluster.knowledge.cache import no_cache
from cluster.request import FinishReason, Request, Sampling
from cluster.scheduling.iteration import IterationScheduler
from cluster.scheduling.limits import IterationLimits
from cluster.scheduling.plan import StepPlan

STOP_ID = 7


class Lives(RuleBasedStateMachine):
    """A naive model beside the scheduler: for each request the tokens it must end up with."""

    def __init__(self) -> None:
        super().__init__()
        self.start(blocks=8, step_tokens=8, max_running=2, max_waiting=2)

    @initialize(
        blocks=st.integers(4, 24),
        step_tokens=st.integers(4, 40),
        max_running=st.integers(1, 4),
        max_waiting=st.integers(0, 6),
    )
    def start(self, blocks: int, step_tokens: int, max_running: int, max_waiting: int) -> None:
        limits = IterationLimits(step_tokens, max_running, max_waiting, context_tokens=200)
        self.scheduler = IterationScheduler(limits, no_cache(BlockPool(blocks)))
        self.now_s = 0.0
        self.num_requests = 0
        self.alive: dict[RequestId, Request] = {}
        self.output: dict[RequestId, list[int]] = {}
        self.computed: dict[RequestId, list[int]] = {}
        self.ended: dict[RequestId, FinishReason] = {}

    @rule(
        lengths=st.lists(st.integers(1, 50), min_size=1, max_size=4),
        max_tokens=st.integers(1, 20),
        patience_s=st.sampled_from([3.0, 1e9]),
    )
    def arrive(self, lengths: list[int], max_tokens: int, patience_s: float) -> None:
        self.num_requests += 1
        request = Request(
            id=RequestId(f"r{self.num_requests}"),
            segments=tuple(tuple(range(100, 100 + n)) for n in lengths),
            sampling=Sampling(max_tokens=max_tokens, stop_ids=frozenset({STOP_ID})),
            deadline_s=self.now_s + patience_s,
        )
        try:
            self.scheduler.arrived(request, self.now_s)
        except (InvalidArgument, Overloaded):
            return
        self.alive[request.id] = request
        self.output[request.id] = []
        self.computed[request.id] = []

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.scheduler.cancelled(data.draw(st.sampled_from(list(self.alive))))

    @rule(seed=st.integers(0, 2**32), seconds=st.sampled_from([0.1, 2.0]))
    def step(self, seed: int, seconds: float) -> None:
        self.now_s += seconds
        plan = self.scheduler.plan(self.now_s)
        for finished in plan.finished:
            self.end(finished.request_id, finished.reason)
        for request_id in plan.preempted:
            self.computed[request_id].clear()
        self.check_plan(plan)
        random = Random(seed)
        sampled = {
            chunk.request_id: STOP_ID if random.random() < 0.1 else random.randrange(10, 99)
            for chunk in plan.chunks
            if chunk.sampling is not None
        }
        outcome = self.scheduler.record(sampled, self.now_s)
        for request_id, token in outcome.tokens:
            self.output[request_id].append(token)
        for finished in outcome.finished:
            self.end(finished.request_id, finished.reason)

    def check_plan(self, plan: StepPlan) -> None:
        """Every chunk continues exactly where its request stands, in blocks of its own."""
        used: set[int] = set()
        assert sum(len(c.token_ids) for c in plan.chunks) <= self.scheduler.limits.step_tokens
        for chunk in plan.chunks:
            request = self.alive[chunk.request_id]
            tokens = [t for s in request.segments for t in s] + self.output[request.id]
            done = self.computed[request.id]
            assert chunk.start == len(done)
            done.extend(chunk.token_ids)
            assert done == tokens[: len(done)]
            assert (chunk.sampling is not None) == (len(done) == len(tokens))
            assert sum(view.num_tokens for view in chunk.segments) == len(done)
            for view in chunk.segments:
                assert len(view.blocks) == -(-view.num_tokens // 16)
                assert not used & set(view.blocks)
                used |= set(view.blocks)

    def end(self, request_id: RequestId, reason: FinishReason) -> None:
        request = self.alive.pop(request_id)
        self.ended[request_id] = reason
        if reason is FinishReason.LENGTH:
            assert len(self.output[request_id]) == request.sampling.max_tokens
        if reason is FinishReason.DEADLINE:
            assert self.now_s >= request.deadline_s

    @invariant()
    def holds(self) -> None:
        self.scheduler.check()

    def teardown(self) -> None:
        """Whatever is left comes to its end, and every block comes back."""
        for _ in range(2000):
            if not self.scheduler.has_work:
                break
            self.step(seed=1, seconds=0.1)
        assert not self.scheduler.has_work
        assert not self.alive
        assert self.scheduler.pool.num_free == self.scheduler.pool.num_blocks


Lives.TestCase.settings = settings(max_examples=100, stateful_step_count=50)
TestLives = Lives.TestCase


@pytest.mark.long
def test_random_lives_in_large_numbers() -> None:
    for seed in range(400):
        random = Random(seed)
        machine = Lives()
        machine.start(
            random.randint(4, 24), random.randint(4, 40), random.randint(1, 4), random.randint(0, 6)
        )
        for _ in range(250):
            if random.random() < 0.3:
                lengths = [random.randint(1, 50) for _ in range(random.randint(1, 4))]
                machine.arrive(lengths, random.randint(1, 20), random.choice([3.0, 1e9]))
            elif random.random() < 0.1 and machine.alive:
                machine.scheduler.cancelled(random.choice(sorted(machine.alive)))
            else:
                machine.step(random.randrange(2**32), random.choice([0.1, 2.0]))
            machine.holds()
        machine.teardown()


def test_the_oldest_request_advances_at_every_step_whatever_the_pressure() -> None:
    limits = IterationLimits(step_tokens=16, max_running=4, max_waiting=8, context_tokens=200)
    scheduler = IterationScheduler(limits, no_cache(BlockPool(5)))
    for i in range(6):
        prompt = (tuple(range(20 + i)),)
        scheduler.arrived(Request(RequestId(f"r{i}"), prompt, Sampling(max_tokens=30), 1e9), 0.0)
    order: list[RequestId] = []
    while scheduler.has_work:
        plan = scheduler.plan(0.0)
        assert plan.chunks
        sampled = {c.request_id: 50 for c in plan.chunks if c.sampling is not None}
        order += [f.request_id for f in scheduler.record(sampled, 0.0).finished]
        scheduler.check()
    assert order == [f"r{i}" for i in range(6)]


def test_a_request_that_can_never_fit_is_refused_with_both_numbers() -> None:
    limits = IterationLimits(step_tokens=16, max_running=4, max_waiting=8, context_tokens=100)
    scheduler = IterationScheduler(limits, no_cache(BlockPool(4)))
    sampling = Sampling(max_tokens=20)
    too_long = Request(RequestId("a"), (tuple(range(90)),), sampling, 1e9)
    with pytest.raises(InvalidArgument, match=r"90 prompt tokens and max_tokens 20 exceed.* 100"):
        scheduler.arrived(too_long, 0.0)
    too_large = Request(RequestId("b"), (tuple(range(70)),), sampling, 1e9)
    with pytest.raises(InvalidArgument, match=r"need 6 KV blocks .* the worker has 4"):
        scheduler.arrived(too_large, 0.0)
