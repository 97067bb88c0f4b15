"""What is written behind, and what a full or failing disk gives up."""

from __future__ import annotations

import pytest

from cluster.errors import InvariantBroken
from cluster.knowledge.cache import KnowledgeCache
from cluster.knowledge.commands import (
    Delete,
    DiskDone,
    SwapOut,
    Write,
)
from cluster.knowledge.counts import Eviction
from cluster.knowledge.node import Admission, Node, Tier
from tests.knowledge.caches import cache_of, chain_of, compute, empty_device, finish, key_of, use


def lose_on_host(cache: KnowledgeCache, node: Node) -> None:
    """Its copy there goes before those under it: only damage does that."""
    cache.host.free(node.host)
    cache.tree.put_host(node, ())


def test_a_disk_needs_a_host() -> None:
    with pytest.raises(InvariantBroken, match="without a host"):
        cache_of(1, disk_blocks=3)


def test_parents_are_written_before_their_children_and_all_of_them_in_the_end() -> None:
    cache = cache_of(6, host_blocks=6, disk_blocks=9)
    nodes = chain_of(cache, "house", "d1", "d2", "d3", "d4")
    empty_device(cache)
    assert finish(cache) == [node.key for node in nodes]
    assert all(node.on_disk for node in nodes)


def test_a_parent_on_the_device_is_copied_in_one_step_and_written_in_a_later_one() -> None:
    cache = cache_of(6, host_blocks=5, disk_blocks=9)
    parent = compute(cache, "d1")
    cache.pin(parent)
    child = compute(cache, "d2", parent, num_blocks=4)
    assert cache.make_room(2)
    assert child.host
    lose_on_host(cache, parent)
    cache.take_moves()
    assert cache.take_disk_commands(0.0) == ()
    (out,) = cache.take_moves()
    assert isinstance(out, SwapOut)
    assert out.record.key == parent.key
    (write,) = cache.take_disk_commands(0.0)
    assert isinstance(write, Write)
    assert write.record.key == parent.key
    assert write.host == out.host
    cache.check()


def test_nothing_is_written_before_the_host_begins_to_fill() -> None:
    cache = cache_of(4, host_blocks=8, disk_blocks=8)
    for number in range(3):
        compute(cache, f"d{number}", num_blocks=2)
        empty_device(cache)
    cache.take_moves()
    assert cache.host.pool.num_free == 2
    assert cache.take_disk_commands(0.0) == ()
    compute(cache, "d9")
    empty_device(cache)
    cache.take_moves()
    assert len(cache.take_disk_commands(0.0)) == 4


def test_a_write_that_failed_is_counted_and_pauses_writing() -> None:
    cache = cache_of(2, host_blocks=1, disk_blocks=4)
    node = compute(cache, "d1")
    empty_device(cache)
    cache.take_moves()
    (write,) = cache.take_disk_commands(100.0)
    assert isinstance(write, Write)
    cache.disk_done(DiskDone(node.key, False), 100.0)
    cache.check()
    assert cache.counts.failed_writes == 1
    assert not node.on_disk
    assert cache.take_disk_commands(100.0) == (Delete(node.key),)
    assert cache.take_disk_commands(129.9) == ()
    (again,) = cache.take_disk_commands(130.0)
    assert again == write


def test_what_is_being_written_stays_on_the_host_until_the_disk_has_answered() -> None:
    cache = cache_of(2, host_blocks=1, disk_blocks=4, admission=Admission.ALL)
    node = compute(cache, "d1")
    empty_device(cache)
    cache.take_moves()
    cache.take_disk_commands(0.0)
    compute(cache, "d2")
    empty_device(cache)
    assert set(cache.tree.nodes) == {node.key}
    cache.disk_done(DiskDone(node.key, True), 0.0)
    compute(cache, "d2")
    empty_device(cache)
    assert node.nearest is Tier.DISK
    assert key_of("d2") in cache.tree.nodes


def test_what_was_written_under_a_parent_that_left_the_disk_is_deleted() -> None:
    cache = cache_of(4, host_blocks=2, disk_blocks=2, admission=Admission.ALL)
    parent, child = chain_of(cache, "d1", "d2")
    empty_device(cache)
    cache.take_moves()
    cache.take_disk_commands(0.0)
    cache.disk_done(DiskDone(parent.key, True), 0.0)
    cache.pin(parent)
    cache.load(parent)
    cache.unpin([parent])
    lose_on_host(cache, parent)
    use(cache, parent)
    use(cache, child, 2)
    other = compute(cache, "d3")
    assert cache.make_room(3)
    assert not parent.host
    use(cache, other, 9)
    cache.take_moves()
    writes = [c for c in cache.take_disk_commands(0.0) if isinstance(c, Write)]
    assert [write.record.key for write in writes] == [child.key, other.key]
    assert not parent.on_disk
    cache.disk_done(DiskDone(child.key, True), 0.0)
    cache.check()
    assert not child.on_disk
    assert Delete(child.key) in cache.take_disk_commands(0.0)


