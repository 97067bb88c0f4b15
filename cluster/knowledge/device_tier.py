"""The device's blocks: what a step reads, and where requests and documents meet.

computed --enter--> on the device --evict--> host copy     (the first time its blocks are moved)
host copy --load--> on the device --evict--> host copy     (nothing is moved: it is still there)
                    on the device --evict--> nowhere       (not admitted to the host, or no host)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cluster.blocks.pool import BlockPool
from cluster.errors import InvariantBroken
from cluster.knowledge.counts import CacheCounts, Eviction
from cluster.knowledge.disk_tier import DiskTier
from cluster.knowledge.host_tier import HostTier
from cluster.knowledge.node import Admission, Blocks, Node, Tier
from cluster.knowledge.ranking import Ranking
from cluster.knowledge.tree import KnowledgeTree


@dataclass(slots=True)
class DeviceTier:
    """`pool` is shared with the requests that run."""

    tree: KnowledgeTree
    ranking: Ranking
    counts: CacheCounts
    pool: BlockPool
    host: HostTier
    disk: DiskTier
    admission: Admission

    def enter(self, node: Node, blocks: Blocks) -> None:
        self.ranking.rank(node, Tier.DEVICE)
        self.tree.put_device(node, blocks)

    def load(self, node: Node) -> None:
        """Brings a pinned node from the host to blocks that are free."""
        blocks = self.pool.allocate(node.num_blocks)
        self.host.copy_in(node, blocks)
        self.enter(node, blocks)

    def make_room(self, count: int) -> bool:
        """Evicts until `count` blocks are free or nobody may leave any more: False."""
        stuck: list[Node] = []
        while self.pool.num_free < count:
            victim = self.tree.candidates[Tier.DEVICE].pop()
            if victim is None:
                break
            if not self.evict(victim):
                stuck.append(victim)
        for node in stuck:
            self.tree.refresh(node)
        return self.pool.num_free >= count

    def evict(self, node: Node) -> bool:
        """False: children on the device would be left without it."""
        had_copy = node.has_copy(Tier.HOST)
        is_moved = not had_copy and self._swap_out(node)
        rests = self.tree.rest_suffices(node, Tier.DEVICE)
        if not rests and node.num_children_at[Tier.DEVICE]:
            return False
        self.ranking.left(node, Tier.DEVICE)
        if rests:
            how = Eviction.MOVED if is_moved else Eviction.COPY
            self._release(node)
        else:
            how = Eviction.DROPPED
            self.drop(node)
        self.counts.evictions[Tier.DEVICE, how] += 1
        return True

    def _swap_out(self, node: Node) -> bool:
        """What was used once only, and has nothing under it, takes nobody's place on the host."""
        is_once = not node.history.is_reused and not node.children
        is_unwanted = self.admission is Admission.REUSED and is_once
        if is_unwanted and self.host.pool.num_free < node.num_blocks:
            return False
        self._copy_above(node)
        blocks = self.host.take(node.num_blocks)
        if blocks is None:
            return False
        self.host.copy_out(node, blocks)
        return True

    def _copy_above(self, node: Node) -> None:
        """Whoever finds the host's memory again can use what has all above it there: what has never
        left the device is copied too, as long as there is free room for it and for the node. It
        takes nobody's place: of a long path each node would take that of the one before."""
        for above in node.path[:-1]:
            if above.host or not above.device:
                continue
            if self.host.pool.num_free < above.num_blocks + node.num_blocks:
                return
            self.host.copy_out(above, self.host.pool.allocate(above.num_blocks))

    def _release(self, node: Node) -> None:
        self.pool.release(node.device)
        self.tree.put_device(node, ())

    def drop(self, node: Node) -> None:
        """The node and all under it leave every tier. Nobody uses them."""
        for below in reversed(list(subtree(node))):
            if below.pins:
                raise InvariantBroken(f"node {below.key.hex()} is dropped and in use")
            self._release(below)
            if not self.disk.abandon(below):
                self.host.free(below.host)
            self.tree.put_host(below, ())
            if below.on_disk:
                self.disk.remove(below)
            self.tree.detach(below)
            self.ranking.forgot(below)

    def damaged(self, node: Node) -> None:
        """The host's copy is not what was written, nor is what was loaded from it."""
        if node.pins:
            raise InvariantBroken(f"node {node.key.hex()} is damaged and in use")
        self.counts.faults[Tier.HOST] += 1
        self._release(node)
        if self.tree.rest_suffices(node, Tier.HOST):
            self.host.free(node.host)
            self.tree.put_host(node, ())
        else:
            self.drop(node)

    def lose_disk(self, node: Node) -> None:
        """Without this node, what lies under it on disk is of no use."""
        for below in reversed(list(subtree(node))):
            self.disk.forget(below)
            if below.nearest is None:
                self.drop(below)


def subtree(node: Node) -> Iterator[Node]:
    """The node, then all under it: parents before their children."""
    todo = [node]
    while todo:
        node = todo.pop()
        yield node
        todo += node.children.values()
