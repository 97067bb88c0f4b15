"""A pool of equal blocks. A block is free, or it is held; there is nothing in between.

free  -> held    allocate
held  -> free    release (only by naming exactly the blocks that are held)
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from cluster.errors import InvariantBroken
from cluster.ids import BlockId

# Tokens in one block: the unit of allocation, and where a segment begins.
BLOCK_TOKENS = 16


def blocks_for(num_tokens: int) -> int:
    """Blocks that hold so many tokens of one segment; the last may be partial."""
    return -(-num_tokens // BLOCK_TOKENS)


class BlockPool:
    """`num_blocks` blocks, numbered from 0, handed out last-released first."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._free = [BlockId(i) for i in reversed(range(num_blocks))]
        self._held: set[BlockId] = set()

    @property
    def num_free(self) -> int:
        return len(self._free)

    def allocate(self, count: int) -> tuple[BlockId, ...]:
        """Asking for more than `num_free` is the caller's bug: ask first."""
        if count > len(self._free):
            raise InvariantBroken(f"{count} blocks asked of a pool with {len(self._free)} free")
        first = len(self._free) - count
        taken = tuple(reversed(self._free[first:]))
        del self._free[first:]
        self._held.update(taken)
        return taken

    def release(self, blocks: Collection[BlockId]) -> None:
        """Raises InvariantBroken for a block that is not held: it was released twice."""
        returned = set(blocks)
        if len(returned) != len(blocks) or not self._held >= returned:
            raise InvariantBroken(f"a block is released and was not held: one of {list(blocks)}")
        self._held -= returned
        self._free.extend(blocks)

    def claim(self, blocks: Collection[BlockId]) -> None:
        """Takes these very blocks. Raises InvariantBroken for one that is held."""
        wanted = set(blocks)
        if wanted & self._held or len(wanted) != len(blocks):
            raise InvariantBroken("a block is claimed and was held")
        self._free = [block for block in self._free if block not in wanted]
        self._held |= wanted

    def holds(self, blocks: Iterable[BlockId]) -> bool:
        """Whether all of these were given out."""
        return self._held.issuperset(blocks)

    def check(self) -> None:
        """Free and held are a partition of the pool."""
        free = set(self._free)
        if len(free) != len(self._free) or free & self._held:
            raise InvariantBroken("a block is free twice, or free and held")
        if free | self._held != set(range(self.num_blocks)):
            raise InvariantBroken(f"{self.num_blocks - len(free) - len(self._held)} blocks leaked")
