"""The host's blocks: given out to what leaves the device and to what is read from disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cluster.blocks.pool import BlockPool
from cluster.ids import BlockId
from cluster.knowledge.commands import Clear, Move, NodeRecord, SwapIn, SwapOut, Verify
from cluster.knowledge.counts import CacheCounts, Eviction
from cluster.knowledge.keys import ROOT
from cluster.knowledge.node import Blocks, Node, Tier
from cluster.knowledge.ranking import Ranking
from cluster.knowledge.tree import KnowledgeTree


def record_of(node: Node) -> NodeRecord:
    parent = node.parent.key if node.parent is not None else ROOT
    return NodeRecord(node.key, parent, node.source, node.num_tokens)


@dataclass(slots=True)
class HostTier:
    """`moves` are those of the step that is being planned; `num_lent` blocks are those of running
    requests."""

    tree: KnowledgeTree
    ranking: Ranking
    counts: CacheCounts
    pool: BlockPool
    moves: list[Move] = field(init=False, default_factory=list)
    num_lent: int = field(init=False, default=0)

    def lend(self, count: int) -> Blocks | None:
        """So many blocks for a running request, or None: documents make room, as for each other."""
        blocks = self.take(count)
        self.num_lent += len(blocks or ())
        return blocks

    def take_back(self, blocks: Sequence[BlockId]) -> None:
        """What was lent. Nothing there is ever found by a scan."""
        self.pool.release(blocks)
        self.num_lent -= len(blocks)

    def take(self, count: int) -> Blocks | None:
        """So many blocks, from the nodes of lowest priority if need be; None when those that may
        not leave hold too many."""
        if count > self.pool.num_blocks:
            return None
        while self.pool.num_free < count:
            victim = self.tree.candidates[Tier.HOST].pop()
            if victim is None:
                return None
            self.evict(victim)
        return self.pool.allocate(count)

    def copy_out(self, node: Node, blocks: Blocks) -> None:
        """The node on the device gets a copy in blocks that were taken."""
        self.moves.append(SwapOut(record_of(node), node.device, blocks))
        self.counts.moved_blocks[Tier.DEVICE, Tier.HOST] += len(blocks)
        self.enter(node, blocks)

    def is_pending(self, node: Node) -> bool:
        """Whether the copy here is one of the moves that nobody has taken yet."""
        outs = (move for move in self.moves if isinstance(move, SwapOut))
        return any(move.record.key == node.key for move in outs)

    def enter(self, node: Node, blocks: Blocks) -> None:
        self.ranking.rank(node, Tier.HOST)
        self.tree.put_host(node, blocks)

    def copy_in(self, node: Node, device: Blocks) -> None:
        """The node's copy is verified and brought to these blocks of the device."""
        self.moves.append(SwapIn(node.key, node.host, device))
        self.counts.moved_blocks[Tier.HOST, Tier.DEVICE] += len(device)

    def attend(self, node: Node) -> None:
        """The node's copy is verified, and read where it lies from now on."""
        self.moves.append(Verify(node.key, node.host))
        self.counts.attended_blocks += len(node.host)

    def evict(self, node: Node) -> None:
        """Makes room: the node's copy here goes; if it was the last one, the node is forgotten."""
        self.ranking.left(node, Tier.HOST)
        node.is_from_disk = False
        self.free(node.host)
        self.tree.put_host(node, ())
        how = Eviction.DROPPED if node.nearest is None else Eviction.COPY
        self.counts.evictions[Tier.HOST, how] += 1
        if node.nearest is None:
            self.tree.detach(node)
            self.ranking.forgot(node)

    def free(self, blocks: Blocks) -> None:
        if blocks:
            self.pool.release(blocks)
            self.moves.append(Clear(blocks))
