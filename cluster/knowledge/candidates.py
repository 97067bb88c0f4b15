"""The nodes that may leave a tier, lowest priority first.

A heap whose entries are never moved: what changed is entered anew, and an entry that no longer says
what its node does is skipped when it comes up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from cluster.errors import InvariantBroken
from cluster.knowledge.keys import NodeKey
from cluster.knowledge.node import Node

# A heap is built anew when fewer than one entry in so many still counts.
_SLACK = 4


@dataclass(slots=True)
class Candidates:
    """Equal priorities leave in the order in which they came."""

    _entries: dict[NodeKey, tuple[float, int, Node]] = field(init=False, default_factory=dict)
    _heap: list[tuple[float, int, Node]] = field(init=False, default_factory=list)
    _count: int = field(init=False, default=0)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[NodeKey]:
        return iter(self._entries)

    def put(self, node: Node, priority: float) -> None:
        known = self._entries.get(node.key)
        if known is not None and known[0] == priority:
            return
        self._count += 1
        entry = self._entries[node.key] = (priority, self._count, node)
        heappush(self._heap, entry)
        if len(self._heap) > _SLACK * len(self._entries) + 64:
            self._heap = list(self._entries.values())
            heapify(self._heap)

    def discard(self, node: Node) -> None:
        self._entries.pop(node.key, None)

    def lowest(self) -> Node | None:
        """The one to leave first; None when nobody may."""
        while self._heap and self._entries.get(self._heap[0][2].key) is not self._heap[0]:
            heappop(self._heap)
        return self._heap[0][2] if self._heap else None

    def pop(self) -> Node | None:
        node = self.lowest()
        if node is not None:
            self.discard(node)
        return node

    def check(self) -> None:
        """Whoever may leave can come up."""
        present = {id(entry) for entry in self._heap}
        if any(id(entry) not in present for entry in self._entries.values()):
            raise InvariantBroken("a candidate is not in the heap")
