"""What a worker says of itself is what it holds, and what it counts as paged is what was moved."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest

from cluster.blocks.segment import Home
from cluster.knowledge.commands import PageIn, PageOut
from cluster.knowledge.node import Tier
from cluster.knowledge.snapshot import sums
from cluster.scheduling.offload import OffloadMode
from cluster.scheduling.plan import StepPlan
from tests.property.test_offload_modes import Life

WAYS = {PageOut: (Tier.DEVICE, Tier.HOST), PageIn: (Tier.HOST, Tier.DEVICE)}


@dataclass
class Watched(Life):
    """A life whose loads and counts are looked at in every step."""

    paged: Counter[tuple[Tier, Tier]] = field(default_factory=Counter)

    def check(self, plan: StepPlan) -> None:
        super().check(plan)
        for move in plan.moves:
            if isinstance(move, PageOut | PageIn):
                self.paged[WAYS[type(move)]] += len(move.host)
        now = sums(self.scheduler.cache)
        assert now.paged_blocks == self.paged
        load, cache = self.scheduler.load(), self.scheduler.cache
        running = self.scheduler.requests.running
        assert load.num_free_blocks + load.num_evictable_blocks == cache.num_available
        assert load.num_lent_host_blocks == sum(s.num_own_blocks(Home.HOST) for s in running)
        assert load.num_lent_host_blocks <= load.num_host_blocks
        assert load.num_on_host == sum(s.home is Home.HOST for s in running)
        if held := now.held.get(Tier.HOST):
            assert held.num_lent == load.num_lent_host_blocks
            assert held.num_free + held.num_lent <= held.num_blocks


@pytest.mark.parametrize("mode", list(OffloadMode))
def test_loads_and_counts_are_what_is_there(mode: OffloadMode) -> None:
    lives = [Watched(seed, mode) for seed in range(12)]
    for life in lives:
        life.live(60)
    is_used = mode is not OffloadMode.GPU_ONLY
    assert any(sum(life.paged.values()) for life in lives) is is_used
    assert any(life.scheduler.load().num_host_blocks for life in lives) is is_used
