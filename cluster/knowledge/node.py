"""A node of the tree: one document in the context of the exact sequence above it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

from cluster.blocks.pool import blocks_for
from cluster.ids import BlockId
from cluster.knowledge.ghosts import History
from cluster.knowledge.keys import NodeKey
from cluster.request import SegmentSource

Blocks = tuple[BlockId, ...]


class Tier(IntEnum):
    """Where a copy lies; the larger, the nearer to the computation."""

    DISK = 1
    HOST = 2
    DEVICE = 3

    # An enum's own hashes a name, in Python; tiers are counted by with every move.
    __hash__ = int.__hash__

    @property
    def label(self) -> str:
        """As settings, metrics and the wire spell it."""
        return self.name.lower()


# An enum is slow to walk over, and every access does.
TIERS = tuple(Tier)


class Placement(StrEnum):
    """TREE: no node lies nearer than its parent. SEGMENT: a parent may lie anywhere."""

    TREE = "tree"
    SEGMENT = "segment"


class Admission(StrEnum):
    """Which nodes that leave the device are copied to the host. REUSED: one that was used once
    only goes there while there is free room."""

    ALL = "all"
    REUSED = "reused"


class Job(StrEnum):
    """What a disk is doing for a node."""

    READING = "reading"
    WRITING = "writing"


@dataclass(slots=True, eq=False)
class Node:
    """`device` and `host` are its blocks in those tiers, empty where it is not.

    `num_children_at[t]` counts children whose nearest copy lies in tier `t`. `pins` counts requests
    that use it. `is_from_disk`: read from there, and not used since.
    """

    key: NodeKey
    parent: Node | None
    source: SegmentSource
    num_tokens: int
    history: History
    is_kept: bool = False
    device: Blocks = ()
    host: Blocks = ()
    on_disk: bool = False
    pins: int = 0
    job: Job | None = None
    is_from_disk: bool = False
    children: dict[NodeKey, Node] = field(default_factory=dict)
    num_children_at: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    num_children_on_host: int = 0
    num_children_on_disk: int = 0
    priority: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0, 0.0])

    @property
    def num_blocks(self) -> int:
        return blocks_for(self.num_tokens)

    @property
    def nearest(self) -> Tier | None:
        """The nearest tier that has a copy."""
        if self.device:
            return Tier.DEVICE
        if self.host:
            return Tier.HOST
        return Tier.DISK if self.on_disk else None

    def nearest_but(self, tier: Tier) -> Tier | None:
        """The nearest other tier that has a copy."""
        if self.device and tier is not Tier.DEVICE:
            return Tier.DEVICE
        if self.host and tier is not Tier.HOST:
            return Tier.HOST
        return Tier.DISK if self.on_disk and tier is not Tier.DISK else None

    def has_copy(self, tier: Tier) -> bool:
        if tier is Tier.DEVICE:
            return bool(self.device)
        return bool(self.host) if tier is Tier.HOST else self.on_disk

    @property
    def path(self) -> list[Node]:
        """From the first node below the root to this one."""
        nodes: list[Node] = []
        node: Node | None = self
        while node is not None and node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]
