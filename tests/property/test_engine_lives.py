"""Thousands of random requests through a real engine on tiny pools: admitted, chunked, preempted,
cancelled, past their deadline. Nothing leaks, nobody is stuck, and whoever ends has the tokens it
would have had alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random

import pytest
import torch

from cluster.clock import ManualClock
from cluster.engine.engine import Engine
from cluster.errors import Overloaded
from cluster.ids import RequestId
from cluster.models.config import decoder_config
from cluster.request import FinishReason, Request, Sampling, TokenIds
from cluster.scheduling.limits import IterationLimits
from tests.engines import Hands, hands_of_every_backend
from tests.tiny_model import tiny_config

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
CONFIG = decoder_config({**tiny_config(vocab_size=64), **SMALL})
NEVER_S = 1e12
NUM_KINDS = 40
# A request that was admitted first is served in every step: this many are far more than it needs.
PATIENCE_STEPS = 4000


@dataclass(frozen=True, slots=True)
class Kind:
    """A request's content; many requests of a kind are sent under different names."""

    segments: tuple[TokenIds, ...]
    sampling: Sampling

    def named(self, name: str, deadline_s: float) -> Request:
        return Request(RequestId(name), self.segments, self.sampling, deadline_s)


def random_kind(random: Random) -> Kind:
    segments = tuple(
        tuple(random.randrange(CONFIG.vocab_size) for _ in range(random.randint(1, 20)))
        for _ in range(random.randint(1, 3))
    )
    sampling = Sampling(
        temperature=random.choice([0.0, 0.9]),
        seed=random.randrange(1000),
        max_tokens=random.choice([1, 3, 8, 40, 70]),
        stop_ids=frozenset(random.sample(range(CONFIG.vocab_size), 2)),
    )
    return Kind(segments, sampling)


def tokens_alone(hands: Hands, kind: Kind) -> list[int]:
    engine = hands.engine(CONFIG, IterationLimits(256, 1, 1, CONFIG.max_position), num_blocks=64)
    engine.submit(kind.named("alone", NEVER_S))
    tokens: list[int] = []
    while engine.has_work:
        tokens += [token for _, token in engine.step().tokens]
    return tokens


@dataclass
class Lives:
    """An engine under random load, and what must come of every request."""

    hands: Hands
    random: Random
    kinds: list[Kind] = field(init=False)
    alone: list[list[int]] = field(init=False)
    engine: Engine = field(init=False)
    clock: ManualClock = field(default_factory=ManualClock)
    of_kind: dict[RequestId, int] = field(default_factory=dict)
    tokens: dict[RequestId, list[int]] = field(default_factory=dict)
    last_progress: dict[RequestId, int] = field(default_factory=dict)
    ended: Counter[FinishReason] = field(default_factory=Counter)
    num_admitted: int = 0
    num_refused: int = 0
    num_preempted: int = 0
    num_steps: int = 0

    def __post_init__(self) -> None:
        self.kinds = [random_kind(self.random) for _ in range(NUM_KINDS)]
        self.alone = [tokens_alone(self.hands, kind) for kind in self.kinds]
        self.restart()

    def restart(self) -> None:
        """An engine with other limits: as few blocks as the largest request needs."""
        random = self.random
        max_running = random.randint(2, 8)
        limits = IterationLimits(
            step_tokens=random.randint(max_running, 50),
            max_running=max_running,
            max_waiting=random.randint(0, 8),
            context_tokens=CONFIG.max_position,
        )
        num_blocks = random.randint(10, 12)
        self.engine = self.hands.engine(CONFIG, limits, num_blocks, self.clock)

    def run(self, num_requests: int) -> None:
        """Until so many were admitted; a new engine every few hundred steps."""
        while self.num_admitted < num_requests:
            for _ in range(300):
                self.act()
            self.drain()
            self.restart()

    def act(self) -> None:
        for _ in range(self.random.choice([0, 0, 0, 0, 1, 1, 4])):
            self.send()
        if self.tokens and self.random.random() < 0.1:
            self.engine.cancel(self.random.choice(list(self.tokens)))
        self.step()

    def send(self) -> None:
        number = self.random.randrange(NUM_KINDS)
        patience_s = self.random.choice([NEVER_S, NEVER_S, NEVER_S, 40.0])
        name = f"r{self.num_admitted + self.num_refused}"
        request = self.kinds[number].named(name, self.clock.now_s() + patience_s)
        try:
            self.engine.submit(request)
        except Overloaded:
            self.num_refused += 1
            return
        self.num_admitted += 1
        self.of_kind[request.id] = number
        self.tokens[request.id] = []

    def step(self) -> None:
        self.num_steps += 1
        self.clock.advance(1.0)
        report = self.engine.step()
        self.engine.scheduler.check()
        self.num_preempted += report.num_preempted
        for request_id, token in report.tokens:
            self.tokens[request_id].append(token)
        for finished in report.finished:
            self.end(finished.request_id, finished.reason)

    def end(self, request_id: RequestId, reason: FinishReason) -> None:
        self.ended[reason] += 1
        tokens, alone = self.tokens.pop(request_id), self.alone[self.of_kind.pop(request_id)]
        if reason in (FinishReason.STOP, FinishReason.LENGTH):
            assert tokens == alone
        else:
            assert tokens == alone[: len(tokens)]

    def drain(self) -> None:
        for _ in range(PATIENCE_STEPS):
            if not self.engine.has_work:
                break
            self.step()
        assert not self.engine.has_work
        assert not self.tokens
        pool = self.engine.scheduler.pool
        assert pool.num_free == pool.num_blocks


def assert_lives_end_well(hands: Hands, num_requests: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    lives = Lives(hands, Random(2024))
    lives.run(num_requests)
    torch.set_num_threads(before)
    # A run in which one of these never happened would show nothing.
    assert all(lives.ended[reason] for reason in FinishReason)
    assert lives.num_preempted > num_requests / 50
    assert lives.num_refused


@pytest.mark.parametrize("hands", hands_of_every_backend(), ids=str)
def test_ten_thousand_lives_on_tiny_pools(hands: Hands) -> None:
    assert_lives_end_well(hands, 10_000 if hands.is_fast else 300)


@pytest.mark.long
@pytest.mark.parametrize("hands", hands_of_every_backend(), ids=str)
def test_a_hundred_thousand_lives_on_tiny_pools(hands: Hands) -> None:
    assert_lives_end_well(hands, 100_000 if hands.is_fast else 10_000)
