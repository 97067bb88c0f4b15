"""Who leaves a tier first: the node of lowest priority. A policy is the formula of that number.

    lru     last access
    lfu     frequency
    gdsf    clock + frequency * cost / size, with a cost that is proportional to the size
    pgdsf   clock + frequency * average seconds per token   (RAGCache, arXiv 2404.12457, eq. 2)

The clock of a tier is the highest priority that ever left it: what was used long ago falls behind
what comes in today.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import NamedTuple


class PolicyName(StrEnum):
    LRU = "lru"
    LFU = "lfu"
    GDSF = "gdsf"
    PGDSF = "pgdsf"


class Standing(NamedTuple):
    """What a policy may look at. `cost_s` is the average of seconds per token over the accesses
    that found the node not cached; `last_access` counts accesses of the whole tree."""

    clock: float
    frequency: float
    cost_s: float
    last_access: int


Policy = Callable[[Standing], float]

POLICIES: Mapping[PolicyName, Policy] = {
    PolicyName.LRU: lambda node: float(node.last_access),
    PolicyName.LFU: lambda node: node.frequency,
    PolicyName.GDSF: lambda node: node.clock + node.frequency,
    PolicyName.PGDSF: lambda node: node.clock + node.frequency * node.cost_s,
}
