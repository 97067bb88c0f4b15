"""Who is worth keeping: frequencies, costs, and a clock for each tier."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

from cluster.errors import InvariantBroken
from cluster.knowledge.ghosts import Ghosts
from cluster.knowledge.keys import NodeKey
from cluster.knowledge.node import TIERS, Node, Tier
from cluster.knowledge.policies import POLICIES, PolicyName, Standing
from cluster.request import SegmentSource


@dataclass(slots=True)
class Ranking:
    """`half_life`: after so many accesses of the tree an old one counts half. System prompts may
    keep `kept_blocks` blocks for good: they are the last to leave."""

    policy: PolicyName
    half_life: float
    kept_blocks: int
    ghosts: Ghosts
    clocks: list[float] = field(init=False, default_factory=lambda: [0.0, 0.0, 0.0, 0.0])
    num_accesses: int = field(init=False, default=0)
    num_kept: int = field(init=False, default=0)

    def accessed(self, node: Node) -> None:
        """A request uses the node; its priority is that of now in every tier that has it."""
        self.num_accesses += 1
        node.history.accessed(self.num_accesses, self.half_life)
        for tier in TIERS:
            if node.has_copy(tier):
                self.rank(node, tier)

    def rank(self, node: Node, tier: Tier) -> None:
        """Sets the node's priority in a tier, as one that was used or came in just now."""
        history = node.history
        standing = Standing(
            self.clocks[tier], history.frequency, history.cost_s, history.last_access
        )
        node.priority[tier] = inf if node.is_kept else POLICIES[self.policy](standing)

    def left(self, node: Node, tier: Tier) -> None:
        """Clock(tier) <- max(Clock(tier), Priority(victim))"""
        if not node.is_kept:
            self.clocks[tier] = max(self.clocks[tier], node.priority[tier])

    def newcomer(self, parent: Node, key: NodeKey, source: SegmentSource, num_tokens: int) -> Node:
        """A node with what is remembered of it. A system prompt is kept for good, within the
        bound."""
        node = Node(key, parent, source, num_tokens, self.ghosts.recall(key))
        is_system = not source.document_id
        if is_system and self.num_kept + node.num_blocks <= self.kept_blocks:
            node.is_kept = True
            self.num_kept += node.num_blocks
        return node

    def forgot(self, node: Node) -> None:
        """The node left its last tier; its past is kept for when it comes back."""
        self.ghosts.remember(node.key, node.history)
        if node.is_kept:
            self.num_kept -= node.num_blocks

    def check(self, nodes: Iterable[Node]) -> None:
        self.ghosts.check()
        num_kept = sum(node.num_blocks for node in nodes if node.is_kept)
        if num_kept != self.num_kept or num_kept > self.kept_blocks:
            raise InvariantBroken(f"{num_kept} blocks kept for good, {self.num_kept} counted")
