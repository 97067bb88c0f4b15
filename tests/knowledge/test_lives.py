"""The knowledge cache against random lives of requests, disks and processes, on tiny pools."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cluster.knowledge.cache import CacheOptions, HostUse
from cluster.knowledge.node import Admission, Placement
from cluster.knowledge.policies import PolicyName
from tests.knowledge.visitors import path
from tests.knowledge.world import World

SALTS = (b"", b"tenant")
SYSTEMS = ("s", "sys")
DOCUMENTS = ("a", "b", "cc", "d")
PATHS = [
    path(salt, system, *documents)
    for salt in SALTS
    for system in SYSTEMS
    for length in range(4)
    for documents in product(DOCUMENTS, repeat=length)
    if len(set(documents)) == length
]
# Blocks of the host, of the disk.
TIERS = ((0, 0), (4, 0), (12, 0), (4, 6), (12, 20))


@st.composite
def options(draw: st.DrawFn) -> CacheOptions:
    host_blocks, disk_blocks = draw(st.sampled_from(TIERS))
    return CacheOptions(
        policy=draw(st.sampled_from(PolicyName)),
        placement=draw(st.sampled_from(Placement)),
        admission=draw(st.sampled_from(Admission)),
        host_use=draw(st.sampled_from(HostUse)),
        host_blocks=host_blocks,
        disk_blocks=disk_blocks,
        kept_blocks=draw(st.sampled_from((0, 2, 5))),
        half_life=7.0,
    )


class Lives(RuleBasedStateMachine):
    """The naive model is in `World`: what every memory must hold, and who must leave."""

    @initialize(options=options(), device_blocks=st.integers(4, 14))
    def start(self, options: CacheOptions, device_blocks: int) -> None:
        self.world = World(options, device_blocks)

    @rule(which=st.integers(0, len(PATHS) - 1))
    def arrive(self, which: int) -> None:
        if len(self.world.visitors) < 4:
            self.world.advance(self.world.arrive(PATHS[which]))

    @rule(pick=st.integers(0, 3))
    def advance(self, pick: int) -> None:
        visitors = self.world.visitors
        if visitors:
            self.world.advance(visitors[pick % len(visitors)])

    @rule(pick=st.integers(0, 3))
    def leave(self, pick: int) -> None:
        visitors = self.world.visitors
        if visitors:
            self.world.leave(visitors[pick % len(visitors)])

    @rule(seconds=st.sampled_from((1.0, 40.0)))
    def step(self, seconds: float) -> None:
        self.world.step(seconds)

    @rule(count=st.integers(0, 15))
    def make_room(self, count: int) -> None:
        self.world.make_room(count)

    @rule(pick=st.integers(0, 9), is_good=st.sampled_from((True, True, True, False)))
    def do_command(self, pick: int, is_good: bool) -> None:
        self.world.memories.do_command(pick, is_good)

    @rule(pick=st.integers(0, 9))
    def answer(self, pick: int) -> None:
        self.world.answer(pick)

    @rule(pick=st.integers(0, 30))
    def damage(self, pick: int) -> None:
        self.world.memories.damage(pick)

    @rule(is_host_lost=st.booleans())
    def restart(self, is_host_lost: bool) -> None:
        self.world.restart(is_host_lost)

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self) -> None:
        """Everybody leaves, the disk answers all, and the device can be emptied."""
        world = self.world
        for visitor in list(world.visitors):
            world.leave(visitor)
        world.step()
        world.settle()
        assert world.make_room(world.device_blocks)
        world.step()
        world.check()


Lives.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestLives = Lives.TestCase


def live(world: World, random: Random, num_operations: int) -> None:
    """Operations as they come in a service: rarely an accident."""

    def anybody(act: Callable[..., object]) -> None:
        if world.visitors:
            act(random.choice(world.visitors))

    for _ in range(num_operations):
        chance = random.random()
        if chance < 0.2 and len(world.visitors) < 4:
            world.advance(world.arrive(PATHS[int(len(PATHS) * random.random() ** 2)]))
        elif chance < 0.4:
            anybody(world.advance)
        elif chance < 0.52:
            anybody(world.leave)
        elif chance < 0.75:
            world.step(random.choice((0.1, 20.0)))
        elif chance < 0.85:
            world.memories.do_command(random.randrange(9), random.random() < 0.95)
        elif chance < 0.97:
            world.answer(random.randrange(9))
        elif chance < 0.98:
            world.make_room(random.randrange(world.device_blocks))
        elif chance < 0.999:
            world.memories.damage(random.randrange(99))
        else:
            world.restart(random.random() < 0.3)
        world.check()


def random_world(random: Random) -> World:
    host_blocks, disk_blocks = random.choice(TIERS)
    options = CacheOptions(
        policy=random.choice(list(PolicyName)),
        placement=random.choice(list(Placement)),
        admission=random.choice(list(Admission)),
        host_blocks=host_blocks,
        disk_blocks=disk_blocks,
        kept_blocks=random.choice((0, 2, 5)),
        half_life=20.0,
        host_use=random.choice(list(HostUse)),
    )
    return World(options, random.randint(6, 16))


def test_ten_thousand_random_operations_keep_every_copy_right() -> None:
    num_attended = 0
    for seed in range(40):
        random = Random(seed)
        world = random_world(random)
        live(world, random, 250)
        num_attended += world.num_attended
    assert num_attended > 100


@pytest.mark.long
def test_a_hundred_thousand_random_operations_keep_every_copy_right() -> None:
    for seed in range(100, 150):
        random = Random(seed)
        live(random_world(random), random, 2000)
