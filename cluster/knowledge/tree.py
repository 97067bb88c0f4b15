"""Which nodes there are and where they lie: the structure, without the decisions.

    root (virtual, empty)
      system prompt
        document  ..  document
          document in the context of the one above  ..

P1 every ancestor of a resident node is resident in some tier; with `Placement.TREE` no node lies
nearer than its parent. P3 a node leaves its last tier only when no child is resident. P9 a parent
has one child of a key. And a node on disk has its parent on disk, so that what a disk holds is a
tree by itself, whenever the process dies; on the host, which may be found again too, no node goes
before those under it.

For each tier the tree knows who may leave it without breaking one of these.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.blocks.pool import blocks_for
from cluster.errors import InvariantBroken
from cluster.knowledge.candidates import Candidates
from cluster.knowledge.ghosts import History
from cluster.knowledge.keys import ROOT, NodeKey
from cluster.knowledge.node import Blocks, Node, Placement, Tier
from cluster.request import SegmentSource


def _root() -> Node:
    return Node(ROOT, None, SegmentSource(), 0, History())


@dataclass(slots=True)
class KnowledgeTree:
    """Nodes by key. `num_evictable` counts device blocks of nodes that nobody uses; `unwritten` are
    the nodes on the host that could be copied to disk."""

    placement: Placement
    has_host: bool
    has_disk: bool
    root: Node = field(init=False, default_factory=_root)
    nodes: dict[NodeKey, Node] = field(init=False, default_factory=dict)
    candidates: dict[Tier, Candidates] = field(init=False)
    unwritten: Candidates = field(init=False, default_factory=Candidates)
    num_evictable: int = field(init=False, default=0)
    # Every change of a node walks over them, and an enum is slow to hash.
    _tiers: tuple[tuple[Tier, Candidates], ...] = field(init=False)

    def __post_init__(self) -> None:
        self.candidates = {tier: Candidates() for tier in Tier}
        self._tiers = tuple(self.candidates.items())

    def attach(self, parent: Node, node: Node) -> None:
        """A new node; it lies nowhere yet."""
        if node.key in self.nodes:
            raise InvariantBroken(f"node {node.key.hex()} is there already")
        parent.children[node.key] = node
        parent.num_children_at[0] += 1
        self.nodes[node.key] = node

    def detach(self, node: Node) -> None:
        """Takes out a node that lies nowhere and has no children."""
        if node.nearest is not None or node.children or node.parent is None:
            raise InvariantBroken(f"node {node.key.hex()} still lies somewhere, or has children")
        del node.parent.children[node.key]
        node.parent.num_children_at[0] -= 1
        del self.nodes[node.key]
        self._refresh_leaving(node.parent)

    def put_device(self, node: Node, blocks: Blocks) -> None:
        """Its blocks on the device from now on; none: it left."""
        if not node.pins:
            self.num_evictable += len(blocks) - len(node.device)
        before = node.nearest
        node.device = blocks
        self._moved(node, before)

    def put_host(self, node: Node, blocks: Blocks) -> None:
        before, parent = node.nearest, _parent(node)
        parent.num_children_on_host += bool(blocks) - bool(node.host)
        node.host = blocks
        self._moved(node, before)
        self._refresh_leaving(parent)

    def put_disk(self, node: Node, is_there: bool) -> None:
        before, parent = node.nearest, _parent(node)
        parent.num_children_on_disk += is_there - node.on_disk
        node.on_disk = is_there
        self._moved(node, before)
        self._refresh_leaving(parent)

    def _moved(self, node: Node, before: Tier | None) -> None:
        """Whether a parent may leave depends on which tiers are some child's nearest."""
        now = node.nearest
        self.refresh(node)
        if now is not before:
            parent = _parent(node)
            counts = parent.num_children_at
            counts[before or 0] -= 1
            counts[now or 0] += 1
            if not counts[before or 0] or counts[now or 0] == 1:
                self._refresh_leaving(parent)

    def pin(self, node: Node) -> None:
        if not node.pins:
            self.num_evictable -= len(node.device)
            for _, candidates in self._tiers:
                candidates.discard(node)
        node.pins += 1

    def unpin(self, node: Node) -> None:
        if not node.pins:
            raise InvariantBroken(f"node {node.key.hex()} is unpinned and was not pinned")
        node.pins -= 1
        if not node.pins:
            self.num_evictable += len(node.device)
            self._refresh_leaving(node)

    def refresh(self, node: Node) -> None:
        """Enters the node, as it is now, among those that may leave a tier or be written, or takes
        it out."""
        self._refresh_leaving(node)
        if self.has_disk:
            if self.may_be_written(node):
                self.unwritten.put(node, node.priority[Tier.HOST])
            else:
                self.unwritten.discard(node)

    def _refresh_leaving(self, node: Node) -> None:
        # Who is pinned was taken out then.
        if node.pins or node.parent is None:
            return
        for tier, candidates in self._tiers:
            if self.may_leave(node, tier):
                candidates.put(node, node.priority[tier])
            else:
                candidates.discard(node)

    def may_leave(self, node: Node, tier: Tier) -> bool:
        if node.pins:
            return False
        if tier is Tier.DEVICE:
            # One without a copy below is swapped out, or dropped with all that is under it.
            is_segment = self.has_host and self.placement is Placement.SEGMENT
            return bool(node.device) and (is_segment or not node.num_children_at[tier])
        if not (node.host if tier is Tier.HOST else node.on_disk) or node.job is not None:
            return False
        # What lies below is of no use to whoever finds it again without this one.
        if node.num_children_on_host if tier is Tier.HOST else node.num_children_on_disk:
            return False
        return not node.children or self.rest_suffices(node, tier)

    def may_be_written(self, node: Node) -> bool:
        return self.has_disk and bool(node.host) and not node.on_disk and node.job is None

    def may_lie(self, parent: Node, tier: Tier) -> bool:
        """Whether a child of this node may have its nearest copy in a tier."""
        if parent is self.root:
            return True
        rest = parent.nearest
        return rest is not None and (self.placement is Placement.SEGMENT or rest >= tier)

    def may_lie_on_disk(self, parent: Node) -> bool:
        return parent is self.root or parent.on_disk

    def rest_suffices(self, node: Node, tier: Tier) -> bool:
        """Whether the node has copies in other tiers, and they are enough for its children."""
        rest = node.nearest_but(tier)
        if rest is None:
            return False
        return self.placement is Placement.SEGMENT or not sum(node.num_children_at[rest + 1 :])

    def check(self) -> None:
        """P1, P3, P9, the counts, and who may leave."""
        evictable = num_children = 0
        for key, node in self.nodes.items():
            parent = _parent(node)
            if node.key != key or parent.children.get(key) is not node:
                raise InvariantBroken(f"node {key.hex()} is not its parent's child")
            self._check_place(node, parent)
            evictable += 0 if node.pins else len(node.device)
        if evictable != self.num_evictable:
            raise InvariantBroken(f"{evictable} evictable blocks, {self.num_evictable} counted")
        for node in (self.root, *self.nodes.values()):
            num_children += len(node.children)
            self._check_counts(node)
        if num_children != len(self.nodes):
            raise InvariantBroken(f"{num_children} children, {len(self.nodes)} nodes")
        self._check_candidates()

    def _check_candidates(self) -> None:
        for tier, candidates in self.candidates.items():
            candidates.check()
            allowed = {key for key, node in self.nodes.items() if self.may_leave(node, tier)}
            if set(candidates) != allowed:
                raise InvariantBroken(f"who may leave {tier.label} is wrong")
        self.unwritten.check()
        for key in self.unwritten:
            if key not in self.nodes or not self.may_be_written(self.nodes[key]):
                raise InvariantBroken(f"{key.hex()} is to be written and may not")

    def _check_place(self, node: Node, parent: Node) -> None:
        nearest = node.nearest
        if nearest is None:
            raise InvariantBroken(f"node {node.key.hex()} lies nowhere")
        for tier, blocks in ((Tier.DEVICE, node.device), (Tier.HOST, node.host)):
            if blocks and len(blocks) != blocks_for(node.num_tokens):
                raise InvariantBroken(f"{node.key.hex()} has {len(blocks)} blocks in {tier.label}")
        if parent is self.root:
            return
        if parent.nearest is None:
            raise InvariantBroken(f"the parent of {node.key.hex()} lies nowhere")
        if not self.may_lie(parent, nearest):
            raise InvariantBroken(f"{node.key.hex()} lies nearer than its parent")
        if node.on_disk and not self.may_lie_on_disk(parent):
            raise InvariantBroken(f"{node.key.hex()} is on disk without its parent")
        if node.pins > parent.pins:
            raise InvariantBroken(f"{node.key.hex()} is pinned more often than its parent")

    def _check_counts(self, node: Node) -> None:
        counts = [0, 0, 0, 0]
        for child in node.children.values():
            counts[child.nearest or 0] += 1
        on_host = sum(bool(child.host) for child in node.children.values())
        on_disk = sum(child.on_disk for child in node.children.values())
        below = (node.num_children_on_host, node.num_children_on_disk)
        if counts != node.num_children_at or below != (on_host, on_disk):
            raise InvariantBroken(f"the children of {node.key.hex()} are miscounted")


def _parent(node: Node) -> Node:
    if node.parent is None:
        raise InvariantBroken("the root lies nowhere")
    return node.parent
