"""What is remembered of nodes that have left: how often they were used and what they cost.

A document that comes back is not a stranger. The memory is bounded; whoever left longest ago is
forgotten first.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from cluster.errors import InvariantBroken
from cluster.knowledge.keys import NodeKey


@dataclass(slots=True)
class History:
    """A node's past. `cost_sum_s` over `num_costs` is its average of seconds per token."""

    frequency: float = 0.0
    cost_sum_s: float = 0.0
    num_costs: int = 0
    last_access: int = 0

    @property
    def cost_s(self) -> float:
        return self.cost_sum_s / self.num_costs if self.num_costs else 0.0

    @property
    def is_reused(self) -> bool:
        """Used more than once."""
        return self.frequency > 1.0

    def accessed(self, number: int, half_life: float) -> None:
        """The `number`th access of the tree is this node's. What came before counts half for every
        `half_life` accesses that it lies back."""
        if self.frequency:
            self.frequency *= 0.5 ** ((number - self.last_access) / half_life)
        self.frequency += 1.0
        self.last_access = number

    def missed(self, cost_s: float) -> None:
        """An access found the node not cached: so many seconds per token."""
        self.cost_sum_s += cost_s
        self.num_costs += 1


@dataclass(slots=True)
class Ghosts:
    """At most `capacity` histories."""

    capacity: int
    _histories: OrderedDict[NodeKey, History] = field(init=False, default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self._histories)

    def remember(self, key: NodeKey, history: History) -> None:
        self._histories[key] = history
        self._histories.move_to_end(key)
        while len(self._histories) > self.capacity:
            self._histories.popitem(last=False)

    def recall(self, key: NodeKey) -> History:
        """Takes the history out; a new one for a stranger."""
        return self._histories.pop(key, None) or History()

    def check(self) -> None:
        if len(self._histories) > self.capacity:
            raise InvariantBroken(f"{len(self._histories)} ghosts, {self.capacity} are allowed")
