"""What stays on the device, what goes to the host, and what comes back."""

from __future__ import annotations

import pytest

from cluster.blocks.pool import BlockPool
from cluster.errors import InvariantBroken
from cluster.ids import BlockId, RequestId
from cluster.knowledge.cache import KnowledgeCache, Visit, Way, no_cache
from cluster.knowledge.commands import (
    Clear,
    SwapIn,
    SwapOut,
)
from cluster.knowledge.counts import Eviction
from cluster.knowledge.node import Admission, Placement, Tier
from cluster.knowledge.policies import PolicyName
from cluster.request import Request, Sampling, SegmentSource
from tests.knowledge.caches import cache_of, compute, empty_device, finish, key_of, use
from tests.knowledge.visitors import FINGERPRINT
from tests.knowledge.world import PREFILL, TRANSFER


def test_a_node_is_copied_to_the_host_when_it_first_leaves_and_never_again() -> None:
    cache = cache_of(4, host_blocks=8)
    node = compute(cache, "d1", num_blocks=3)
    device = node.device
    empty_device(cache)
    (out,) = cache.take_moves()
    assert isinstance(out, SwapOut)
    assert (out.record.key, out.device, out.host) == (node.key, device, node.host)
    cache.pin(node)
    assert cache.way(node, Visit()) is Way.LOAD
    cache.load(node)
    assert cache.take_moves() == (SwapIn(node.key, node.host, node.device),)
    cache.unpin([node])
    empty_device(cache)
    assert cache.take_moves() == ()
    assert cache.counts.moved_blocks[Tier.DEVICE, Tier.HOST] == 3
    assert cache.counts.moved_blocks[Tier.HOST, Tier.DEVICE] == 3
    assert cache.counts.evictions == {
        (Tier.DEVICE, Eviction.MOVED): 1,
        (Tier.DEVICE, Eviction.COPY): 1,
    }


def test_without_a_host_whoever_leaves_the_device_is_gone() -> None:
    cache = cache_of(4)
    compute(cache, "d1")
    empty_device(cache)
    assert not cache.tree.nodes
    assert cache.take_moves() == ()
    assert cache.counts.evictions == {(Tier.DEVICE, Eviction.DROPPED): 1}


def test_leaves_go_before_their_parent_whatever_their_priority() -> None:
    cache = cache_of(4)
    parent = compute(cache, "d1")
    cache.pin(parent)
    child = compute(cache, "d2", parent)
    use(cache, child, 5)
    cache.unpin([parent])
    cache.make_room(3)
    assert cache.find(parent.key) is parent
    assert cache.find(child.key) is None


@pytest.mark.parametrize(
    ("policy", "victim"), [("lru", "d1"), ("lfu", "d2"), ("gdsf", "d2"), ("pgdsf", "d3")]
)
def test_each_policy_has_its_own_victim(policy: str, victim: str) -> None:
    cache = cache_of(3, policy=PolicyName(policy))
    nodes = [compute(cache, f"d{i}") for i in (1, 2, 3)]
    use(cache, nodes[0], 3)
    nodes[2].history.cost_sum_s = 0.01
    use(cache, nodes[1])
    use(cache, nodes[2], 2)
    cache.make_room(1)
    gone = [node.key for node in nodes if cache.find(node.key) is None]
    assert gone == [key_of(victim)]


def test_a_pinned_node_and_all_above_it_stay() -> None:
    cache = cache_of(3, host_blocks=8)
    parent = compute(cache, "d1")
    cache.pin(parent)
    child = compute(cache, "d2", parent)
    cache.pin(child)
    compute(cache, "d3")
    assert cache.num_available == 1
    assert cache.make_room(1)
    assert not cache.make_room(2)
    assert parent.device
    assert child.device
    cache.unpin([parent, child])
    assert cache.num_available == 3
    assert cache.make_room(3)


def test_unpinning_what_was_not_pinned_is_found_out() -> None:
    cache = cache_of(1)
    node = compute(cache, "d1")
    with pytest.raises(InvariantBroken, match="was not pinned"):
        cache.unpin([node])


def test_a_node_that_is_there_already_leaves_the_blocks_to_whoever_brought_them() -> None:
    cache = cache_of(4)
    first = compute(cache, "d1")
    blocks = cache.pool.allocate(1)
    assert cache.insert(None, first.key, first.source, 16, blocks) is first
    assert first.device != blocks
    cache.pool.release(blocks)
    cache.check()


def test_with_admission_of_reused_ones_a_full_host_takes_no_one_hit_node() -> None:
    cache = cache_of(2, host_blocks=1, admission=Admission.REUSED)
    resident = compute(cache, "d1")
    empty_device(cache)
    compute(cache, "d2")
    empty_device(cache)
    assert set(cache.tree.nodes) == {resident.key}
    reused = compute(cache, "d3")
    use(cache, reused)
    empty_device(cache)
    assert set(cache.tree.nodes) == {reused.key}


def test_with_admission_of_all_the_last_to_leave_the_device_is_on_the_host() -> None:
    cache = cache_of(2, host_blocks=1, admission=Admission.ALL)
    for name in ("d1", "d2"):
        compute(cache, name)
        empty_device(cache)
    assert set(cache.tree.nodes) == {key_of("d2")}


def test_a_node_that_comes_back_remembers_its_past() -> None:
    cache = cache_of(1)
    use(cache, compute(cache, "d1"), 2)
    empty_device(cache)
    again = compute(cache, "d1")
    assert again.history.frequency == pytest.approx(4.0, rel=1e-3)
    assert again.history.num_costs == 2