def test_a_node_that_its_disk_keeps_was_not_dropped_by_the_device() -> None:
    cache = cache_of(1, host_blocks=1, disk_blocks=3, half_life=1e-3)
    node = compute(cache, "d1")
    empty_device(cache)
    finish(cache)
    use(cache, compute(cache, "d2"))
    cache.tree.nodes[key_of("d2")].history.frequency = 2.0
    empty_device(cache)
    assert node.nearest is Tier.DISK
    finish(cache)
    compute(cache, "d1")
    empty_device(cache)
    assert node.nearest is Tier.DISK
    assert cache.counts.evictions[Tier.DEVICE, Eviction.DROPPED] == 0
    assert cache.counts.evictions[Tier.DEVICE, Eviction.COPY] == 1


def test_a_full_disk_gives_up_what_is_worth_less() -> None:
    cache = cache_of(1, host_blocks=1, disk_blocks=1, admission=Admission.ALL)
    first = compute(cache, "d1")
    empty_device(cache)
    assert finish(cache) == [first.key]
    second = compute(cache, "d2")
    use(cache, second, 3)
    empty_device(cache)
    assert finish(cache) == [second.key]
    assert set(cache.tree.nodes) == {second.key}
    compute(cache, "d3")
    empty_device(cache)
    assert finish(cache) == []


def test_what_can_never_fit_takes_nobodys_place_on_disk() -> None:
    cache = cache_of(4, host_blocks=3, disk_blocks=2, admission=Admission.ALL)
    first = compute(cache, "d1", num_blocks=2)
    use(cache, compute(cache, "d2"))
    empty_device(cache)
    assert finish(cache) == [first.key]
    use(cache, compute(cache, "d3", num_blocks=3), 9)
    empty_device(cache)
    assert first.nearest is Tier.DISK
    assert finish(cache) == []
    assert first.on_disk


def test_no_node_takes_the_place_of_its_own_parent_on_disk() -> None:
    cache = cache_of(4, host_blocks=2, disk_blocks=1, admission=Admission.ALL)
    parent, child = chain_of(cache, "d1", "d2")
    empty_device(cache)
    assert finish(cache) == [parent.key]
    cache.pin(parent)
    cache.load(parent)
    cache.unpin([parent])
    lose_on_host(cache, parent)
    use(cache, parent, 3)
    use(cache, child, 9)
    compute(cache, "d3")
    assert cache.make_room(3)
    assert (bool(parent.device), parent.host, bool(child.host)) == (True, (), True)
    assert finish(cache) == []
    assert parent.on_disk


def test_what_the_host_still_has_is_not_deleted_to_be_written_again() -> None:
    cache = cache_of(4, host_blocks=3, disk_blocks=1, admission=Admission.ALL)
    first = compute(cache, "d1")
    second, third = compute(cache, "d2"), compute(cache, "d3")
    use(cache, second, 2)
    use(cache, third, 3)
    empty_device(cache)
    assert finish(cache) == [first.key]
    use(cache, second)
    assert finish(cache) == []
    assert first.on_disk
    assert first.host


def test_a_stop_is_told_what_it_would_lose_the_most_valuable_first() -> None:
    cache = cache_of(4, host_blocks=1, disk_blocks=2)
    written = compute(cache, "d1")
    empty_device(cache)
    finish(cache)
    low, high = compute(cache, "d2"), compute(cache, "d3")
    use(cache, high, 3)
    assert written.on_disk
    assert cache.unwritten() == [high.key, low.key]


def test_at_a_stop_even_what_lies_on_the_device_alone_is_written_parents_first() -> None:
    cache = cache_of(4, host_blocks=8, disk_blocks=8)
    parent, child = chain_of(cache, "d1", "d2")
    assert cache.unwritten() == [parent.key, child.key]
    assert not cache.disk.write(child)
    (out,) = cache.take_moves()
    assert isinstance(out, SwapOut)
    assert out.record.key == parent.key
    assert cache.disk.write(child)
    (write,) = cache.take_disk_commands(0.0)
    assert isinstance(write, Write)
    assert (write.record.key, write.host) == (parent.key, out.host)
    assert not cache.disk.write(child)
    cache.disk_done(DiskDone(parent.key, True), 0.0)
    assert cache.unwritten() == [child.key]
    cache.check()
