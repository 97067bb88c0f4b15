"""The cache as it stands, for people and for counters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from heapq import nlargest

from cluster.knowledge.cache import KnowledgeCache
from cluster.knowledge.counts import CacheCounts, Eviction
from cluster.knowledge.keys import NodeKey
from cluster.knowledge.node import Node, Tier
from cluster.request import SegmentSource


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """`tiers` are those that have a copy, the nearest first; `priority` is that of the nearest.
    `parent` None: it is right below the root."""

    key: NodeKey
    parent: NodeKey | None
    source: SegmentSource
    num_tokens: int
    tiers: tuple[Tier, ...]
    frequency: float
    priority: float
    pins: int


@dataclass(frozen=True, slots=True)
class TierStatus:
    """In blocks. What is neither free nor cached is of running requests, or on its way."""

    tier: Tier
    num_blocks: int
    num_free: int
    num_cached: int


@dataclass(frozen=True, slots=True)
class CacheSnapshot:
    """`nodes`: parents before their children."""

    policy: str
    num_nodes: int
    nodes: tuple[NodeStatus, ...]
    tiers: tuple[TierStatus, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """Blocks of a tier; `num_lent` are those of running requests, and the rest is the cache's."""

    num_blocks: int
    num_free: int
    num_lent: int = 0


@dataclass(frozen=True, slots=True)
class CacheSums:
    """What the cache did since it began, as of one moment; `held` are the tiers below the device
    that there are."""

    num_nodes: int = 0
    held: Mapping[Tier, Held] = field(default_factory=dict)
    evictions: Counter[tuple[Tier, Eviction]] = field(default_factory=Counter)
    moved_blocks: Counter[tuple[Tier, Tier]] = field(default_factory=Counter)
    attended_blocks: int = 0
    faults: Counter[Tier] = field(default_factory=Counter)
    failed_writes: int = 0
    paged_blocks: Counter[tuple[Tier, Tier]] = field(default_factory=Counter)


def sums(cache: KnowledgeCache) -> CacheSums:
    counts: CacheCounts = cache.counts
    return CacheSums(
        len(cache.tree.nodes),
        dict(_held(cache)),
        counts.evictions.copy(),
        counts.moved_blocks.copy(),
        counts.attended_blocks,
        counts.faults.copy(),
        counts.failed_writes,
        counts.paged_blocks.copy(),
    )


def _held(cache: KnowledgeCache) -> Iterator[tuple[Tier, Held]]:
    pool, capacity = cache.host.pool, cache.options.disk_blocks
    if pool.num_blocks:
        yield Tier.HOST, Held(pool.num_blocks, pool.num_free, cache.host.num_lent)
    if capacity:
        yield Tier.DISK, Held(capacity, capacity - cache.disk.num_used)


def snapshot(cache: KnowledgeCache, max_nodes: int) -> CacheSnapshot:
    """At most `max_nodes` of the nodes that are used, then of highest priority in the nearest
    tier, with all that is above them."""
    nodes = cache.tree.nodes
    chosen: dict[NodeKey, Node] = {}
    for node in nlargest(max_nodes, nodes.values(), key=_weight):
        path = [above for above in node.path if above.key not in chosen]
        chosen |= {above.key: above for above in path[: max_nodes - len(chosen)]}
    return CacheSnapshot(
        policy=str(cache.options.policy),
        num_nodes=len(nodes),
        nodes=tuple(_status(node) for node in _in_order(cache.tree.root, chosen)),
        tiers=tuple(_tiers(cache)),
    )


def _weight(node: Node) -> tuple[int, int, float]:
    nearest = node.nearest or 0
    return (node.pins, nearest, node.priority[nearest])


def _in_order(root: Node, chosen: dict[NodeKey, Node]) -> Iterator[Node]:
    """Every node right after its parent and the parent's earlier descendants."""
    todo = [child for child in root.children.values() if child.key in chosen]
    while todo:
        node = todo.pop()
        yield node
        todo += [child for child in node.children.values() if child.key in chosen]


def _status(node: Node) -> NodeStatus:
    parent = node.parent
    return NodeStatus(
        key=node.key,
        parent=None if parent is None or parent.parent is None else parent.key,
        source=node.source,
        num_tokens=node.num_tokens,
        tiers=tuple(tier for tier in sorted(Tier, reverse=True) if node.has_copy(tier)),
        frequency=node.history.frequency,
        priority=node.priority[node.nearest or 0],
        pins=node.pins,
    )


def _tiers(cache: KnowledgeCache) -> Iterator[TierStatus]:
    nodes = cache.tree.nodes.values()
    pools = {Tier.DEVICE: cache.pool, Tier.HOST: cache.host.pool}
    for tier, pool in pools.items():
        cached = sum(node.num_blocks for node in nodes if node.has_copy(tier))
        if pool.num_blocks:
            yield TierStatus(tier, pool.num_blocks, pool.num_free, cached)
    if cache.options.disk_blocks:
        used, capacity = cache.disk.num_used, cache.options.disk_blocks
        on_disk = sum(node.num_blocks for node in nodes if node.on_disk)
        yield TierStatus(Tier.DISK, capacity, capacity - used, on_disk)
