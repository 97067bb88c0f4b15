"""What is found again after a restart, and what one tenant can tell of another."""

from __future__ import annotations

import pytest

from cluster.errors import InvariantBroken
from cluster.ids import BlockId
from cluster.knowledge.cache import CacheOptions
from cluster.knowledge.commands import (
    Clear,
    Found,
    NodeRecord,
)
from cluster.knowledge.keys import ROOT, NodeKey
from cluster.request import SegmentSource
from tests.knowledge.caches import cache_of, compute, key_of
from tests.knowledge.visitors import Path, path
from tests.knowledge.world import World


def filled_world(**options: object) -> tuple[World, Path]:
    """A world whose request has been served, and whose device has been emptied."""
    world = World(CacheOptions(**options), 12)  # type: ignore[arg-type]
    wanted = path(b"", "s", "a", "b")
    serve(world, wanted)
    world.make_room(12)
    world.step()
    world.settle()
    for _ in range(8):
        world.step()
        world.settle()
    return world, wanted


def serve(world: World, wanted: Path) -> tuple[int, list[str]]:
    """Tokens that were found and how each segment was got at."""
    visitor = world.arrive(wanted)
    ways: list[str] = []
    num_found = 0
    while not visitor.question:
        before = len(visitor.nodes)
        way = world.advance(visitor)
        num_found += sum(node.num_tokens for node in visitor.nodes[before:])
        ways.append(f"{way} {len(visitor.nodes)}")
        world.step()
        world.settle()
        world.check()
    world.leave(visitor)
    return num_found, ways


def test_after_a_restart_the_host_still_has_what_it_had() -> None:
    world, wanted = filled_world(host_blocks=16)
    world.restart(is_host_lost=False)
    assert serve(world, wanted)[0] == sum(wanted.lengths)
    node = world.cache.find(wanted.keys[0])
    assert node is not None
    assert node.history.frequency == pytest.approx(2.0, rel=1e-3)


def test_after_a_restart_without_its_host_the_disk_still_has_what_was_written() -> None:
    world, wanted = filled_world(host_blocks=6, disk_blocks=16)
    assert world.memories.disk
    expected = sum(r.num_tokens for r, _ in world.memories.disk.values())
    world.restart(is_host_lost=True)
    assert serve(world, wanted)[0] == expected


def test_a_restart_gives_up_orphans() -> None:
    world, wanted = filled_world(host_blocks=6, disk_blocks=16)
    del world.memories.disk[wanted.keys[0]]
    world.restart(is_host_lost=True)
    assert not world.cache.tree.nodes
    assert not world.memories.disk


def test_a_restart_with_a_smaller_disk_stays_within_it() -> None:
    world, _ = filled_world(host_blocks=6, disk_blocks=16)
    num_blocks = sum(len(content) for _, content in world.memories.disk.values())
    world.options = CacheOptions(host_blocks=6, disk_blocks=num_blocks - 1)
    world.restart(is_host_lost=True)
    world.check()
    assert world.cache.tree.nodes
    assert 0 < world.cache.disk.num_used < num_blocks


def test_a_second_copy_of_a_node_on_the_host_is_cleared() -> None:
    cache = cache_of(1, host_blocks=4)
    record = NodeRecord(key_of("d1"), ROOT, SegmentSource("c", "d1"), 16)
    cache.restore([Found(record, (BlockId(2),)), Found(record, (BlockId(0),))], [])
    cache.check()
    assert cache.tree.nodes[key_of("d1")].host == (BlockId(2),)
    assert cache.take_moves() == (Clear((BlockId(0),)),)


def test_only_an_empty_tree_is_restored() -> None:
    cache = cache_of(1)
    compute(cache, "d1")
    with pytest.raises(InvariantBroken, match="from a scan"):
        cache.restore([], [])


# Tenants.


@pytest.mark.parametrize("tiers", [(0, 0), (6, 0), (6, 12)])
def test_a_tenant_cannot_tell_whether_another_used_the_same_document(
    tiers: tuple[int, int],
) -> None:
    def seen(names: tuple[str, str]) -> list[object]:
        world = World(CacheOptions(host_blocks=tiers[0], disk_blocks=tiers[1]), 10)
        mine = [path(b"tenant b", "s", "ab", "bc"), path(b"tenant b", "s", "bc")]
        results: list[object] = []
        for turn in range(12):
            serve(world, path(b"tenant a", "s", names[turn % 2]))
            results.append(serve(world, mine[turn % 2]))
            results.append([_where(world, key) for key in mine[0].keys + mine[1].keys])
        return results

    same, other = path(b"", "s", "ab", "bc"), path(b"", "s", "ba", "cb")
    assert same.lengths == other.lengths
    assert seen(("ab", "bc")) == seen(("ba", "cb"))


def _where(world: World, key: NodeKey) -> object:
    node = world.cache.find(key)
    return None if node is None else (node.device, node.host, node.on_disk)
