"""The knowledge cache, as its laws see it: documents by name, and requests that ask for them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from cluster.blocks.pool import BlockPool
from cluster.ids import RequestId
from cluster.knowledge.cache import CacheOptions, KnowledgeCache
from cluster.knowledge.device_tier import subtree
from cluster.knowledge.keys import NodeKey
from cluster.knowledge.node import Node
from cluster.knowledge.policies import PolicyName
from cluster.request import Request, Sampling, SegmentSource
from cluster.scheduling import sequence as sequences
from cluster.scheduling.reuse import Walk, keep_computed, to_keep, walk
from tests.knowledge.world import PREFILL, TRANSFER

Path = tuple[str, ...]
# Pairs of a document and the forest below it.
Forest = tuple[tuple[str, Any], ...]


class Shelf:
    """A cache with room for everything, and what is done with it."""

    def __init__(self, paths: Collection[Path] = (), **options: Any) -> None:
        pool = BlockPool(512)
        self.cache = KnowledgeCache(CacheOptions(**options), b"model", pool, PREFILL, TRANSFER)
        for path in paths:
            self.insert(path)

    def _request(self, path: Path) -> Request:
        documents = tuple((ord(name[0]),) * 17 for name in path)
        sources = tuple(SegmentSource("c", name) for name in path)
        return Request(RequestId("r"), (*documents, (1,)), Sampling(), 1e9, sources=sources)

    def chain(self, path: Path) -> tuple[NodeKey, ...]:
        return self.cache.chain(self._request(path))

    def _asks(self, path: Path) -> sequences.Sequence:
        """A request that has walked down to where its documents are not cached."""
        asks = sequences.Sequence(self._request(path), 0.0, self.chain(path))
        assert walk(self.cache, asks, (), self.cache.make_room) is Walk.COMPUTE
        return asks

    def insert(self, path: Path) -> None:
        """A request computes those of its documents that are not there, and ends."""
        asks = self._asks(path)
        end = asks.starts[-1]
        asks.grow(end, self.cache.pool.allocate(asks.missing(end)))
        asks.computed(end)
        keep_computed(self.cache, asks)
        self.cache.unpin(asks.nodes)
        self.cache.check()

    def lookup(self, path: Path) -> Path:
        asks = self._asks(path)
        self.cache.unpin(asks.nodes)
        return tuple(map(name_of, asks.nodes))

    def fresh(self, path: Path) -> Path:
        """What a request would compute and keep."""
        asks = self._asks(path)
        keys = to_keep(self.cache, asks)
        self.cache.unpin(asks.nodes)
        return tuple(n for n, key in zip(path, asks.keys, strict=True) if key in keys)

    @property
    def size(self) -> int:
        return len(self.cache.tree.nodes)

    def flatten(self) -> Path:
        _, *nodes = subtree(self.cache.tree.root)
        return tuple(map(name_of, nodes))

    @property
    def forest(self) -> Forest:
        return tuple(_forest(self.cache.tree.root))

    # Eviction

    @property
    def on_device(self) -> Path:
        _, *nodes = subtree(self.cache.tree.root)
        return tuple(name_of(node) for node in nodes if node.device)

    @property
    def forest_on_device(self) -> Forest:
        """Whoever's parent has left stands in its place."""
        return tuple(_forest_on_device(self.cache.tree.root))

    def evict(self, wanted: Collection[str]) -> None:
        _, *nodes = subtree(self.cache.tree.root)
        for node in nodes:
            if node.device and name_of(node) not in wanted:
                assert self.cache.device.evict(node)
        self.cache.check()

    def prune(self, wanted: Collection[str]) -> None:
        """Drops whoever is not wanted, with all below."""
        todo = list(self.cache.tree.root.children.values())
        while todo:
            node = todo.pop()
            if name_of(node) in wanted:
                todo += node.children.values()
            else:
                self.cache.device.drop(node)
        self.cache.check()

    def drop(self, name: str) -> None:
        """Of the documents at the root."""
        for node in list(self.cache.tree.root.children.values()):
            if name_of(node) == name:
                self.cache.device.drop(node)

    def leave(self) -> Path:
        """All go, one after the other."""
        gone: list[str] = []
        while self.size:
            before = self.flatten()
            assert self.cache.make_room(self.cache.pool.num_free + 1)
            (left,) = set(before) - set(self.flatten())
            gone.append(left)
        return tuple(gone)


def name_of(node: Node) -> str:
    return node.source.document_id


def _forest(node: Node) -> Iterator[tuple[str, Forest]]:
    for child in node.children.values():
        yield name_of(child), tuple(_forest(child))


def _forest_on_device(node: Node) -> Iterator[tuple[str, Forest]]:
    for child in node.children.values():
        below = tuple(_forest_on_device(child))
        if child.device:
            yield name_of(child), below
        else:
            yield from below


def recently(names: Sequence[str]) -> Shelf:
    """Documents at the root, used in this order; whoever was used last leaves last."""
    return Shelf([(name,) for name in names], policy=PolicyName.LRU)
