"""The tree built again from what a scan of the host and the disk found.

What has no parent, or lies where its parent does not allow it, or has no room, is given up: its
blocks are cleared and its file is deleted. Every node counts as used once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from cluster.blocks.pool import blocks_for
from cluster.ids import BlockId
from cluster.knowledge.commands import Delete, Found, NodeRecord
from cluster.knowledge.disk_tier import DiskTier
from cluster.knowledge.host_tier import HostTier
from cluster.knowledge.keys import NodeKey
from cluster.knowledge.node import Blocks, Node, Tier
from cluster.knowledge.prefill_cost import PrefillCost
from cluster.knowledge.ranking import Ranking
from cluster.knowledge.tree import KnowledgeTree


@dataclass(slots=True)
class Restore:
    """Used once, while the tree is empty."""

    tree: KnowledgeTree
    ranking: Ranking
    host: HostTier
    disk: DiskTier
    prefill: PrefillCost
    _records: dict[NodeKey, NodeRecord] = field(init=False, default_factory=dict)
    _on_host: dict[NodeKey, Blocks] = field(init=False, default_factory=dict)
    _on_disk: set[NodeKey] = field(init=False, default_factory=set)

    def run(self, on_host: Iterable[Found], on_disk: Iterable[Found]) -> None:
        self._read(on_host, on_disk)
        under: defaultdict[NodeKey, list[NodeRecord]] = defaultdict(list)
        for record in self._records.values():
            under[record.parent].append(record)
        above = [(self.tree.root, 0)]
        while above:
            parent, alpha = above.pop()
            for record in under.get(parent.key, ()):
                node = self._node(parent, record, alpha)
                if node is not None:
                    above.append((node, alpha + node.num_tokens))
        for key in self._records:
            self._clear_host(key)
            self._delete(key)

    def _read(self, on_host: Iterable[Found], on_disk: Iterable[Found]) -> None:
        for found in on_disk:
            self._records[found.record.key] = found.record
            self._on_disk.add(found.record.key)
        twice: list[BlockId] = []
        for found in on_host:
            if found.record.key in self._on_host:
                twice += found.host
                continue
            self._records[found.record.key] = found.record
            self._on_host[found.record.key] = found.host
        once = [block for blocks in self._on_host.values() for block in blocks]
        self.host.pool.claim(once + twice)
        self.host.free(tuple(twice))

    def _node(self, parent: Node, record: NodeRecord, alpha: int) -> Node | None:
        """Takes over what may stay of a node that was found; `alpha` tokens come before it."""
        key = record.key
        if not self.tree.may_lie(parent, Tier.HOST):
            self._clear_host(key)
        has_room = self.disk.num_used + blocks_for(record.num_tokens) <= self.disk.capacity
        if not has_room or not self.tree.may_lie_on_disk(parent):
            self._delete(key)
        host, is_on_disk = self._on_host.pop(key, ()), key in self._on_disk
        self._on_disk.discard(key)
        if not host and not is_on_disk:
            return None
        node = self.ranking.newcomer(parent, key, record.source, record.num_tokens)
        node.history.accessed(self.ranking.num_accesses, self.ranking.half_life)
        node.history.missed(self.prefill.prefill_s(alpha, node.num_tokens) / node.num_tokens)
        self.tree.attach(parent, node)
        if is_on_disk:
            self.disk.num_used += node.num_blocks
            self.disk.enter(node)
        if host:
            self.host.enter(node, host)
        return node

    def _clear_host(self, key: NodeKey) -> None:
        self.host.free(self._on_host.pop(key, ()))

    def _delete(self, key: NodeKey) -> None:
        if key in self._on_disk:
            self._on_disk.remove(key)
            self.disk.commands.append(Delete(key))
