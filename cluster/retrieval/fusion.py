"""Rankings disagree about scores but agree on what a rank is, so ranks alone are added up.

    score(d) = sum over rankings r that hold d of 1 / (k + rank of d in r),   ranks from 1

Cormack, Clarke, Buettcher: "Reciprocal Rank Fusion outperforms Condorcet and individual Rank
Learning Methods", SIGIR 2009, where k = 60 was found and hardly mattered.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import fsum
from typing import NamedTuple

RRF_K = 60


class ChunkKey(NamedTuple):
    """The name of a chunk; its order is the order of ties."""

    collection: str
    document_id: str
    ordinal: int


def fuse(rankings: Iterable[Sequence[ChunkKey]], k: int = RRF_K) -> list[tuple[ChunkKey, float]]:
    """One ranking out of many, best first, with scores; equal scores are ordered by key.

    A ranking holds a key at most once. The sum is rounded once, so the order of the rankings does
    not matter.
    """
    shares: defaultdict[ChunkKey, list[float]] = defaultdict(list)
    for ranking in rankings:
        for rank, key in enumerate(ranking, start=1):
            shares[key].append(1.0 / (k + rank))
    fused = [(key, fsum(parts)) for key, parts in shares.items()]
    return sorted(fused, key=lambda scored: (-scored[1], scored[0]))
