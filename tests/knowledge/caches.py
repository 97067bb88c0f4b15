"""Small caches, and what is done with them."""

from __future__ import annotations

from cluster.blocks.pool import BlockPool
from cluster.knowledge.cache import CacheOptions, KnowledgeCache
from cluster.knowledge.commands import (
    Delete,
    DiskDone,
    Write,
)
from cluster.knowledge.keys import NodeKey
from cluster.knowledge.node import Node, Tier
from cluster.request import SegmentSource
from tests.knowledge.visitors import FINGERPRINT
from tests.knowledge.world import PREFILL, TRANSFER


def cache_of(device_blocks: int, **options: object) -> KnowledgeCache:
    chosen = CacheOptions(**options)  # type: ignore[arg-type]
    return KnowledgeCache(chosen, FINGERPRINT, BlockPool(device_blocks), PREFILL, TRANSFER)


def key_of(name: str) -> NodeKey:
    return NodeKey(name.encode().ljust(16, b"\0"))


def compute(
    cache: KnowledgeCache, name: str, parent: Node | None = None, num_blocks: int = 1
) -> Node:
    """A segment is computed, used once and let go. A name without digits is a system prompt's."""
    assert cache.make_room(num_blocks)
    document_id = name if name[-1].isdigit() else ""
    source = SegmentSource("c", document_id)
    blocks = cache.pool.allocate(num_blocks)
    node = cache.insert(parent, key_of(name), source, 16 * num_blocks, blocks)
    node.history.missed(1.0)
    cache.accessed(node)
    cache.check()
    return node


def use(cache: KnowledgeCache, node: Node, times: int = 1) -> None:
    for _ in range(times):
        cache.accessed(node)


def empty_device(cache: KnowledgeCache) -> None:
    assert cache.make_room(cache.pool.num_blocks)
    cache.check()


def finish(cache: KnowledgeCache, now_s: float = 0.0) -> list[NodeKey]:
    """The disk does all that it is told, and well; what it wrote, in order."""
    written: list[NodeKey] = []
    while True:
        cache.take_moves()
        commands = [c for c in cache.take_disk_commands(now_s) if not isinstance(c, Delete)]
        if not commands:
            return written
        for command in commands:
            if isinstance(command, Write):
                written.append(command.record.key)
            cache.disk_done(DiskDone(command.record.key, True), now_s)
            cache.check()


def chain_of(cache: KnowledgeCache, *names: str) -> list[Node]:
    nodes: list[Node] = []
    for name in names:
        node = compute(cache, name, nodes[-1] if nodes else None)
        cache.pin(node)
        nodes.append(node)
    cache.unpin(nodes)
    return nodes


def sunk(cache: KnowledgeCache) -> list[Node]:
    """Three nodes, one under the other, on disk alone."""
    nodes = chain_of(cache, "d1", "d2", "d3")
    empty_device(cache)
    finish(cache)
    for number in range(4, 7):
        compute(cache, f"d{number}")
        empty_device(cache)
    finish(cache)
    assert all(node.nearest is Tier.DISK for node in nodes)
    return nodes
