"""What a request does with a document that lies on the host."""

from __future__ import annotations

import pytest

from cluster.blocks.pool import BlockPool
from cluster.knowledge.cache import CacheOptions, HostUse, KnowledgeCache, Visit, Way
from cluster.knowledge.commands import Verify
from cluster.knowledge.node import Admission, Node, Placement
from cluster.knowledge.prefill_cost import TransferCost
from tests.knowledge.caches import cache_of, chain_of, empty_device, sunk
from tests.knowledge.visitors import FINGERPRINT
from tests.knowledge.world import PREFILL


def on_host(
    host_use: HostUse, placement: Placement = Placement.TREE
) -> tuple[KnowledgeCache, list[Node]]:
    """Two nodes, one under the other, on the host alone; loading takes 0.01 s a block, attending
    0.001 s a block and row."""
    options = CacheOptions(
        host_blocks=4, host_use=host_use, placement=placement, admission=Admission.ALL
    )
    transfer = TransferCost(0.01, 0.02, attend_block_s=0.001)
    cache = KnowledgeCache(options, FINGERPRINT, BlockPool(4), PREFILL, transfer)
    nodes = chain_of(cache, "d1", "d2")
    empty_device(cache)
    return cache, nodes


def test_attending_on_the_host_is_weighed_against_loading() -> None:
    cache, (parent, _) = on_host(HostUse.AUTO)
    assert cache.way(parent, Visit(num_rows=9)) is Way.ATTEND
    assert cache.way(parent, Visit(num_rows=11)) is Way.LOAD


@pytest.mark.parametrize(
    ("host_use", "way"),
    [
        (HostUse.LOAD, Way.LOAD),
        (HostUse.ATTEND, Way.ATTEND),
        (HostUse.RECOMPUTE, Way.COMPUTE),
    ],
)
def test_each_use_of_the_host_can_be_chosen_for_all(host_use: HostUse, way: Way) -> None:
    cache, (parent, _) = on_host(host_use)
    for num_rows in (1, 1000):
        assert cache.way(parent, Visit(num_rows=num_rows)) is way


def test_in_a_tree_only_the_end_of_a_path_is_attended_on_the_host() -> None:
    visit = Visit(num_rows=1, is_last=False)
    for placement, way in ((Placement.TREE, Way.LOAD), (Placement.SEGMENT, Way.ATTEND)):
        cache, (parent, _) = on_host(HostUse.AUTO, placement)
        assert cache.way(parent, visit) is way


def test_in_a_tree_nothing_is_loaded_or_kept_under_what_is_attended_on_the_host() -> None:
    for placement, may_extend in ((Placement.TREE, False), (Placement.SEGMENT, True)):
        cache, (parent, child) = on_host(HostUse.LOAD, placement)
        assert cache.may_extend(parent) is may_extend
        assert (cache.way(child, Visit()) is Way.LOAD) is may_extend
        assert cache.may_extend(None)


def test_what_is_computed_again_in_any_case_is_not_read_from_disk() -> None:
    for host_use, way in ((HostUse.RECOMPUTE, Way.COMPUTE), (HostUse.LOAD, Way.WAIT)):
        cache = cache_of(
            4, host_blocks=3, disk_blocks=6, admission=Admission.ALL, host_use=host_use
        )
        node = sunk(cache)[0]
        assert cache.way(node, Visit()) is way
        assert bool(cache.disk.num_jobs) is (way is Way.WAIT)


def test_what_is_attended_on_the_host_is_verified_once_and_does_not_leave() -> None:
    cache, (parent, child) = on_host(HostUse.ATTEND)
    for node in (parent, child):
        cache.pin(node)
        cache.attend(node)
    assert cache.take_moves()[-2:] == (
        Verify(parent.key, parent.host),
        Verify(child.key, child.host),
    )
    assert cache.counts.attended_blocks == 2
    assert cache.num_available == 4
    assert cache.host.take(3) is None
    cache.check()