@pytest.mark.parametrize("policy", PolicyName)
def test_kept_system_prompts_are_the_last_to_leave_and_within_the_bound(policy: PolicyName) -> None:
    cache = cache_of(6, policy=policy, kept_blocks=3, host_blocks=6)
    kept = compute(cache, "house", num_blocks=2)
    other = compute(cache, "other", num_blocks=2)
    assert (kept.is_kept, other.is_kept) == (True, False)
    document = compute(cache, "d1", num_blocks=2)
    use(cache, document, 9)
    use(cache, other, 9)
    cache.make_room(4)
    assert [bool(node.device) for node in (kept, other, document)] == [True, False, False]
    cache.make_room(6)
    assert not kept.device
    # The host is full: the kept one's copy outlives all others.
    for number in range(2, 6):
        use(cache, compute(cache, f"d{number}", num_blocks=2), 9)
        empty_device(cache)
    assert kept.host
    assert not other.host


def test_what_is_above_a_document_is_copied_into_free_room_and_takes_nobodys_place() -> None:
    cache = cache_of(4, host_blocks=3)
    other = compute(cache, "d9")
    empty_device(cache)
    assert other.host
    parent = compute(cache, "d1")
    cache.pin(parent)
    first, second = compute(cache, "d2", parent), compute(cache, "d3", parent)
    cache.make_room(2)
    assert (bool(parent.host), bool(first.host)) == (True, True)
    # The host is full by now, and the other of them was used but once.
    cache.make_room(3)
    assert second.nearest is None
    assert other.host
    cache.check()


def test_the_last_free_room_is_the_documents_own() -> None:
    cache = cache_of(4, host_blocks=2)
    other = compute(cache, "d9")
    empty_device(cache)
    parent = compute(cache, "d1")
    cache.pin(parent)
    child = compute(cache, "d2", parent)
    cache.make_room(3)
    assert (bool(child.host), parent.host, bool(other.host)) == (True, (), True)


def test_loading_is_weighed_against_computing() -> None:
    cache = cache_of(2, host_blocks=2)
    node = compute(cache, "d1")
    empty_device(cache)
    assert cache.way(node, Visit()) is Way.LOAD
    # At 16 tokens computing takes 1 + 15 / 63 seconds.
    for host_block_s, way in ((1.2, Way.LOAD), (1.3, Way.COMPUTE)):
        slow = KnowledgeCache(
            cache.options, FINGERPRINT, BlockPool(2), PREFILL, type(TRANSFER)(host_block_s, 0.0)
        )
        node = compute(slow, "d1")
        empty_device(slow)
        assert slow.way(node, Visit()) is way


def test_with_placement_by_segment_a_parent_leaves_before_its_child() -> None:
    cache = cache_of(3, host_blocks=4, placement=Placement.SEGMENT)
    parent = compute(cache, "d1")
    cache.pin(parent)
    child = compute(cache, "d2", parent)
    use(cache, child, 5)
    cache.unpin([parent])
    assert cache.make_room(2)
    assert parent.nearest is Tier.HOST
    assert child.nearest is Tier.DEVICE
    cache.check()


def test_with_placement_by_segment_a_parent_with_no_place_below_outlasts_its_child() -> None:
    cache = cache_of(3, host_blocks=1, placement=Placement.SEGMENT, admission=Admission.ALL)
    parent = compute(cache, "d1", num_blocks=2)
    cache.pin(parent)
    child = compute(cache, "d2", parent)
    use(cache, child, 5)
    cache.unpin([parent])
    assert cache.make_room(1)
    assert parent.device
    assert not child.device
    empty_device(cache)
    assert not cache.tree.nodes


def test_blocks_of_the_host_that_are_given_up_are_cleared_after_their_last_use() -> None:
    cache = cache_of(1, host_blocks=1, admission=Admission.ALL)
    first = compute(cache, "d1")
    empty_device(cache)
    second = compute(cache, "d2")
    empty_device(cache)
    block = (BlockId(0),)
    out, clear, again = cache.take_moves()
    assert isinstance(out, SwapOut)
    assert isinstance(again, SwapOut)
    assert (out.record.key, clear, again.record.key) == (first.key, Clear(block), second.key)


def test_a_damaged_copy_is_counted_and_gone_with_all_that_needs_it() -> None:
    cache = cache_of(3, host_blocks=3)
    parent = compute(cache, "d1")
    cache.pin(parent)
    compute(cache, "d2", parent)
    cache.unpin([parent])
    empty_device(cache)
    cache.pin(parent)
    cache.load(parent)
    with pytest.raises(InvariantBroken, match="in use"):
        cache.damaged(parent.key)
    cache.unpin([parent])
    cache.damaged(parent.key)
    cache.check()
    assert not cache.tree.nodes
    assert cache.counts.faults == {Tier.HOST: 1}
    assert (cache.pool.num_free, cache.host.pool.num_free) == (3, 3)


def test_a_damaged_copy_of_what_is_on_disk_is_read_again() -> None:
    cache = cache_of(3, host_blocks=1, disk_blocks=4)
    node = compute(cache, "d1")
    empty_device(cache)
    assert finish(cache) == [node.key]
    cache.pin(node)
    cache.load(node)
    cache.unpin([node])
    cache.damaged(node.key)
    cache.check()
    assert node.nearest is Tier.DISK
    assert cache.way(node, Visit()) is Way.WAIT


def test_a_cache_that_is_off_names_nothing() -> None:
    source = SegmentSource("c", "d1")
    request = Request(RequestId("r"), ((1,), (2,)), Sampling(1), 1e9, sources=(source,))
    assert no_cache(BlockPool(2)).chain(request) == ()
    assert len(cache_of(2).chain(request)) == 1
