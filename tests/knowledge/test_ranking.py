"""Frequencies, costs, clocks, ghosts and policies against values worked out by hand."""

from __future__ import annotations

from math import inf

import pytest

from cluster.blocks.pool import blocks_for
from cluster.errors import InvariantBroken
from cluster.ids import BlockId
from cluster.knowledge.candidates import Candidates
from cluster.knowledge.ghosts import Ghosts, History
from cluster.knowledge.keys import ROOT, NodeKey
from cluster.knowledge.node import Node, Tier
from cluster.knowledge.policies import POLICIES, PolicyName, Standing
from cluster.knowledge.ranking import Ranking
from cluster.request import SegmentSource

ABOVE = Node(ROOT, None, SegmentSource(), 0, History())


def key_of(number: int) -> NodeKey:
    return NodeKey(number.to_bytes(16, "little"))


def ranking(policy: PolicyName = PolicyName.PGDSF, kept_blocks: int = 0) -> Ranking:
    return Ranking(policy, 10.0, kept_blocks, Ghosts(3))


def newcomer(of: Ranking, number: int, document_id: str = "d", num_tokens: int = 16) -> Node:
    return of.newcomer(ABOVE, key_of(number), SegmentSource("c", document_id), num_tokens)


@pytest.mark.parametrize(
    ("policy", "priority"), [("lru", 9.0), ("lfu", 3.0), ("gdsf", 13.0), ("pgdsf", 11.5)]
)
def test_each_policy_is_its_formula(policy: str, priority: float) -> None:
    standing = Standing(clock=10.0, frequency=3.0, cost_s=0.5, last_access=9)
    assert POLICIES[PolicyName(policy)](standing) == priority


def test_every_policy_has_a_formula() -> None:
    assert POLICIES.keys() == set(PolicyName)


def test_an_old_access_counts_half_after_each_half_life() -> None:
    history = History()
    history.accessed(5, half_life=10.0)
    assert history.frequency == 1.0
    assert not history.is_reused
    history.accessed(15, half_life=10.0)
    assert history.frequency == 1.5
    assert history.is_reused
    history.accessed(35, half_life=10.0)
    assert history.frequency == 1.375  # 1.5 / 4 + 1
    assert history.last_access == 35


def test_the_cost_is_the_mean_over_the_misses_and_a_hit_leaves_it() -> None:
    history = History()
    assert history.cost_s == 0.0
    history.missed(0.2)
    history.missed(0.4)
    history.accessed(1, half_life=10.0)
    assert history.cost_s == pytest.approx(0.3)


def test_a_node_that_comes_back_is_no_stranger() -> None:
    ghosts = Ghosts(2)
    past = History(4.0, 0.6, 2, 7)
    ghosts.remember(key_of(1), past)
    assert ghosts.recall(key_of(1)) is past
    assert ghosts.recall(key_of(1)) == History()


def test_ghosts_are_bounded_and_whoever_left_longest_ago_is_forgotten() -> None:
    ghosts = Ghosts(2)
    for number in (1, 2, 1, 3):
        ghosts.remember(key_of(number), History(float(number)))
        ghosts.check()
    assert len(ghosts) == 2
    assert ghosts.recall(key_of(2)) == History()
    assert ghosts.recall(key_of(1)).frequency == 1.0
    assert ghosts.recall(key_of(3)).frequency == 3.0


def test_without_room_for_ghosts_everybody_is_a_stranger() -> None:
    ghosts = Ghosts(0)
    ghosts.remember(key_of(1), History(5.0))
    assert ghosts.recall(key_of(1)) == History()


def test_a_clock_is_the_highest_priority_that_left_its_tier() -> None:
    rank = ranking()
    node = newcomer(rank, 1)
    for priority, clock in ((5.0, 5.0), (3.0, 5.0), (8.0, 8.0)):
        node.priority[Tier.DEVICE] = priority
        rank.left(node, Tier.DEVICE)
        assert rank.clocks == [0.0, 0.0, 0.0, clock]
    node.priority[Tier.HOST] = 2.0
    rank.left(node, Tier.HOST)
    assert rank.clocks == [0.0, 0.0, 2.0, 8.0]


def test_an_access_ranks_a_node_by_the_clock_of_each_tier_that_has_it() -> None:
    rank = ranking()
    rank.clocks = [0.0, 30.0, 20.0, 10.0]
    node = newcomer(rank, 1)
    node.device, node.host = (BlockId(0),), (BlockId(0),)
    node.history.missed(0.5)
    rank.accessed(node)
    assert node.priority == [0.0, 0.0, 20.5, 10.5]
    rank.accessed(node)
    frequency = 1 + 0.5**0.1
    assert node.priority[Tier.DEVICE] == pytest.approx(10 + 0.5 * frequency)
    assert rank.num_accesses == 2


def test_a_priority_is_that_of_the_last_access_however_long_ago_it_was() -> None:
    rank = ranking(PolicyName.GDSF)
    old, new = newcomer(rank, 1), newcomer(rank, 2)
    old.device = new.device = (BlockId(0),)
    for _ in range(3):
        rank.accessed(old)
    rank.clocks[Tier.DEVICE] = 5.0
    rank.accessed(new)
    assert old.priority[Tier.DEVICE] < new.priority[Tier.DEVICE] == 6.0


def test_system_prompts_are_kept_for_good_within_the_bound() -> None:
    rank = ranking(kept_blocks=3)
    first = newcomer(rank, 1, "", num_tokens=17)
    second = newcomer(rank, 2, "", num_tokens=32)
    third = newcomer(rank, 3, "", num_tokens=3)
    document = newcomer(rank, 4, "d", num_tokens=3)
    assert [n.is_kept for n in (first, second, third, document)] == [True, False, True, False]
    assert rank.num_kept == 3 == blocks_for(17) + blocks_for(3)
    rank.rank(first, Tier.DEVICE)
    assert first.priority[Tier.DEVICE] == inf
    rank.left(first, Tier.DEVICE)
    assert rank.clocks[Tier.DEVICE] == 0.0
    rank.check([first, second, third, document])
    rank.forgot(first)
    assert newcomer(rank, 2, "", num_tokens=32).is_kept
    with pytest.raises(InvariantBroken, match="kept for good"):
        rank.check([first])


def test_candidates_come_up_by_priority_then_by_age() -> None:
    rank, candidates = ranking(), Candidates()
    nodes = [newcomer(rank, number) for number in range(5)]
    for node, priority in zip(nodes, (2.0, 1.0, 2.0, 1.0, 0.0), strict=True):
        candidates.put(node, priority)
    candidates.put(nodes[0], 2.0)  # nothing new: it keeps its age
    candidates.put(nodes[1], 3.0)
    candidates.discard(nodes[4])
    candidates.check()
    left = [candidates.pop() for _ in nodes]
    assert left == [nodes[3], nodes[0], nodes[2], nodes[1], None]


def test_a_heap_does_not_grow_with_what_has_changed() -> None:
    rank, candidates = ranking(), Candidates()
    nodes = [newcomer(rank, number) for number in range(3)]
    for turn in range(1000):
        for node in nodes:
            candidates.put(node, float(turn))
        candidates.check()
    assert len(candidates._heap) < 100
    assert [candidates.pop() for _ in nodes] == nodes
