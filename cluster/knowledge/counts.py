"""What the cache did since it began. Only sums: whoever shows rates subtracts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from cluster.knowledge.node import Tier


class Eviction(StrEnum):
    """How a node left a tier."""

    MOVED = "moved"  # its blocks were copied to the tier below
    COPY = "copy"  # another tier has them already
    DROPPED = "dropped"  # no other tier has them


@dataclass(slots=True)
class CacheCounts:
    """`moved_blocks` of documents and `paged_blocks` of running requests, by (from, to). `faults`:
    copies that were damaged or could not be read, by tier; `failed_writes` to disk.
    `attended_blocks` of the host were read by a request where they lie."""

    evictions: Counter[tuple[Tier, Eviction]] = field(default_factory=Counter)
    moved_blocks: Counter[tuple[Tier, Tier]] = field(default_factory=Counter)
    paged_blocks: Counter[tuple[Tier, Tier]] = field(default_factory=Counter)
    faults: Counter[Tier] = field(default_factory=Counter)
    inserted_tokens: int = 0
    attended_blocks: int = 0
    failed_writes: int = 0
