"""What comes back from disk, too late or damaged too."""

from __future__ import annotations

from cluster.knowledge.cache import Visit, Way
from cluster.knowledge.commands import (
    Delete,
    DiskDone,
    Read,
)
from cluster.knowledge.node import Admission, Job, Tier
from tests.knowledge.caches import (
    cache_of,
    compute,
    empty_device,
    finish,
    sunk,
)


def test_a_node_comes_back_from_disk_by_way_of_the_host() -> None:
    cache = cache_of(2, host_blocks=1, disk_blocks=4, admission=Admission.ALL)
    node = compute(cache, "d1")
    empty_device(cache)
    finish(cache)
    compute(cache, "d2")
    empty_device(cache)
    assert node.nearest is Tier.DISK
    finish(cache)
    assert cache.way(node, Visit()) is Way.WAIT
    assert node.job is Job.READING
    assert cache.way(node, Visit()) is Way.WAIT
    cache.take_moves()
    (read,) = cache.take_disk_commands(0.0)
    assert isinstance(read, Read)
    cache.disk_done(DiskDone(node.key, True), 0.0)
    cache.check()
    assert node.host == read.host
    assert node.is_from_disk
    assert cache.way(node, Visit()) is Way.LOAD
    assert cache.counts.moved_blocks[Tier.DISK, Tier.HOST] == 1


def test_a_read_that_failed_loses_all_that_lies_under_it_on_disk() -> None:
    cache = cache_of(4, host_blocks=3, disk_blocks=6, admission=Admission.ALL)
    nodes = sunk(cache)
    assert cache.way(nodes[1], Visit(16)) is Way.WAIT
    cache.take_moves()
    cache.take_disk_commands(0.0)
    cache.disk_done(DiskDone(nodes[1].key, False), 0.0)
    cache.check()
    assert [cache.find(node.key) for node in nodes] == [nodes[0], None, None]
    assert cache.counts.faults == {Tier.DISK: 1}
    deleted = [c.key for c in cache.take_disk_commands(0.0) if isinstance(c, Delete)]
    assert deleted == [nodes[2].key, nodes[1].key]


def test_a_node_computed_while_it_was_read_was_not_found_on_disk() -> None:
    cache = cache_of(4, host_blocks=3, disk_blocks=6, admission=Admission.ALL)
    node = sunk(cache)[0]
    assert cache.way(node, Visit()) is Way.WAIT
    compute(cache, "d1")
    cache.disk_done(DiskDone(node.key, True), 0.0)
    cache.check()
    assert node.device
    assert not node.is_from_disk


def test_a_node_that_left_the_host_again_was_not_found_on_disk() -> None:
    cache = cache_of(4, host_blocks=3, disk_blocks=6, admission=Admission.ALL)
    node = sunk(cache)[0]
    assert cache.way(node, Visit()) is Way.WAIT
    cache.disk_done(DiskDone(node.key, True), 0.0)
    assert node.is_from_disk
    compute(cache, "d9", num_blocks=3)
    empty_device(cache)
    assert not node.host
    assert not node.is_from_disk


def test_a_node_computed_after_it_was_read_was_not_found_on_disk() -> None:
    cache = cache_of(4, host_blocks=3, disk_blocks=6, admission=Admission.ALL)
    node = sunk(cache)[0]
    assert cache.way(node, Visit()) is Way.WAIT
    cache.disk_done(DiskDone(node.key, True), 0.0)
    compute(cache, "d1")
    assert not node.is_from_disk


def test_a_node_that_was_read_too_late_keeps_the_copy_that_it_has() -> None:
    cache = cache_of(4, host_blocks=3, disk_blocks=6, admission=Admission.ALL)
    node = sunk(cache)[0]
    assert cache.way(node, Visit()) is Way.WAIT
    compute(cache, "d1")
    empty_device(cache)
    host = node.host
    assert host
    cache.disk_done(DiskDone(node.key, True), 0.0)
    assert node.host == host
    cache.check()


def test_a_node_that_was_read_after_its_parent_sank_stays_below_it() -> None:
    cache = cache_of(4, host_blocks=3, disk_blocks=6, admission=Admission.ALL)
    parent, child, _ = sunk(cache)
    assert cache.way(parent, Visit()) is Way.WAIT
    cache.disk_done(DiskDone(parent.key, True), 0.0)
    assert cache.way(child, Visit(16)) is Way.WAIT
    compute(cache, "d8")
    compute(cache, "d9")
    empty_device(cache)
    assert parent.nearest is Tier.DISK
    cache.disk_done(DiskDone(child.key, True), 0.0)
    assert child.nearest is Tier.DISK
    assert child.job is None
    cache.check()
